"""Fifty invented patients whose names, record numbers and dates stand wherever real exports have them, and a search."""

import csv
import gzip
import io
import itertools
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

_MARKS = re.compile(b"xq|4711|1893|1961")
_LETTERS = "bdfglmnprtvz"
COLUMNS = ("id", "image", "report", "crp", "sick", "patient", "split", "seen", "name", "born")


@dataclass(frozen=True)
class Person:
    """What must not be found again. seen: the day of the study."""

    given: str
    family: str
    number: str
    born: str
    seen: str
    doctor: str

    @property
    def file(self) -> str:
        """A file name as exports make them."""
        return f"{self.family}_{self.given}_{self.number}_{self.seen}"


def people(count: int = 50) -> list[Person]:
    """Names share the letters xq, numbers and dates their beginnings, so that nothing else looks like them."""
    syllables = ["".join(s) for s in itertools.product(_LETTERS, "aeiou")]
    out = []
    for i in range(count):
        a, b, c = syllables[i], syllables[(7 * i + 3) % len(syllables)], syllables[(11 * i + 5) % len(syllables)]
        born, seen = f"1893-{i % 12 + 1:02d}-{i % 28 + 1:02d}", f"1961-{i * 5 % 12 + 1:02d}-{i * 3 % 28 + 1:02d}"
        out.append(Person(f"Xq{a}{b}".title(), f"O{c}xq{a}".title(), f"88{i:02d}4711", born, seen, f"{b}{c}xq".title()))
    return out


def report(person: Person, i: int) -> str:
    """A report as it is dictated, with everything that does not belong into it."""
    day = "/".join(reversed(person.seen.split("-")))
    return (
        f"Patient: {person.given} {person.family}, MRN {person.number}, born {person.born}. Examined on {day}. "
        f"{'Left pleural effusion' if i % 2 else 'No pleural effusion'}. Heart of normal size. "
        f"{person.family.lower()} was seen before, {person.given.upper()} is well. "
        f"Reported by Dr. {person.doctor} on {person.seen.replace('-', '')}."
    )


