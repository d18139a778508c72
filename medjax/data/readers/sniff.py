"""Which reader reads a file: by its first bytes, and by its ending where the format has no mark of its own."""

import gzip
import zlib
from pathlib import Path

from medjax.errors import UserError, check_choice

# Readers of what each kind of item may be; the first is tried, and says what is wrong, where nothing else fits.
READERS_OF = {
    "image": ("image", "dicom"),
    "ecg": ("wfdb", "edf", "csv_ecg"),
    "volume": ("dicom_series", "nifti", "nrrd"),
}
_STARTS = {
    b"\x89PNG\r\n\x1a\n": "image",
    b"\xff\xd8\xff": "image",
    b"II*\0": "image",
    b"MM\0*": "image",
    b"BM": "image",
    b"NRRD000": "nrrd",
    b"0       ": "edf",
    b"\xffBIOSEMI": "edf",
}
_MARKS = {(128, b"DICM"): "dicom", (8, b"WEBP"): "image", (344, b"n+1\0"): "nifti", (4, b"n+2\0"): "nifti"}
_ENDINGS = {".hea": "wfdb", ".csv": "csv_ecg", ".csv.gz": "csv_ecg", ".dcm": "dicom"}
_ENDINGS |= {".nii": "nifti", ".nii.gz": "nifti", ".nrrd": "nrrd", ".nhdr": "nrrd"}
_BYTES = 512


def sniff(path: str | Path) -> str | None:
    """The name of a reader in `medjax.data.readers.READERS`; None for what no reader is known for. A folder is a DICOM
    series; a path without an ending beside a `.hea` file is a WFDB record.

    Raises:
      UserError: nothing is there, or the file cannot be opened.
    """
    path = Path(path)
    if path.is_dir():
        return "dicom_series"
    if not path.is_file():
        if path.with_name(f"{path.name}.hea").is_file():
            return "wfdb"
        raise UserError(f"file {path} does not exist")
    try:
        start = _start(path)
    except OSError as error:
        raise UserError(f"file {path} cannot be read: {error.strerror}") from None
    for mark, reader in _STARTS.items():
        if start.startswith(mark):
            return reader
    for (at, mark), reader in _MARKS.items():
        if start.startswith(mark, at):
            return reader
    return next((reader for ending, reader in _ENDINGS.items() if path.name.lower().endswith(ending)), None)


def reader_for(path: str | Path, kind: str) -> str:
    """The reader of a file that is to be an item of `kind`: "image", "ecg" or "volume".

    Raises:
      UserError: nothing is there, or the file is of another kind.
    """
    check_choice("kind of file", kind, READERS_OF)
    found = sniff(path)
    if found == "dicom" and kind == "volume":
        return "dicom_series"  # the frames of one file
    if found is not None and found not in READERS_OF[kind]:
        raise UserError(
            f"{path} is a file for the reader {found!r}; {kind} files are for {', '.join(READERS_OF[kind])}"
        )
    return found or READERS_OF[kind][0]


def _start(path: Path) -> bytes:
    """The first bytes, of a gzip file those inside."""
    with path.open("rb") as file:
        start = file.read(_BYTES)
        if not start.startswith(b"\x1f\x8b"):
            return start
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file) as inside:
                return inside.read(_BYTES)
        except (gzip.BadGzipFile, EOFError, zlib.error):
            return start  # its reader says what is wrong
