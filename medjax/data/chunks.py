"""Volumes as chunks: each compressed by itself without loss, so that a crop reads only the chunks that it touches."""

import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from medjax.data.volumes import DTYPES, MAX_VOXELS, Statistics, Volume
from medjax.errors import UserError

SIDE = 32
_LEVEL = 4
_PLAIN, _SHUFFLED = 0, 1
# By bytes of a voxel. Floats that were scaled from integers repeat as a whole, others only in their first bytes.
_LAYOUTS = {1: (_PLAIN,), 2: (_SHUFFLED,), 4: (_PLAIN, _SHUFFLED)}


def encode_volume(volume: Volume, side: int = SIDE) -> tuple[dict[str, np.ndarray], list[bytes]]:
    """A volume as a header, which goes into the record, and chunks, which are stored beside it in this order.

    A chunk is a box of `side` voxels a side with all its channels, smaller at the far borders; they run along W first,
    then H, then D. It is one byte, 0 or 1, and the voxels in zlib's format (RFC 1950); with 1 the first bytes of all
    voxels come before the second bytes (HDF5's shuffle filter).

    Returns the header, `shape` int64[3] or [4], `spacing` float64[3] in mm, `side` int64[1], `dtype` and `unit` as
    UTF-8 uint8[n], and the fields of `Statistics`, and the chunks.

    Raises:
      UserError: a voxel is not a finite number.
    """
    if volume.values.dtype.kind == "f" and not np.isfinite(volume.values).all():
        raise UserError("the volume holds voxels that are not finite numbers; replace them")
    header = {
        "shape": np.array(volume.shape, np.int64),
        "spacing": np.array(volume.spacing, np.float64),
        "side": np.array([side], np.int64),
        "dtype": np.frombuffer(volume.values.dtype.name.encode(), np.uint8),
        "unit": np.frombuffer(volume.unit.encode(), np.uint8),
        **volume.statistics._asdict(),
    }
    chunks = []
    for start in itertools.product(*(range(0, n, side) for n in volume.shape[:3])):
        box = np.ascontiguousarray(volume.crop(start, (side,) * 3))
        chunks.append(min((_compressed(box, layout) for layout in _LAYOUTS[box.itemsize]), key=len))
    return header, chunks


def _compressed(box: np.ndarray, layout: int) -> bytes:
    voxels = box.view(np.uint8).reshape(-1, box.itemsize).T if layout == _SHUFFLED else box
    return bytes([layout]) + zlib.compress(voxels.tobytes(), _LEVEL)


class StoredVolume:
    """What a Volume offers, with voxels that are read when asked for.

    header: of `encode_volume`. read_chunk: index -> bytes of that chunk.

    Raises:
      UserError: the header is damaged, here; a chunk is, where it is read.
    """

    def __init__(self, header: Mapping[str, np.ndarray], read_chunk: Callable[[int], bytes]):
        try:
            self.shape: tuple[int, ...] = tuple(int(n) for n in header["shape"])
            self.spacing: tuple[float, float, float] = tuple(float(s) for s in header["spacing"])
            self.unit = header["unit"].tobytes().decode()
            self.statistics = Statistics(*(np.asarray(header[k], np.float32) for k in Statistics._fields))
            self._side, dtype = int(header["side"][0]), header["dtype"].tobytes().decode()
        except (KeyError, IndexError, UnicodeDecodeError) as error:
            raise UserError(f"the header of a stored volume is damaged ({error!r}); build the data set again") from None
        if len(self.shape) not in (3, 4) or min(*self.shape, self._side) < 1 or dtype not in DTYPES:
            raise UserError(f"the header of a stored volume is damaged ({dtype}{list(self.shape)}); build it again")
        if math.prod(self.shape) > MAX_VOXELS:
            raise UserError(f"a stored volume claims {self.shape} voxels, more than {MAX_VOXELS}; build it again")
        self._dtype, self._read = np.dtype(dtype), read_chunk
        self._grid = tuple(-(-n // self._side) for n in self.shape[:3])

    @property
    def chunks(self) -> int:
        """How many there are."""
        return math.prod(self._grid)

    @property
    def values(self) -> np.ndarray:
        """All voxels, [D, H, W] or [D, H, W, C]."""
        return self.crop((0, 0, 0), self.shape[:3])

    def crop(self, start: tuple[int, int, int], size: tuple[int, int, int]) -> np.ndarray:
        """The voxels of a box that lies inside, [*size] or [*size, C]; reads the chunks that it touches, each once."""
        out = np.empty((*size, *self.shape[3:]), self._dtype)
        for index, corner in self._touched(start, size):
            box = self._chunk(index, corner)
            low = [max(a, c) for a, c in zip(start, corner, strict=True)]
            high = [min(a + n, c + m) for a, n, c, m in zip(start, size, corner, box.shape[:3], strict=True)]
            inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            out[_less(inside, start)] = box[_less(inside, corner)]
        return out

    def _touched(self, start, size) -> Iterator[tuple[int, tuple[int, ...]]]:
        """(index, first voxel) of each chunk that shares a voxel with the box."""
        side = self._side
        for at in itertools.product(*(range(a // side, -(-(a + n) // side)) for a, n in zip(start, size, strict=True))):
            yield int(np.ravel_multi_index(at, self._grid)), tuple(side * i for i in at)

    def _chunk(self, index: int, corner: tuple[int, ...]) -> np.ndarray:
        shape = (*(min(self._side, n - c) for n, c in zip(self.shape, corner, strict=False)), *self.shape[3:])
        expected = math.prod(shape) * self._dtype.itemsize
        stored = self._read(index)
        try:
            data = zlib.decompressobj().decompress(stored[1:], expected + 1)
        except zlib.error as error:
            raise UserError(f"chunk {index} of a stored volume is damaged ({error}); build it again") from None
        if len(data) != expected or stored[0] not in (_PLAIN, _SHUFFLED):
            raise UserError(f"chunk {index} of a stored volume has not {expected} bytes; build the data set again")
        voxels = np.frombuffer(data, np.uint8)
        if stored[0] == _SHUFFLED:
            voxels = np.ascontiguousarray(voxels.reshape(self._dtype.itemsize, -1).T)
        return voxels.view(self._dtype).reshape(shape)


def _less(box: tuple[slice, ...], origin: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(s.start - o, s.stop - o) for s, o in zip(box, origin, strict=True))
