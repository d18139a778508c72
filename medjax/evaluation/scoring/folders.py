"""Folders of pictures, maps and masks that belong together by the names of their files."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from medjax.data.readers.image import decode, read_encoded
from medjax.data.readers.nifti import read_nifti
from medjax.data.readers.table import check_columns, read_table
from medjax.errors import UserError

_DOUBLE = ".nii.gz"


def stem(path: Path) -> str:
    """The name without its ending: that of "a.b.nii.gz" is "a.b"."""
    return path.name.removesuffix(_DOUBLE) if path.name.endswith(_DOUBLE) else path.stem


def files(folder: str | Path) -> dict[str, Path]:
    """`{stem: file}` of a folder, sorted; hidden files do not count.

    Raises:
      UserError: it does not exist, is empty, or has two files of one stem.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    out: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        if stem(path) in out:
            raise UserError(f"{folder} has both {out[stem(path)].name} and {path.name}; keep one of them")
        out[stem(path)] = path
    if not out:
        raise UserError(f"folder {folder} has no files")
    return out


def pairs(one: str | Path, other: str | Path) -> dict[str, tuple[Path, Path]]:
    """`{stem: (file of one, file of other)}`.

    Raises:
      UserError: a file has no partner; both folders must hold the same.
    """
    left, right = files(one), files(other)
    for there, lacking, where in ((left, right, other), (right, left, one)):
        alone = [k for k in there if k not in lacking]
        if alone:
            raise UserError(f"{there[alone[0]]} has no partner in {where} ({len(alone)} of {len(there)} have none)")
    return {k: (left[k], right[k]) for k in left}


def patients(names: list[str], table: str) -> tuple[np.ndarray, bool]:
    """int[n] by the columns `file` (a stem or a name) and `patient` of a table, and whether they are known; without a
    table each file is a patient of its own.

    Raises:
      UserError: the table cannot be read, or lacks a file.
    """
    if not table:
        return np.arange(len(names)), False
    rows = read_table(table)
    check_columns(rows, ("file", "patient"), table)
    found = {stem(Path(row["file"])): row["patient"] for row in rows}
    lacking = [n for n in names if not found.get(n)]
    if lacking:
        raise UserError(f"{table} names no patient of {lacking[0]!r} ({len(lacking)} of {len(names)} files)")
    return np.unique([found[n] for n in names], return_inverse=True)[1].reshape(-1), True


def picture(path: Path) -> np.ndarray:
    """uint8[H, W] of a gray picture, uint8[H, W, 3] of a coloured one.

    Raises:
      UserError: it cannot be read.
    """
    pixels = np.asarray(decode(read_encoded(path), 3))
    gray = (pixels[..., :1] == pixels).all()
    return pixels[..., 0] if gray else pixels


def array(path: Path) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """What a .npy, .npz (of one array), NIfTI or picture file holds, and its spacing in mm where the file says it.

    A picture of masks holds its classes as gray values or palette numbers.

    Raises:
      UserError: it cannot be read.
    """
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False), None
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                if len(archive.files) != 1:
                    raise UserError(f"{path} holds the arrays {', '.join(archive.files)}; it must hold one")
                return archive[archive.files[0]], None
        if path.suffix == ".nii" or path.name.endswith(_DOUBLE):
            volume = read_nifti(path)
            return volume.values, tuple(float(x) for x in volume.spacing)
        with Image.open(path) as image:
            return np.asarray(image if image.mode in ("L", "P", "I", "I;16") else image.convert("L")), None
    except (OSError, ValueError, UnidentifiedImageError) as error:
        raise UserError(f"{path} is no array, NIfTI or picture that can be read: {error}") from None
