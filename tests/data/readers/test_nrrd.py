"""NRRD files become volumes whose voxels, spacing and place in the patient are those of pynrrd."""

import gzip

import nrrd
import numpy as np
import pytest
from marked_volumes import ORIENTATIONS, SPACING, check_marks, marked_voxels

from medjax.data.readers import READERS, files_of
from medjax.data.readers.nrrd import read_nrrd
from medjax.errors import UserError

LPS = {"space": "left-posterior-superior", "space directions": np.eye(3)}


def save(path, values, **header):
    nrrd.write(
        str(path),
        values,
        {**LPS, **header},
        index_order="F",
        **({"detached_header": True} if path.suffix == ".nhdr" else {}),
    )
    return path


@pytest.mark.parametrize("directions", [d * SPACING for d in ORIENTATIONS])
def test_marks_keep_their_place_in_the_patient(tmp_path, directions):
    path = save(tmp_path / "a.nrrd", marked_voxels(), **{"space directions": directions.T})  # a row each axis
    check_marks(read_nrrd(path), directions)


@pytest.mark.parametrize(
    ("space", "to_lps"),
    [
        ("left-posterior-superior", (1, 1, 1)),
        ("LPS", (1, 1, 1)),
        ("right-anterior-superior", (-1, -1, 1)),
        ("RAS", (-1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
    ],
)
def test_every_space_leads_to_the_same_patient(tmp_path, space, to_lps):
    directions = np.diag(SPACING)
    path = save(tmp_path / "a.nrrd", marked_voxels(), space=space, **{"space directions": directions})
    check_marks(read_nrrd(path), np.diag(to_lps) @ directions)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize(
    ("dtype", "kept"), [("uint8", "uint8"), ("uint16", "uint16"), ("int32", "int16"), ("float64", "int16")]
)
def test_every_encoding_and_type_keeps_its_values(tmp_path, rng, encoding, endian, dtype, kept):
    values = rng.integers(0, 200, (3, 4, 5)).astype(
        np.dtype(dtype).newbyteorder(endian[0].replace("l", "<").replace("b", ">"))
    )
    got = read_nrrd(save(tmp_path / "a.nrrd", values, encoding=encoding, endian=endian))
    assert got.values.dtype == kept
    np.testing.assert_array_equal(got.values, values.transpose(2, 1, 0))


def test_without_directions_the_spacings_lie_along_lps(tmp_path, rng):
    values = rng.integers(0, 200, (3, 4, 5)).astype(np.uint8)
    nrrd.write(str(tmp_path / "a.nrrd"), values, {"spacings": [0.5, 0.6, 2.0]})
    got = read_nrrd(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(got.values, values.transpose(2, 1, 0))
    np.testing.assert_allclose(got.spacing, (2.0, 0.6, 0.5))


@pytest.mark.parametrize("axis", [0, 3])
def test_an_axis_beside_space_becomes_channels_only_where_asked(tmp_path, rng, axis):
    values = rng.integers(0, 200, (3, 4, 5, 2)).astype(np.uint8)
    directions = np.insert(np.eye(3), axis, np.full(3, np.nan), axis=0)
    path = save(tmp_path / "a.nrrd", np.moveaxis(values, 3, axis), **{"space directions": directions})
    with pytest.raises(UserError, match="set channels"):
        read_nrrd(path)
    np.testing.assert_array_equal(READERS["nrrd"](path, {"channels": True}).values, values.transpose(2, 1, 0, 3))


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_a_detached_file_beside_the_header_is_read(tmp_path, encoding):
    path = save(tmp_path / "a.nhdr", marked_voxels(), encoding=encoding)
    assert b"data file" in path.read_bytes() and len(list(tmp_path.iterdir())) == 2
    check_marks(read_nrrd(path), np.eye(3))
    assert sorted(files_of(path)) == sorted(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["../secret.raw", "/etc/hostname", "link.raw", "LIST", "%03d.raw 0 3 1", ".", "none.raw"]
)
def test_data_elsewhere_is_refused(tmp_path, name):
    folder = tmp_path / "source"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(marked_voxels().tobytes(order="F"))
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 6 7\nencoding: raw\nendian: little\nspacings: 1 1 1\n"
    (folder / "a.nhdr").write_text(f"{head}data file: {name}\n")
    with pytest.raises(UserError, match="in its folder"):
        read_nrrd(folder / "a.nhdr")
    (folder / "in.raw").write_bytes(marked_voxels().tobytes(order="F"))
    (folder / "a.nhdr").write_text(f"{head}data file: in.raw\n")
    check_marks(read_nrrd(folder / "a.nhdr"), np.eye(3))


def _replaced(old: bytes, new: bytes):
    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return change


DAMAGE = {
    "cut off": lambda d: d[:-1],
    "within the header": lambda d: d[:30],
    "empty": lambda d: b"",
    "another format": lambda d: b"GIF89a" + d,
    "claims 100 GB": _replaced(b"sizes: 5 6 7", b"sizes: 5000 6000 3500"),
    "claims more than integers hold": _replaced(b"sizes: 5 6 7", b"sizes: 4294967296 4294967296 4294967296"),
    "negative size": _replaced(b"sizes: 5 6 7", b"sizes: 5 -6 7"),
    "two axes": _replaced(b"sizes: 5 6 7", b"sizes: 30 7"),
    "no sizes": _replaced(b"sizes", b"seizures"),
    "no such type": _replaced(b"type: int16", b"type: complex"),
    "bytes without meaning": _replaced(b"type: int16", b"type: block"),
    "text": _replaced(b"encoding: raw", b"encoding: text"),
    "bzip2": _replaced(b"encoding: raw", b"encoding: bz2"),
    "no gzip": _replaced(b"encoding: raw", b"encoding: gzip"),
    "unknown space": _replaced(b"left-posterior-superior", b"scanner-xyz"),
    "damaged directions": _replaced(b"(1,0,0)", b"(1,0,x)"),
    "one plane": _replaced(b"(0,1,0)", b"(1,0,0)"),
    "skips lines": _replaced(b"encoding: raw", b"encoding: raw\nline skip: 1000000000"),
    "skips bytes": _replaced(b"encoding: raw", b"encoding: raw\nbyte skip: 1000000000"),
    "inches": _replaced(b"encoding: raw", b'encoding: raw\nspace units: "in" "in" "in"'),
    "endless header": lambda d: b"NRRD0004\n" + b"#\n" * 200_000,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_with_the_file_named(tmp_path, name):
    path = save(tmp_path / "a.nrrd", marked_voxels(), encoding="raw")
    path.write_bytes(DAMAGE[name](path.read_bytes()))
    with pytest.raises(UserError) as error:
        read_nrrd(path)
    assert "a.nrrd" in str(error.value) and "\n" not in str(error.value)


def test_a_bomb_stops_at_the_size_that_its_header_claims(tmp_path):
    path = save(tmp_path / "a.nrrd", marked_voxels(), encoding="raw")
    data = _replaced(b"encoding: raw", b"encoding: gzip")(path.read_bytes())
    head = data[: data.index(b"\n\n") + 2]
    path.write_bytes(head + gzip.compress(marked_voxels().tobytes(order="F") + bytes(50_000_000), 1))
    check_marks(read_nrrd(path), np.eye(3))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.nrrd does not exist"):
        read_nrrd(tmp_path / "a.nrrd")


def test_real_brains_have_pynrrds_voxels_and_spacing(test_data):
    for name in ("mr_brain2", "mr_brain2_label"):
        path = test_data / "vol3d_ct_mr" / f"{name}.nrrd"
        values, header = nrrd.read(str(path))
        np.testing.assert_allclose(np.diag(header["space directions"]), (0.78125, -0.78125, 6.5))
        got = read_nrrd(path)
        np.testing.assert_array_equal(got.values, values[:, ::-1].transpose(2, 1, 0))
        np.testing.assert_allclose(got.spacing, (6.5, 0.78125, 0.78125))
