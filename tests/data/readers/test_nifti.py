"""NIfTI files become volumes whose voxels, spacing and place in the patient are those of nibabel."""

import gzip
import struct

import nibabel
import numpy as np
import pytest
from marked_volumes import ORIENTATIONS, SPACING, check_marks, marked_voxels

from medjax.data.readers import READERS
from medjax.data.readers.nifti import read_nifti
from medjax.errors import UserError

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def affine(directions_ras):
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = directions_ras, (11, -7, 3)
    return out


def save(path, values, matrix=None, change=None, kind=nibabel.Nifti1Image):
    image = kind(values, np.eye(4) if matrix is None else matrix, dtype=values.dtype)
    if change:
        change(image)
    nibabel.save(image, path)
    return path


def patched(path, at: int, value: bytes):
    """The file with other bytes at one place of its header."""
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("directions", [d * SPACING for d in ORIENTATIONS])
def test_marks_keep_their_place_in_the_patient(tmp_path, directions):
    path = save(tmp_path / "a.nii", marked_voxels(), affine(directions))
    check_marks(read_nifti(path), RAS_TO_LPS @ directions)


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        (np.array([0, 255], np.uint8), "uint8"),
        (np.array([0, 65535], np.uint16), "uint16"),
        (np.array([-1024, 3071], np.int16), "int16"),
        (np.array([-128, 127], np.int8), "int16"),
        (np.array([-1024, 3071], np.int32), "int16"),
        (np.array([-1024, 40000], np.int32), "float32"),
        (np.array([0, 2**40], np.uint64), "float32"),
        (np.array([-5.0, 300.0], np.float32), "int16"),
        (np.array([-5.5, 300.0], np.float64), "float32"),
    ],
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_every_type_keeps_its_values(tmp_path, stored, kept, ending, kind):
    values = np.resize(stored, (3, 4, 5))
    got = read_nifti(save(tmp_path / f"a{ending}", values, np.diag([-1.0, -1, 1, 1]), kind=kind))
    assert got.values.dtype == kept and got.unit == ""
    np.testing.assert_array_equal(got.values, values.transpose(2, 1, 0).astype(kept))


