"""DICOM files that are torn, lie, bomb or nest: refused with file and cause, before anything is allocated."""

import importlib.util
import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pydicom
import pytest
from dicom_files import item, picture, write
from pydicom.data import get_testdata_file

from medjax.data.readers.dicom import read_dicom
from medjax.data.readers.dicom_series import read_dicom_series
from medjax.errors import UserError

JPEG_2000, RLE = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"


def _damaged(tmp_path):
    """(what the error must say, a file) of everything that is refused."""
    gray = np.arange(1600, dtype=np.uint16).reshape(40, 40)

    def of(name, pixels=gray, **options):
        return write(tmp_path / f"{name}.dcm", pixels, **options)

    huge = {"Rows": 65535, "Columns": 65535}
    yield "the limit is", of("wide", **huge)
    yield "cut short", of("frames", NumberOfFrames=60000)
    yield "bytes of RLE cannot hold 50 frames", _changed(of("rle", compress=RLE), NumberOfFrames=50)
    path = of("torn")
    path.write_bytes(path.read_bytes()[:-50])
    yield "cut short: its pixels need 3200 bytes, it has 3150", path
    yield "claims 3 frames and holds 1", _changed(of("few", compress=RLE), NumberOfFrames=3)
    yield "claims 4000 x 40 pixels", _changed(of("other", compress=JPEG_2000), Rows=4000)
    yield "video or private", _retagged(of("video", compress=RLE), "1.2.840.10008.1.2.4.102")
    yield "no image", of("none", Rows=None, PhotometricInterpretation=None)
    yield "RescaleSlope is 0", of("slope", RescaleSlope="0", RescaleIntercept="1")
    yield "1 bits", of("bits", BitsAllocated=1, BitsStored=1)
    yield "32 bits", of("deep", pixels=gray.astype(np.uint32))
    yield "samples per pixel", of("samples", SamplesPerPixel=3)
    yield "BitsStored is 17", of("stored", BitsStored=17)
    yield "photometric", of("cmyk", PhotometricInterpretation="CMYK")
    yield "lookup table", of("lut", VOILUTSequence=[item(LUTDescriptor=[9, 0, 8], LUTData=b"123")])
    text = tmp_path / "text.dcm"
    text.write_text("no DICOM at all" * 99)
    yield "letters DICM", text
    yield "no such file", tmp_path / "missing.dcm"


def _retagged(path, syntax):
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    data.save_as(path)
    return path


def _changed(path, **elements):
    data = pydicom.dcmread(path)
    for name, value in elements.items():
        setattr(data, name, value)
    data.save_as(path)
    return path


def test_what_cannot_be_read_is_refused_with_file_and_cause(tmp_path):
    for words, path in _damaged(tmp_path):
        with pytest.raises(UserError) as refused:
            read_dicom(path, frame=0)
        assert words in str(refused.value) and path.name in str(refused.value) and "\n" not in str(refused.value)


def test_what_a_header_claims_is_not_allocated(tmp_path):
    gray = np.zeros((40, 40), np.uint16)
    claims = [
        write(tmp_path / "native.dcm", gray, Rows=16000, Columns=16000),
        write(tmp_path / "frames.dcm", gray, NumberOfFrames=65535),
        _changed(write(tmp_path / "rle.dcm", gray, compress=RLE), Rows=16000, Columns=16000),
        _changed(write(tmp_path / "jpeg.dcm", gray, compress=JPEG_2000), Rows=16000, Columns=16000),
    ]
    size = (16000).to_bytes(4, "big")
    stream = claims[-1].read_bytes()
    at = stream.index(b"\xff\x4f\xff\x51")
    (tmp_path / "jpeg.dcm").write_bytes(
        stream[: at + 8] + size * 2 + stream[at + 16 : at + 24] + size * 2 + stream[at + 32 :]
    )
    tracemalloc.start()
    for path in claims:
        for read in (read_dicom, read_dicom_series):
            with pytest.raises(UserError, match=path.name):
                read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24  # of 2^27 bytes and more that are claimed


def test_threads_read_at_once_and_leave_the_filters_of_warnings_alone(tmp_path, rng):
    paths = [
        get_testdata_file(name, download=False) for name in ("MR_small_padded.dcm", "CT_small.dcm", "MR_small_RLE.dcm")
    ]
    alone = [read_dicom(path) for path in paths]
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(read_dicom, paths * 8))
    assert warnings.filters == before
    assert all((a == b).all() for a, b in zip(alone * 8, together, strict=True))


@pytest.mark.skipif(any(map(importlib.util.find_spec, ("gdcm", "jpeg_ls", "libjpeg"))), reason="it would be decoded")
def test_a_missing_decoder_is_named(tmp_path):
    gray = np.zeros((40, 40), np.uint16)
    for syntax, needed in (("80", "pyjpegls"), ("70", "python-gdcm, or"), ("51", "pylibjpeg and pylibjpeg-libjpeg")):
        path = _retagged(write(tmp_path / "a.dcm", gray, compress=RLE), f"1.2.840.10008.1.2.4.{syntax}")
        with pytest.raises(UserError, match=f"JPEG.* which needs {needed}"):
            read_dicom(path)


def test_a_deflated_bomb_is_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr("medjax.data.readers.dicom_file.MAX_INFLATED", 2**22)
    path = write(tmp_path / "a.dcm", np.zeros((8, 8), np.uint16), syntax="1.2.840.10008.1.2.1.99")
    assert picture(read_dicom(path)).shape == (8, 8)
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    body = zlib.decompress(data[start:], -15) + struct.pack("<HH2sHI", 0x7FE1, 0x10, b"OB", 0, 2**24) + bytes(2**24)
    deflate = zlib.compressobj(wbits=-15)
    path.write_bytes(data[:start] + deflate.compress(body) + deflate.flush())
    with pytest.raises(UserError, match="inflates to more than"):
        read_dicom(path)


def test_endless_nesting_is_an_error_and_no_value_is_quoted(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((8, 8), np.uint16), StudyDescription="Doe^Jane 1950-01-01")
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    nested = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    path.write_bytes(data[:start] + nested * 3000 + data[start:])
    with pytest.raises(UserError) as refused:
        read_dicom(path)
    assert "a.dcm" in str(refused.value)
    path.write_bytes(data.replace(b"CS\x0c\x00MONOCHROME2 ", b"CS\x0c\x00DoeJane 1950"))
    with pytest.raises(UserError) as refused:
        read_dicom(path)
    assert "Doe" not in str(refused.value)
