"""DICOM series: slices from any direction in any order make the same volume, and what is no volume is refused."""

import numpy as np
import pydicom
import pytest
from dicom_files import item, slice_elements, write

from medjax.data.readers import flags_of, reader
from medjax.data.readers.dicom_series import find_series, read_dicom_series
from medjax.errors import UserError

SHAPE, STEPS = (4, 5, 6), (3.0, 0.75, 0.5)  # D, H, W and mm along them
# Number of each voxel of a patient, on the canonical axes: superior, posterior, left.
PATIENT = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(SHAPE)


def patient_slices(across: str, down: str, normal: str):
    """(elements, pixels) of each slice of PATIENT, columns running to `across`, rows to `down`, given as x, -y, ..."""
    axis = {name: "zyx".index(name[-1]) for name in (across, down, normal)}
    turned = PATIENT.transpose(axis[normal], axis[down], axis[across])
    flips = tuple(slice(None, None, -1 if name[0] == "-" else 1) for name in (normal, down, across))
    turned = turned[flips]

    def unit(name: str) -> np.ndarray:
        return np.eye(3)["xyz".index(name[-1])] * (-1 if name[0] == "-" else 1)

    # The corner from which the three directions lead into the volume.
    corner = np.zeros(3)
    for name in (across, down, normal):
        if name[0] == "-":
            corner["xyz".index(name[-1])] = (SHAPE[axis[name]] - 1) * STEPS[axis[name]]
    for i, pixels in enumerate(turned):
        position = corner + i * STEPS[axis[normal]] * unit(normal)
        yield (
            {
                "ImagePositionPatient": [f"{x:g}" for x in position],
                "ImageOrientationPatient": [f"{x:g}" for x in (*unit(across), *unit(down))],
                "PixelSpacing": [f"{STEPS[axis[down]]:g}", f"{STEPS[axis[across]]:g}"],
                "SliceThickness": "1",
            },
            np.ascontiguousarray(pixels),
        )


@pytest.mark.parametrize(
    "axes", ["x y z", "x y -z", "-x y z", "x -y z", "x -z y", "-x -z -y", "y -z x", "-y -z -x", "y x z"]
)
def test_every_direction_of_slicing_gives_the_same_volume(tmp_path, rng, axes):
    slices = list(patient_slices(*axes.split()))
    for name, i in enumerate(rng.permutation(len(slices))):
        elements, pixels = slices[i]
        write(tmp_path / f"{name}.dcm", pixels, Modality="MR", InstanceNumber=str(name), **elements)
    volume = reader("dicom_series")(tmp_path, {})
    assert volume.values.dtype == np.uint16 and (volume.values == PATIENT).all()
    np.testing.assert_allclose(volume.spacing, STEPS)
    assert volume.unit == ""


def _series(folder, heights, value=lambda i: i, **elements):
    folder.mkdir(exist_ok=True)
    for i, height in enumerate(heights):
        pixels = np.full((3, 4), value(i), np.uint16)
        write(folder / f"{i:03d}.dcm", pixels, **{**slice_elements(height), **elements})
    return folder


def test_ct_is_in_hounsfield_units_and_others_keep_or_scale_their_values(tmp_path):
    def read(name, **elements):
        return read_dicom_series(_series(tmp_path / name, [0, 3, 6], lambda i: 100 * i, **elements))

    ct = read("ct", RescaleSlope="1", RescaleIntercept="-1024", RescaleType="HU")
    assert ct.unit == "HU" and ct.values.dtype == np.int16
    assert ct.values[:, 0, 0].tolist() == [-1024, -924, -824] and ct.spacing == (3.0, 0.5, 0.75)
    half = read("half", RescaleSlope="0.5", RescaleIntercept="-1000")
    assert half.unit == "HU" and half.values.dtype == np.float32 and half.values[2, 0, 0] == -900
    assert (
        read("unscaled").unit == ""
        and read("units", RescaleSlope="1", RescaleIntercept="0", RescaleType="US").unit == ""
    )
    mr = read("mr", Modality="MR")
    assert mr.unit == "" and mr.values.dtype == np.uint16
    for i, slope in enumerate(("1", "2", "4")):  # PET has a slope of its own in each slice
        path = tmp_path / "mr" / f"{i:03d}.dcm"
        data = pydicom.dcmread(path)
        data.Modality, data.RescaleSlope, data.RescaleIntercept = "PT", slope, "0"
        data.save_as(path)
    pet = read_dicom_series(tmp_path / "mr")
    assert pet.values.dtype == np.float32 and pet.values[:, 0, 0].tolist() == [0, 200, 800]
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for i, value in enumerate((np.int16(-1), np.uint16(40000))):  # some scanners write signed slices where they must
        write(mixed / f"{i}.dcm", np.full((3, 4), value), **slice_elements(3 * i, Modality="MR"))
    assert read_dicom_series(mixed).values[:, 0, 0].tolist() == [-1, 40000]
    deep = _series(tmp_path / "deep", [0, 3], lambda i: 65535 * i, RescaleSlope="1", RescaleIntercept="-1024")
    assert read_dicom_series(deep).values[:, 0, 0].tolist() == [-1024, 32767]