def test_big_endian_files_are_read(tmp_path):
    values = marked_voxels()
    image = nibabel.Nifti1Image(values, np.diag([-1.0, -1, 1, 1]), nibabel.Nifti1Header(endianness=">"))
    nibabel.save(image, tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == (348).to_bytes(4, "big")
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii").values, values.transpose(2, 1, 0))


def test_slope_and_intercept_give_physical_values(tmp_path):
    values = np.resize(np.arange(7, dtype=np.int16), (3, 4, 5))
    for slope, intercept, kept in ((1, -1024, "int16"), (0.5, 2, "float32"), (0, 7, "int16")):
        path = save(tmp_path / "a.nii", values, np.diag([-1.0, -1, 1, 1]))
        patched(path, 112, struct.pack("<ff", slope, intercept))
        want = nibabel.load(path).get_fdata().transpose(2, 1, 0)
        got = read_nifti(path)
        assert got.values.dtype == kept
        np.testing.assert_array_equal(got.values, want)


def test_the_sform_wins_over_the_qform_and_either_serves_alone(tmp_path):
    first, second = np.diag([2.0, 3, 4, 1]), np.diag([-2.0, 3, -4, 1])
    for sform, qform, want in ((1, 1, first), (1, 0, first), (0, 1, second)):

        def change(image, sform=sform, qform=qform):
            image.set_sform(first, sform)
            image.set_qform(second, qform)

        got = read_nifti(save(tmp_path / "a.nii", marked_voxels(), None, change))
        check_marks(got, RAS_TO_LPS @ want[:3, :3])


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_the_spacing_is_in_mm(tmp_path, unit, factor):
    path = save(tmp_path / "a.nii", marked_voxels(), np.diag([2.0, 3, 4, 1]), lambda i: i.header.set_xyzt_units(unit))
    np.testing.assert_allclose(read_nifti(path).spacing, np.array((4, 3, 2)) * factor)


def test_voxels_outside_the_field_of_view_become_the_lowest(tmp_path):
    values = np.full((3, 4, 5), 7.5, np.float32)
    values[0, 0] = (np.nan, np.inf, -np.inf, 1e35, -2.5)
    got = read_nifti(save(tmp_path / "a.nii", values)).values
    assert sorted(np.unique(got)) == [-2.5, 7.5] and (got == -2.5).sum() == 5


def test_a_fourth_axis_becomes_channels_only_where_asked(tmp_path, rng):
    values = rng.integers(0, 99, (3, 4, 5, 2)).astype(np.int16)
    path = save(tmp_path / "a.nii", values, np.diag([-1.0, -1, 1, 1]))
    with pytest.raises(UserError, match="set channels"):
        read_nifti(path)
    np.testing.assert_array_equal(read_nifti(path, channels=True).values, values.transpose(2, 1, 0, 3))
    path = save(tmp_path / "b.nii", values[..., None, :1], np.diag([-1.0, -1, 1, 1]))
    np.testing.assert_array_equal(read_nifti(path).values, values[..., 0].transpose(2, 1, 0))


def test_the_unit_is_what_the_caller_says(tmp_path):
    path = save(tmp_path / "a.nii", marked_voxels())
    assert READERS["nifti"](path, {"unit": "HU"}).unit == "HU"


def _long(path):
    return patched(path, 42, struct.pack("<hhh", 30000, 30000, 60))


def _gzip(path, change=lambda data: data):
    path.write_bytes(change(gzip.compress(path.read_bytes())))
    return path


DAMAGE = {
    "cut off": lambda p: p.write_bytes(p.read_bytes()[:-1]) and p,
    "within the header": lambda p: p.write_bytes(p.read_bytes()[:200]) and p,
    "empty": lambda p: p.write_bytes(b"") or p,
    "claims 100 GB": _long,
    "claims 100 GB in gzip": lambda p: _gzip(_long(p)),
    "gzip cut off": lambda p: _gzip(p, lambda d: d[:-20]),
    "gzip checksum": lambda p: _gzip(p, lambda d: d[:-8] + b"\0" * 4 + d[-4:]),
    "negative size": lambda p: patched(p, 42, struct.pack("<h", -5)),
    "two axes": lambda p: patched(p, 40, struct.pack("<h", 2)),
    "nine axes": lambda p: patched(p, 40, struct.pack("<h", 9)),
    "complex": lambda p: patched(p, 70, struct.pack("<h", 32)),
    "colour": lambda p: patched(p, 70, struct.pack("<h", 128)),
    "no such type": lambda p: patched(p, 70, struct.pack("<h", 77)),
    "voxels begin in the header": lambda p: patched(p, 108, struct.pack("<f", 8)),
    "voxels begin nowhere": lambda p: patched(p, 108, struct.pack("<f", float("nan"))),
    "voxels begin far away": lambda p: patched(p, 108, struct.pack("<f", 1e30)),
    "orientation": lambda p: patched(p, 280, struct.pack("<12f", *[float("nan")] * 12)),
    "pair": lambda p: patched(p, 344, b"ni1\0"),
    "another format": lambda p: patched(p, 344, b"abc\0"),
    "nothing finite": lambda p: save(p, np.full((3, 4, 5), np.nan, np.float32)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_with_the_file_named(tmp_path, name):
    path = DAMAGE[name](save(tmp_path / "a.nii", marked_voxels()))
    with pytest.raises(UserError) as error:
        read_nifti(path)
    assert "a.nii" in str(error.value) and "\n" not in str(error.value)


def test_a_bomb_stops_at_the_size_that_its_header_claims(tmp_path):
    path = save(tmp_path / "a.nii", marked_voxels(), np.diag([-1.0, -1, 1, 1]))
    path.write_bytes(gzip.compress(path.read_bytes() + bytes(50_000_000), 1))
    np.testing.assert_array_equal(read_nifti(path).values, marked_voxels().transpose(2, 1, 0))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.nii does not exist"):
        read_nifti(tmp_path / "a.nii")
    with pytest.raises(UserError, match="cannot be read"):
        read_nifti(tmp_path)


def test_real_images_have_nibabels_voxels_and_spacing(test_data):
    """Hippocampi of MR, and body parts of CT and MR with their label maps."""
    files = sorted(test_data.glob("vol3d_*/**/*.nii.gz"))
    shapes = {}
    for path in files:
        image = nibabel.as_closest_canonical(nibabel.load(path))  # RAS
        want = np.asarray(image.dataobj)[::-1, ::-1].transpose(2, 1, 0)
        got = read_nifti(path)
        np.testing.assert_array_equal(got.values, want)
        np.testing.assert_allclose(got.spacing, image.header.get_zooms()[::-1], rtol=1e-6)
        shapes[path.name] = got.shape
    assert len(files) == 146 and shapes["ct_body_3mm.nii.gz"] == (112, 101, 122)


def test_real_ct_has_air_around_and_bone_within(test_data):
    got = read_nifti(test_data / "vol3d_ct_mr" / "ct_body_3mm.nii.gz", unit="HU")
    assert got.values.dtype == np.int16 and got.spacing == (3.0, 3.0, 3.0)
    assert np.median(got.values[:, :2]) < -900 and got.values.max() > 700
