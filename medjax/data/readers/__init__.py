"""Reading files of one format each into raw items, with errors that name the file and the fix."""

import functools
import glob
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medjax.errors import UserError, check_choice

Reader = Callable[[Path, Mapping[str, Any]], Any]
_signature = functools.cache(inspect.signature)


def _lazy(module: str, function: str) -> Reader:
    """`medjax.data.readers.{module}.{function}(path, **options)`, imported at its first call."""

    def read(path: Path, options: Mapping[str, Any]) -> Any:
        found = getattr(importlib.import_module(f"{__name__}.{module}"), function)
        try:
            _signature(found).bind(path, **options)
        except TypeError as error:
            raise UserError(f"reader {module!r}: {error}; see {__name__}.{module}.{function}") from None
        return found(path, **options)

    return read


# Name -> (path, options) -> raw item. The names stand in index-only records: never give one another meaning.
READERS: dict[str, Reader] = {
    "dicom": _lazy("dicom", "read_dicom"),
    "dicom_series": _lazy("dicom_series", "read_dicom_series"),
    "image": _lazy("image", "read_encoded"),
    "nifti": _lazy("nifti", "read_nifti"),
    "nrrd": _lazy("nrrd", "read_nrrd"),
    "wfdb": _lazy("wfdb", "read_wfdb"),
    "edf": _lazy("edf", "read_edf"),
    "csv_ecg": _lazy("csv_ecg", "read_csv_ecg"),
}


# Readers that look less closely at a file of which a checksum says that it is one that was read before, and less still
# if nothing is kept of it but what is decoded.
VERIFYING = frozenset({"image"})

# Name of a reader -> path -> what its item may show of a person, for `Example.flags`.
FLAGS: dict[str, Reader] = {
    "dicom": _lazy("dicom_tags", "read_flags"),
    "dicom_series": _lazy("dicom_series", "read_flags"),
}


def flags_of(name: str, path: Path) -> tuple[str, ...]:
    """What a reader warns of in a file, or in the first slice of a folder (a DICOM series), such as "burned-in text".

    Raises:
      UserError: the file cannot be read.
    """
    return FLAGS[name](path, {}) if name in FLAGS else ()


def reader(name: str) -> Reader:
    """The reader of that name.

    Raises:
      UserError: there is none.
    """
    check_choice("reader", name, READERS)
    return READERS[name]


def files_of(path: Path) -> list[Path]:
    """The files that stand behind a path: itself, those of a folder (a DICOM series), or those that share it as their
    stem (the .hea and .dat of a WFDB record), in the order of their names; of a .nhdr also the file that it names.

    Raises:
      UserError: there are none.
    """
    if path.suffix == ".hea":
        path = path.with_suffix("")
    if path.is_file():
        detached = path.suffix.lower() == ".nhdr"
        return importlib.import_module(f"{__name__}.nrrd").files_of(path) if detached else [path]
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.is_file()]
    else:
        stem = glob.escape(path.name)
        found = [p for p in path.parent.glob(f"{stem}.*") if p.is_file()] if path.parent.is_dir() else []
    if not found:
        raise UserError(f"file {path} does not exist")
    return sorted(found)