@pytest.mark.parametrize(
    "heights, words",
    [
        ([0, 3, 6, 12, 15], "3 mm apart, but slices 2 and 3 6 mm, 1 missing"),
        ([0, 3, 3, 6], "1 of its 4 slices lie where another does"),
        ([0, 3, 6, 9.4], "3 mm apart, but slices 2 and 3 3.4 mm"),
    ],
)
def test_uneven_slices_are_refused(tmp_path, heights, words):
    with pytest.raises(UserError, match=words):
        read_dicom_series(_series(tmp_path / "a", heights))
    if "3.4" in words:
        assert read_dicom_series(tmp_path / "a", tolerance=0.2).shape == (4, 3, 4)


def test_gantry_tilt_and_shifted_slices_are_refused(tmp_path):
    folder = _series(tmp_path / "a", [0, 3, 6, 9])

    def move(path, mm):
        data = pydicom.dcmread(path)
        data.ImagePositionPatient[1] += mm
        data.save_as(path)

    for i, path in enumerate(sorted(folder.iterdir())):
        move(path, i * 3 * np.tan(np.radians(12)))
    with pytest.raises(UserError, match=r"sheared by 12\.0 degrees \(gantry tilt\)"):
        read_dicom_series(folder)
    shifted = _series(tmp_path / "b", [0, 3, 6, 9])
    move(shifted / "001.dcm", 4)
    with pytest.raises(UserError, match="shifted against each other"):
        read_dicom_series(shifted)


def test_localizers_reports_and_strangers_are_left_out_and_series_kept_apart(tmp_path, rng):
    folder = _series(tmp_path / "a", [0, 3, 6])
    write(folder / "scout.dcm", np.zeros((9, 9), np.uint16), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write(folder / "dose.dcm", np.zeros((9, 9, 3), np.uint8))
    (folder / "DICOMDIR").write_text("an index")
    (folder / "notes.txt").write_text("of the export")
    plain = read_dicom_series(folder)
    assert plain.values[:, 0, 0].tolist() == [0, 1, 2]
    for i, height in enumerate((0, 1)):
        pixels = np.full((3, 4), 9, np.uint16)
        write(folder / f"z{i}.dcm", pixels, **slice_elements(height, SeriesInstanceUID="1.2.3"))
    with pytest.raises(UserError, match=r"2 series \(of 3, 2 slices\).*files.*series='largest'"):
        read_dicom_series(folder)
    assert (read_dicom_series(folder, series="largest").values == plain.values).all()
    assert find_series(folder) == [["000.dcm", "001.dcm", "002.dcm"], ["z0.dcm", "z1.dcm"]]
    assert read_dicom_series(folder, files=["z0.dcm", "z1.dcm"]).spacing[0] == 1
    for i in range(2):  # water and fat of one series
        data = pydicom.dcmread(folder / f"z{i}.dcm")
        data.SeriesInstanceUID, data.ImageType = "1.2.4", ["DERIVED", "PRIMARY", "WATER" if i else "FAT"]
        data.save_as(folder / f"z{i}.dcm")
    assert len(find_series(folder)) == 3


def test_flags_are_those_of_the_slices(tmp_path):
    folder = _series(tmp_path / "a", [0, 3], BodyPartExamined="HEAD")
    (folder / "000.txt").write_text("of the export")
    write(folder / "0.dcm", np.zeros((9, 9), np.uint16), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], Modality="US")
    assert flags_of("dicom_series", folder) == ("face",)
    assert flags_of("dicom", folder / "0.dcm") == ("burned-in text",)


