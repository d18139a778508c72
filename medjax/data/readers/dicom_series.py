"""A DICOM series, or one multi-frame file, to a volume on canonical axes, in Hounsfield units for CT."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.readers.dicom_file import codes, guarded, load, macro
from medjax.data.readers.dicom_geometry import Plane, frames_with_geometry, plane, stack, stacks
from medjax.data.readers.dicom_pixels import MAX_PIXELS, Layout, decode, layout
from medjax.data.readers.dicom_tags import flags_of_header
from medjax.data.volumes import Volume, canonical
from medjax.errors import UserError, check_choice

MAX_FILES = 2**15
_OTHER = (".txt", ".json", ".xml", ".csv", ".md", ".html", ".pdf", ".png", ".jpg", ".gz", ".nii")


def read_dicom_series(
    path: str | Path,
    files: Sequence[str] = (),
    series: str = "only",
    tolerance: float = 0.05,
    spacing: Sequence[float] = (),
) -> Volume:
    """The volume of the slices in a folder, or of the frames of one file (enhanced CT and MR, grayscale cine).

    Slices are sorted by their position along their normal, never by name or number; localizers, and images without a
    position (dose reports, screen shots), are left out. Axes go to the canonical ones of `medjax.data.volumes` without
    resampling. Values are slope x stored + intercept, never windowed, never inverted: for CT with whole slopes and
    intercepts int16 in HU, clipped to -32768..32767; as stored (int16, uint16, uint8) where the file has no rescale;
    else float32. Padding keeps its value.

    files: names in the folder, of one series where it holds several (see `find_series`). series: "only" refuses a
    folder with several, "largest" takes the one of most slices. tolerance: how far a distance between slices may be
    from the median, as a share. spacing: (D, H, W) in mm, for one file whose frames carry no position; its axes stay
    as they are.

    Raises:
      UserError: a file is missing, torn or outside the folder; no image, or colour; several series; two slices at one
        place, uneven distances, gantry tilt; more than 2^29 voxels.
    """
    path = Path(path)
    check_choice("series", series, ("only", "largest"))
    planes = _scan(path, files)
    with guarded(path, "DICOM series"):
        if path.is_file() and spacing:
            if planes:
                raise UserError("its frames carry positions; leave the option spacing out")
            return Volume(_frames(path), tuple(spacing))
        ordered, directions = stack(_choose(stacks(planes), series), tolerance)
        _check(ordered[0].layout, len(ordered))
    values = _values(ordered)
    with guarded(path, "DICOM series"):
        return canonical(values, directions, "HU" if all(p.hounsfield for p in ordered) else "")


def find_series(path: str | Path) -> list[list[str]]:
    """The names of the files of each series of slices in a folder, for the option `files`.

    Raises:
      UserError: the folder is missing, or a file in it is torn.
    """
    path = Path(path)
    planes = _scan(path, ())
    with guarded(path, "DICOM series"):
        return sorted(sorted({p.path.name for p in found}) for found in stacks(planes))


def read_flags(path: str | Path) -> tuple[str, ...]:
    """What the slices may show of somebody, as `dicom_tags.read_flags`, by the header of the first one.

    Raises:
      UserError: the folder or file is missing, or no DICOM.
    """
    path = Path(path)
    for file in [path] if path.is_file() else _list(path, ()):
        with guarded(file):
            dataset = load(file, pixels=False)
            if _is_slice(dataset):
                return flags_of_header(dataset)
    return ()


def _scan(path: Path, files: Sequence[str]) -> list[Plane]:
    """The slices of all files, from their headers."""
    planes = []
    for file in [path] if path.is_file() else _list(path, files):
        with guarded(file):
            dataset = load(file, pixels=False)
            if not _is_slice(dataset):
                continue
            header = layout(dataset)
            if header.frames > 1 and not path.is_file():
                raise UserError("it has several frames among other files; read it by its own path")
            planes += [
                p for i in range(frames_with_geometry(dataset, header)) if (p := plane(dataset, header, file, i))
            ]
    return planes


def _list(folder: Path, files: Sequence[str]) -> list[Path]:
    with guarded(folder, "DICOM series"):
        if not folder.is_dir():
            raise UserError("there is no such folder")
        found = [folder / name for name in files] or [
            file
            for file in sorted(folder.iterdir())
            if file.is_file()
            and not file.name.startswith(".")
            and file.name.upper() != "DICOMDIR"
            and file.suffix.lower() not in _OTHER
        ]
        if not 0 < len(found) <= MAX_FILES:
            raise UserError(f"it holds {len(found)} files; a series has 1 to {MAX_FILES}")
        root = folder.resolve()
        if any(not file.resolve().is_relative_to(root) for file in found):
            raise UserError("a file of it lies outside the folder (a link or '..'); copy it there")
        return found


def _is_slice(dataset: Any) -> bool:
    """Whether it is an image, and no localizer."""
    frame_type = codes(macro(dataset, "CTImageFrameTypeSequence", 0), "FrameType")
    return "Rows" in dataset and not {"LOCALIZER", "SCOUT"} & {*codes(dataset, "ImageType"), *frame_type}


def _choose(found: list[list[Plane]], series: str) -> list[Plane]:
    if not found:
        raise UserError("it holds no slices with a position and an orientation; read images with the reader dicom")
    found = sorted(found, key=len, reverse=True)
    if len(found) > 1 and (series == "only" or len(found[0]) == len(found[1])):
        sizes = ", ".join(str(len(s)) for s in found[:8])
        raise UserError(
            f"it holds {len(found)} series (of {sizes} slices); name the files of one in the option files, or take the "
            "one of most slices with series='largest'"
        )
    return found[0]


def _values(planes: list[Plane]) -> np.ndarray:
    """[slice, row, column]: decoded one file at a time into one array."""
    header, kind = planes[0].layout, _kind(planes)
    out = np.empty((len(planes), header.rows, header.columns), kind)
    slots: dict[Path, list[tuple[int, int]]] = {}
    for slot, one in enumerate(planes):
        slots.setdefault(one.path, []).append((one.frame, slot))
    for path, wanted in slots.items():
        wanted.sort()
        with guarded(path):
            dataset = load(path)
            frames = decode(dataset, layout(dataset), [frame for frame, _ in wanted])
            for (_, slot), stored in zip(wanted, frames, strict=True):
                out[slot] = _scaled(stored, planes[slot].scale, kind)
    return out


def _frames(path: Path) -> np.ndarray:
    """[frame, row, column]: stored values in the order of the file."""
    dataset = load(path)
    header = layout(dataset)
    _check(header, header.frames)
    return np.stack(list(decode(dataset, header, range(header.frames))))


def _check(header: Layout, frames: int) -> None:
    if not header.photometric.startswith("MONOCHROME"):
        raise UserError("its slices are in colour; volumes of gray slices are read")
    if header.rows * header.columns * frames > MAX_PIXELS:
        raise UserError(f"it has more than {MAX_PIXELS} voxels; split it")


def _kind(planes: list[Plane]) -> np.dtype:
    if all(p.hounsfield and p.scale[0].is_integer() and p.scale[1].is_integer() for p in planes):
        return np.dtype(np.int16)
    stored = {f"{'i' if p.layout.signed else 'u'}{p.layout.allocated // 8}" for p in planes}
    as_stored = stored in ({"i2"}, {"u2"}, {"u1"}) and all(p.scale == (1.0, 0.0) for p in planes)
    return np.dtype(stored.pop() if as_stored else np.float32)


def _scaled(stored: np.ndarray, scale: tuple[float, float], kind: np.dtype) -> np.ndarray:
    """In float64, which holds every stored value, slope and Hounsfield unit exactly."""
    if scale != (1.0, 0.0):
        stored = stored * scale[0] + scale[1]
    return stored.clip(-32768, 32767).astype(kind) if kind == np.int16 else stored.astype(kind)
