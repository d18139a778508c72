"""Files are known by what is in them, whatever they are called, and a file in the wrong place is named."""

import gzip
import io
import shutil

import numpy as np
import pytest
from fuzz_seeds import SEEDS
from PIL import Image

from medjax.data.readers import READERS
from medjax.data.readers.sniff import READERS_OF, reader_for, sniff
from medjax.errors import UserError

DICOM = bytes(128) + b"DICM" + bytes(40)


@pytest.mark.parametrize(
    ("reader", "kind"),
    [("image", "image"), ("edf", "ecg"), ("csv_ecg", "ecg"), ("nrrd", "volume")],
)
def test_sound_files_are_known_under_any_name(tmp_path, rng, reader, kind):
    assert reader in READERS
    for name in SEEDS[reader](tmp_path, rng):
        path = tmp_path / name
        assert sniff(path) == reader == reader_for(path, kind)
        if reader != "csv_ecg":  # it has no mark
            shutil.copy(path, tmp_path / "without_ending")
            assert sniff(tmp_path / "without_ending") == reader


def test_a_record_of_several_files_is_known_by_its_header(tmp_path):
    (tmp_path / "r.1.hea").write_text("r.1 12 100 10\n")
    assert sniff(tmp_path / "r.1") == sniff(tmp_path / "r.1.hea") == reader_for(tmp_path / "r.1", "ecg") == "wfdb"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_pictures_are_known_by_their_first_bytes(tmp_path, kind):
    Image.new("L", (5, 5)).save(tmp_path / "x.dcm", kind)
    assert sniff(tmp_path / "x.dcm") == "image"


def test_a_dicom_file_is_a_picture_or_a_volume_of_frames(tmp_path):
    (tmp_path / "x.png").write_bytes(DICOM)
    assert reader_for(tmp_path / "x.png", "image") == "dicom"
    assert reader_for(tmp_path / "x.png", "volume") == reader_for(tmp_path, "volume") == "dicom_series"


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "x").write_bytes(b"NRRD0004\n")
    with pytest.raises(UserError, match=r"x is a file for the reader 'nrrd'; image files are for image, dicom"):
        reader_for(tmp_path / "x", "image")
    with pytest.raises(UserError, match="is a file for the reader 'dicom_series'"):
        reader_for(tmp_path, "ecg")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x1f\x8b", b"\x1f\x8b\x08torn", gzip.compress(b"text", mtime=0)[:15], b"text", bytes(600), b"\xff" * 600],
)
def test_what_is_unknown_is_left_to_the_reader_to_refuse(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    assert sniff(tmp_path / "x") is None
    assert [reader_for(tmp_path / "x", kind) for kind in READERS_OF] == [r[0] for r in READERS_OF.values()]


def test_a_large_gzip_is_not_unpacked(tmp_path):
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb") as f:
        for _ in range(8):
            f.write(np.zeros(2**20, np.uint8).tobytes())
    (tmp_path / "x.gz").write_bytes(out.getvalue()[:-8])  # its end is missing: who reads on would fail
    assert sniff(tmp_path / "x.gz") is None


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.png does not exist"):
        sniff(tmp_path / "none.png")


def test_real_files_are_known(test_data):
    found = {
        "cxr_notes/images/cov_009a17d546.jpg": "image",
        "ecg_wfdb_formats/s0010_re": "wfdb",
        "ecg_wfdb_formats/s0010_re.hea": "wfdb",
        "vol3d_ct_mr/ct_body_3mm.nii.gz": "nifti",
        "vol3d_ct_mr/mr_brain2.nrrd": "nrrd",
        "vol3d_ct_mr/ct_dicom_j2k": "dicom_series",
    }
    assert {name: sniff(test_data / name) for name in found} == found