def test_what_is_no_series_is_refused_with_file_and_cause(tmp_path):
    folder = _series(tmp_path / "a", [0, 3, 6])
    outside = write(tmp_path / "outside.dcm", np.zeros((3, 4), np.uint16), **slice_elements(9))

    def refuse(words, path=folder, **options):
        with pytest.raises(UserError, match=words) as refused:
            read_dicom_series(path, **options)
        assert "\n" not in str(refused.value)

    refuse("lies outside the folder", files=["../outside.dcm"])
    (folder / "link.dcm").symlink_to(outside)
    refuse("lies outside the folder")
    (folder / "link.dcm").unlink()
    refuse("no such file", files=["nothing.dcm"])
    refuse("unknown series 'first'", series="first")
    refuse("no such folder", path=tmp_path / "nowhere")
    torn = folder / "001.dcm"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-10])
    refuse(r"001\.dcm: it is cut short")
    torn.write_bytes(b"")
    refuse(r"001\.dcm: it is no DICOM file")
    torn.write_bytes(whole)
    (tmp_path / "empty").mkdir()
    refuse("holds 0 files", path=tmp_path / "empty")
    colour = write(tmp_path / "colour.dcm", np.zeros((3, 4, 3), np.uint8), **slice_elements(0))
    refuse("in colour", path=colour)
    huge = write(tmp_path / "huge.dcm", np.zeros((3, 4), np.uint16), **slice_elements(0, Rows=16000, Columns=16000))
    refuse("cut short", path=huge)
    bent = write(
        tmp_path / "bent.dcm", np.zeros((3, 4), np.uint16), **slice_elements(0, ImageOrientationPatient=["1"] * 6)
    )
    refuse("perpendicular", path=bent)


def _enhanced(path, pixels, positions, slopes, **elements):
    """An enhanced multi-frame file: positions and slopes of each frame, the rest shared."""
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=["1", "0", "0", "0", "1", "0"])],
        PixelMeasuresSequence=[item(PixelSpacing=["0.5", "0.75"], SliceThickness="3")],
    )
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=["0", "0", str(z)])],
            PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept="-10", RescaleType="HU")],
        )
        for z, slope in zip(positions, slopes, strict=True)
    ]
    groups = {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": frames}
    return write(path, pixels, frames=len(pixels), **groups, **elements)


@pytest.mark.parametrize("compress", ["", "1.2.840.10008.1.2.5"])
def test_an_enhanced_file_is_a_volume_by_its_functional_groups(tmp_path, rng, compress):
    pixels = rng.integers(0, 500, (4, 3, 5)).astype(np.uint16)
    path = _enhanced(tmp_path / "a.dcm", pixels, [6, 0, 9, 3], ["1", "1", "1", "1"], compress=compress)
    volume = read_dicom_series(path)
    assert volume.unit == "HU" and volume.values.dtype == np.int16 and volume.spacing == (3.0, 0.5, 0.75)
    assert (volume.values == pixels[[1, 3, 0, 2]].astype(int) - 10).all()
    _enhanced(path, pixels, [6, 0, 9, 3], ["1", "2", "0.5", "1"], compress=compress)
    scaled = read_dicom_series(path)
    assert scaled.values.dtype == np.float32
    np.testing.assert_array_equal(scaled.values[[0, 3]], pixels[[1, 2]] * np.array([2, 0.5]).reshape(2, 1, 1) - 10)
    _enhanced(path, pixels, [6, 0, 9], ["1"] * 3)
    with pytest.raises(UserError, match="claims 4 frames and describes 3"):
        read_dicom_series(path)
    _enhanced(path, pixels, [6, 0, 9, 0], ["1"] * 4)
    with pytest.raises(UserError, match="lie where another does"):
        read_dicom_series(path)


def test_frames_without_positions_need_a_spacing(tmp_path, rng):
    pixels = rng.integers(0, 255, (3, 4, 5), dtype=np.uint8)
    path = write(tmp_path / "a.dcm", pixels, frames=3, Modality="US")
    with pytest.raises(UserError, match="no slices with a position"):
        read_dicom_series(path)
    volume = read_dicom_series(path, spacing=(1, 0.5, 0.5))
    assert (volume.values == pixels).all() and volume.spacing == (1.0, 0.5, 0.5)
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="several frames among other files"):
        read_dicom_series(write(tmp_path / "b" / "a.dcm", pixels, frames=3).parent)


def test_a_real_ct_series_is_what_pydicom_reads_by_hand(test_data):
    folder = test_data / "vol3d_ct_mr" / "ct_dicom_j2k"
    volume = read_dicom_series(folder)
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    slices.sort(key=lambda s: s.ImagePositionPatient[2])
    assert len(slices) == 20 and volume.unit == "HU" and volume.values.dtype == np.int16
    for got, data in list(zip(volume.values, slices, strict=True))[::5]:
        assert data.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
        assert (got == data.pixel_array.astype(np.int32) * int(data.RescaleSlope) + int(data.RescaleIntercept)).all()
    assert volume.spacing == (2.0, *slices[0].PixelSpacing)
    assert -1024 <= volume.values.min() < -900 and 1000 < volume.values.max() < 3000  # air and bone
