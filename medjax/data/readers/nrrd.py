"""NRRD files (.nrrd, .nhdr) as volumes on the canonical axes."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medjax.data.readers.voxels import check_claim, guarded, read_exactly, storable, stream
from medjax.data.volumes import Volume, canonical
from medjax.errors import UserError

_MAX_HEADER = 1 << 18
_TO_LPS = {
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
}
_SHORT = {"lps": "left-posterior-superior", "ras": "right-anterior-superior", "las": "left-anterior-superior"}


def read_nrrd(path: str | Path, unit: Literal["HU", ""] = "", channels: bool = False) -> Volume:
    """A Volume of an NRRD image with raw or gzip data, in the file or in one detached file of the same folder.

    unit: "HU" says that this is CT; the format cannot. channels: take an axis without direction in space as channels,
    else such images are refused. The axes come from `space directions`; without them, from `spacings` along left,
    posterior and superior. Lengths are in mm. See `storable` for the type of values, and
    `medjax.data.volumes.canonical` for oblique axes.

    Raises:
      UserError: the file is missing, damaged or cut off, claims more than it holds or than 2^32 bytes, has other axes,
        units, encodings or types, or its data lies elsewhere.
    """
    path = Path(path)
    with guarded(path, "NRRD"):
        header, length = _header(path)
        shape, space = _axes(header, channels)
        values = _voxels(header, shape, path, length)
        if len(space) < len(shape):
            values = values.transpose(*space, next(k for k in range(4) if k not in space))
        return canonical(storable(values), _directions(header, space), unit)


def files_of(path: Path) -> list[Path]:
    """The header's file, and the data file where that is another.

    Raises:
      UserError: as `read_nrrd`.
    """
    try:
        header, _ = _header(path)
    except (OSError, ValueError, ArithmeticError, LookupError) as error:
        raise UserError(f"{path} cannot be read as NRRD ({type(error).__name__}: {error}); is it damaged?") from None
    name = header.get("data file", header.get("datafile"))
    return [path] if name is None else [path, _beside(path, name)]


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The fields, and how many bytes they took, with the empty line behind them."""
    try:
        import nrrd
    except ImportError:
        raise UserError("reading NRRD needs the package pynrrd; pip install 'medjax[readers]'") from None
    with path.open("rb") as file:
        start = file.read(_MAX_HEADER)
    if not start.startswith(b"NRRD"):
        raise UserError(f"{path} is no NRRD file")
    ends = [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := start.find(mark)) >= 0]
    if not ends and len(start) == _MAX_HEADER:
        raise UserError(f"{path} has a header of more than {_MAX_HEADER} bytes; it is damaged")
    length = min(ends, default=len(start))
    return dict(nrrd.read_header(start[:length].splitlines())), length


def _axes(header: dict[str, Any], channels: bool) -> tuple[tuple[int, ...], list[int]]:
    """Sizes, and which axes are those of space."""
    shape = tuple(int(n) for n in header["sizes"])
    if len(shape) != header["dimension"] or len(shape) not in (3, 4) or min(shape) < 1:
        raise UserError(f"an image of {list(shape)} voxels is no volume")
    if "space directions" in header:
        rows = np.array([[np.nan] * 3 if row is None else row for row in header["space directions"]], np.float64)
        if rows.shape != (len(shape), 3):
            raise UserError(f"its space directions are {list(rows.shape)} numbers for {len(shape)} axes")
        space = np.flatnonzero(~np.isnan(rows).all(axis=1)).tolist()
    else:
        space = [k for k, x in enumerate(header["spacings"]) if not np.isnan(x)]
    if len(space) != 3:
        raise UserError(f"{len(space)} of its axes have a direction in space; a volume has three")
    if len(shape) == 4 and not channels:
        raise UserError(f"the image has {list(shape)} voxels; set channels to take the axis beside space as channels")
    return shape, space


def _directions(header: dict[str, Any], space: list[int]) -> np.ndarray:
    """[3, 3]: steps in mm in LPS."""
    if units := [u for u in header.get("space units", ()) if u.lower() not in ("mm", "millimeter", "")]:
        raise UserError(f"its space units are {units[0]!r}; medjax reads mm")
    if "space directions" not in header:
        return np.diag([float(header["spacings"][k]) for k in space])
    name = header.get("space", "left-posterior-superior").lower()
    name = _SHORT.get(name, name)
    if name not in _TO_LPS:
        raise UserError(f"its space is {name!r}; known are {', '.join(_TO_LPS)}")
    steps = np.array([header["space directions"][k] for k in space], np.float64)
    return np.diag(_TO_LPS[name]) @ steps.T


def _voxels(header: dict[str, Any], shape: tuple[int, ...], path: Path, length: int) -> np.ndarray:
    from nrrd.reader import _determine_datatype

    dtype, encoding = _determine_datatype(header), header["encoding"].lower()
    if dtype.kind not in "iuf" or encoding not in ("raw", "gzip", "gz"):
        raise UserError(f"its voxels are {header['type']}, {encoding}; medjax reads numbers, raw or gzip")
    compressed, count = encoding != "raw", math.prod(shape) * dtype.itemsize
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    if header.get("line skip", header.get("lineskip", 0)) or (compressed and skip) or skip < -1:
        raise UserError("it skips lines, or bytes of compressed data; save it without")
    name = header.get("data file", header.get("datafile"))
    source = path if name is None else _beside(path, name)
    check_claim(count, source, compressed)
    with source.open("rb") as file:
        if skip == -1:
            file.seek(source.stat().st_size - count)
        else:
            file.seek((length if name is None else 0) + skip)
        data = read_exactly(stream(file, compressed), count, source, last=True)
    return data.view(dtype).reshape(shape, order="F")


def _beside(path: Path, name: str) -> Path:
    """The detached data file, which must lie in the folder of its header or below."""
    folder = path.parent.resolve()
    data = (folder / name).resolve()
    if not data.is_relative_to(folder) or not data.is_file():
        raise UserError(f"{path} names the data file {name[:80]!r}, which is not one file in its folder; put it there")
    return data
