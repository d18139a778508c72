"""NIfTI-1 and NIfTI-2 files (.nii, .nii.gz) as volumes on the canonical axes."""

import io
import math
from pathlib import Path
from typing import Literal

import numpy as np

from medjax.data.readers.voxels import check_claim, guarded, read_exactly, storable, stream
from medjax.data.volumes import Volume, canonical
from medjax.errors import UserError

_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}
_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")


def read_nifti(path: str | Path, unit: Literal["HU", ""] = "", channels: bool = False) -> Volume:
    """A Volume of a single-file NIfTI image.

    unit: "HU" says that this is CT; the format cannot. channels: take a fourth axis (sequences, time) as channels, else
    only images whose further axes are 1 are read. Values are `scl_slope * stored + scl_inter` where the slope is set;
    see `storable` for their type. The axes come from the sform, else the qform, else, with neither, are taken as
    nibabel takes them: the first axis to the patient's left, the second to the front, the third up. Oblique axes go to
    the nearest; see `medjax.data.volumes.canonical`.

    Raises:
      UserError: the file is missing, damaged or cut off, claims more than it holds or than 2^32 bytes, has no voxels or
        other axes, or voxels that are no real numbers.
    """
    path = Path(path)
    try:
        import nibabel  # noqa: F401
    except ImportError:
        raise UserError("reading NIfTI needs the package nibabel; pip install 'medjax[readers]'") from None
    with guarded(path, "NIfTI"), path.open("rb") as file:
        return _read(file, path, unit, channels)


def _read(file, path: Path, unit: Literal["HU", ""], channels: bool) -> Volume:
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    source = stream(file, compressed)
    header, used = _header(source, path)
    shape = _shape(header.get_data_shape(), channels)
    dtype = header.get_data_dtype()
    if dtype.name not in _TYPES:
        raise UserError(f"{path} holds voxels of type {dtype}; save them as integers or floats")
    offset, count = int(header["vox_offset"]) or used, math.prod(shape) * dtype.itemsize
    if offset < used or offset > used + 2**24:
        raise UserError(f"{path} says that its voxels start at byte {offset}; its header is damaged")
    check_claim(offset + count, path, compressed)
    read_exactly(source, offset - used, path)
    values = read_exactly(source, count, path, last=True).view(dtype).reshape(shape, order="F")
    return canonical(storable(_scaled(values, header)), _directions(header), unit)


def _header(source, path: Path):
    """The header, and how many bytes it took."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    head = read_exactly(source, 348, path).tobytes()
    size = head[:4]
    if size in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big")):
        head += read_exactly(source, 540 - 348, path).tobytes()
        kind, magic, expected = Nifti2Header, head[4:7], b"n+2"
    else:
        kind, magic, expected = Nifti1Header, head[344:347], b"n+1"
    if magic in (b"ni1", b"ni2"):
        raise UserError(f"{path} is the header of a .hdr/.img pair; save the image as one .nii or .nii.gz file")
    if magic != expected:
        raise UserError(f"{path} is no NIfTI file")
    return kind.from_fileobj(io.BytesIO(head), check=False), len(head)


def _shape(shape: tuple[int, ...], channels: bool) -> tuple[int, ...]:
    """[I, J, K] or [I, J, K, C], without axes of length 1 behind them."""
    if len(shape) < 3 or min(shape) < 1:
        raise UserError(f"an image of {list(shape)} voxels is no volume")
    more = tuple(n for n in shape[3:] if n > 1)
    if more and not channels:
        raise UserError(f"the image has {list(shape)} voxels; set channels to take its fourth axis as channels")
    if len(more) > 1:
        raise UserError(f"the image has {list(shape)} voxels; medjax reads three axes and channels")
    return (*shape[:3], *more)


def _scaled(values: np.ndarray, header) -> np.ndarray:
    """With slope and intercept, in float64 only where they change something."""
    slope, intercept = header.get_slope_inter()
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 1 and intercept == 0:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        return values * np.float64(slope) + np.float64(intercept)


def _directions(header) -> np.ndarray:
    """[3, 3]: steps in mm in LPS; the affine of NIfTI is RAS."""
    unit = header.get_xyzt_units()[0]
    if unit not in _MM:
        raise UserError(f"the unit of its spacing is {unit!r}; known are {', '.join(_MM)}")
    return np.diag([-1.0, -1.0, 1.0]) @ header.get_best_affine()[:3, :3] * _MM[unit]