def write_export(folder: Path) -> Path:
    """Writes pictures (DICOM, JPEG with EXIF, PNG with text) and studies.csv; returns its path.

    One file in ten is torn, and one row has a name where a number belongs, so that messages have names to tell.
    """
    folder.mkdir(parents=True)
    rows = []
    for i, person in enumerate(people()):
        write = (_dicom, _jpeg, _png)[i % 3]
        path = write(folder, person, i)
        if i % 10 == 9:
            path.write_bytes(path.read_bytes()[:100])
        split = ("train", "train", "train", "validation", "test")[i % 5]
        crp = person.family if i == 20 else i
        times = person.seen if i % 2 else f"{person.seen}T10:30:00"
        row = (person.file, path.name, report(person, i), crp, i // 10 % 2, person.number, split, times)
        rows.append((*row, f"{person.family}^{person.given}", person.born))
    with (folder / "studies.csv").open("w", newline="") as f:
        csv.writer(f).writerows([COLUMNS, *rows])
    return folder / "studies.csv"


def _pixels(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (32, 32), np.uint8)


def _jpeg(folder: Path, person: Person, i: int) -> Path:
    exif = Image.Exif()
    exif[270], exif[315], exif[306] = f"{person.given} {person.family}", person.doctor, person.seen
    path = folder / f"{person.file}.jpg"
    Image.fromarray(_pixels(i)).save(path, exif=exif, comment=f"{person.number} {person.born}".encode())
    return path


def _png(folder: Path, person: Person, i: int) -> Path:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", person.family)
    info.add_text("Comment", f"{person.given} {person.number}", zip=True)
    info.add_itxt("Author", person.doctor)
    path = folder / f"{person.file}.png"
    Image.fromarray(_pixels(i)).save(path, pnginfo=info)
    return path


def _dicom(folder: Path, person: Person, i: int) -> Path:
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
    path = folder / f"{person.file}.dcm"
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.PatientName, header.PatientID = f"{person.family}^{person.given}", person.number
    header.PatientBirthDate, header.StudyDate = person.born.replace("-", ""), person.seen.replace("-", "")
    header.ReferringPhysicianName, header.AccessionNumber = person.doctor, person.number
    header.StudyDescription = f"chest of {person.given}"
    header.add_new(pydicom.tag.Tag(0x00190010), "LO", f"{person.family} PRIVATE")
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.Modality, header.PhotometricInterpretation, header.SamplesPerPixel = "DX", "MONOCHROME2", 1
    header.Rows = header.Columns = 32
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation, header.PixelData = 7, 0, _pixels(i).tobytes()
    header.save_as(path, enforce_file_format=True)
    return path


def needles() -> re.Pattern[bytes]:
    """Matches, in lower-cased bytes, what names one of the people: names, numbers, dates as usually written."""
    names = {part.lower() for p in people() for part in (p.given, p.family, p.doctor)}
    numbers = {p.number for p in people()}
    days = {day for p in people() for day in (p.born, p.seen)}
    forms = {f for y, m, d in (day.split("-") for day in days) for f in _dates(y, m, d)}
    wanted = sorted(x.encode() for x in names | numbers | forms)
    assert all(_MARKS.search(x) for x in wanted)
    return re.compile(b"|".join(map(re.escape, wanted)))


def _dates(y: str, m: str, d: str) -> tuple[str, ...]:
    return (
        f"{y}-{m}-{d}",
        f"{y}{m}{d}",
        f"{d}/{m}/{y}",
        f"{m}/{d}/{y}",
        f"{d}.{m}.{y}",
        f"{y}:{m}:{d}",
        f"{y}/{m}/{d}",
    )


def leaks(*folders: Path) -> list[str]:
    """`file: what was found` of every output file, its name included, unpacked, in UTF-8 and UTF-16."""
    pattern, out = needles(), []
    for path in (p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file() or p.is_symlink()):
        named = str(path.relative_to(next(f for f in folders if path.is_relative_to(f))))
        for what, data in ((f"{named} (name)", named.encode()), *_unpacked(named, path.read_bytes())):
            plain = data.lower()
            for found in {m for text in (plain, plain.replace(b"\0", b"")) for m in _found(pattern, text)}:
                out.append(f"{what}: {found.decode()}")
    return out


def _found(pattern: re.Pattern[bytes], data: bytes) -> Iterator[bytes]:
    """The matches, which are looked for only around what all of them contain: thousands of times faster."""
    for m in _MARKS.finditer(data):
        yield from pattern.findall(data[max(0, m.start() - 16) : m.end() + 16])


def _unpacked(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes, and those inside them: of records, archives, pictures and compressed streams."""
    yield name, data
    if name.endswith(".array_record"):
        for i, record in enumerate(_records(data)):
            yield from _unpacked(f"{name}[{i}]", record)
    elif zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for inner in archive.namelist():
                yield from _unpacked(f"{name}/{inner}", archive.read(inner))
    elif data[:2] == b"\x1f\x8b":
        yield from _unpacked(name.removesuffix(".gz"), gzip.decompress(data))
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                yield member.name, member.name.encode()
                if member.isfile():
                    yield from _unpacked(f"{name}/{member.name}", archive.extractfile(member).read())
    else:
        yield from _streams(name, data)


def _records(data: bytes) -> list[bytes]:
    import tempfile

    import grain

    with tempfile.NamedTemporaryFile(suffix=".array_record") as f:
        f.write(data)
        f.flush()
        source = grain.sources.ArrayRecordDataSource([f.name])
        return [source[i] for i in range(len(source))]


def _streams(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """What zlib and zstd streams hold that begin anywhere in the bytes: chunks of PNG, of arrays, of checkpoints."""
    for m in re.finditer(rb"\x78[\x01\x5e\x9c\xda]|\x28\xb5\x2f\xfd", data):
        rest = memoryview(data)[m.start() :]
        inner = _zstd(rest) if m[0][0] == 0x28 else _zlib(rest)
        if len(inner) > 3:
            yield f"{name}@{m.start()}", inner


def _zlib(data: memoryview) -> bytes:
    try:
        return zlib.decompressobj().decompress(data)
    except zlib.error:
        return b""


def _zstd(data: memoryview) -> bytes:
    import pyarrow

    out = b""
    try:
        with pyarrow.CompressedInputStream(pyarrow.BufferReader(data), "zstd") as stream:
            while block := stream.read(2**16):
                out += block
    except OSError:
        pass  # what comes after the frame is no part of it
    return out
