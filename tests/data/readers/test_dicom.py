"""DICOM images of every coding and colour, against arrays that were written and against pydicom."""

import io
import struct
import warnings

import numpy as np
import pydicom
import pytest
from dicom_files import dataset, item, picture, write
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

from medjax.data.readers import reader
from medjax.data.readers.dicom import count_frames, read_dicom
from medjax.errors import UserError

JPEG, JPEG_2000, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"


def shown(tmp_path, pixels, options=None, **elements) -> np.ndarray:
    return picture(read_dicom(write(tmp_path / "a.dcm", pixels, **elements), **(options or {})))


@pytest.mark.parametrize(
    "options",
    [
        {"syntax": "1.2.840.10008.1.2"},
        {"syntax": "1.2.840.10008.1.2.2"},
        {"syntax": "1.2.840.10008.1.2.1.99"},
        {"compress": RLE},
        {"compress": JPEG_2000},
    ],
)
def test_every_lossless_transfer_syntax_gives_the_same_picture(tmp_path, rng, options):
    pixels = rng.integers(-2000, 2000, (40, 35)).astype(np.int16)
    assert (shown(tmp_path, pixels, BitsStored=13, **options) == shown(tmp_path, pixels)).all()


def test_baseline_jpeg_shows_what_pillow_decodes(tmp_path, rng):
    smooth = np.add.outer(np.arange(40), np.arange(24)).astype(np.uint8) * 3
    for pixels, photometric in (
        (smooth, "MONOCHROME2"),
        (np.stack([smooth, smooth.T[:24].T, 200 - smooth], -1), "YBR_FULL_422"),
    ):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=95)
        data = dataset(pixels, PhotometricInterpretation=photometric)
        data.PixelData, data.file_meta.TransferSyntaxUID = encapsulate([stream.getvalue()]), pydicom.uid.UID(JPEG)
        data["PixelData"].is_undefined_length = True
        data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        expected = np.asarray(Image.open(stream))
        got = picture(read_dicom(tmp_path / "a.dcm", window="full" if pixels.ndim == 2 else "file"))
        if pixels.ndim == 2:
            expected = (expected.astype(float) - expected.min()) / np.ptp(expected.astype(float)) * 65535
        np.testing.assert_allclose(got, expected, atol=3 if pixels.ndim == 3 else 0.51)


def test_colour_comes_out_as_rgb(tmp_path, rng):
    rgb = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    assert (shown(tmp_path, rgb) == rgb).all()
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1)).reshape(6, 8, 3)
    assert (shown(tmp_path, planes, PlanarConfiguration=1) == rgb).all()
    assert (shown(tmp_path, rgb.astype(np.uint16) << 4, BitsStored=12) == rgb).all()
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)  # PS3.3 C.7.6.3.1.2
    ybr = np.stack(
        [
            0.299 * r + 0.587 * g + 0.114 * b,
            0.5 * b - 0.1687 * r - 0.3313 * g + 128,
            0.5 * r - 0.4187 * g - 0.0813 * b + 128,
        ],
        -1,
    )
    got = shown(tmp_path, ybr.round().clip(0, 255).astype(np.uint8), PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(got.astype(int), rgb, atol=2)  # Y, Cb and Cr were rounded


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_plain_and_segmented_are_those_of_pydicom(tmp_path, rng, bits):
    pixels = rng.integers(0, 256, (12, 12), dtype=np.uint8)
    word = "<u1" if bits == 8 else "<u2"
    top = 2**bits - 1
    segments = [[0, 2, 5, top, 1, 100, top // 3, 0, 1, 7, 1, 137, top], [0, 1, 0, 1, 239, top], [0, 1, top, 1, 239, 0]]
    data = dataset(pixels, PhotometricInterpretation="PALETTE COLOR")
    plain = rng.integers(0, top + 1, (3, 240)).astype(word)
    for segmented in (False, True):
        for colour, values, table in zip(("Red", "Green", "Blue"), segments, plain, strict=True):
            setattr(data, f"{colour}PaletteColorLookupTableDescriptor", [240, 10, bits])
            data[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
            name = f"{colour}PaletteColorLookupTableData"
            if segmented:
                delattr(data, name)
                setattr(data, f"Segmented{name}", np.array(values, word).tobytes())
            else:
                setattr(data, name, table.tobytes())
        data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        expected = apply_color_lut(pixels.astype(np.int32), data) >> (bits - 8)
        assert (picture(read_dicom(tmp_path / "a.dcm")) == expected).all()


@pytest.mark.parametrize(
    "name",
    [
        "693_J2KI.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "JPEG2000.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_padded.dcm",
        "examples_overlay.dcm",
        "image_dfl.dcm",
        "dicomdirtests/77654033/CR1/6154",
    ],
)
def test_gray_files_look_as_pydicom_windows_them(name):
    path = get_testdata_file(name, download=False)
    data = pydicom.dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one is padded
        values = apply_voi_lut(apply_modality_lut(data.pixel_array, data), data).astype(float)
    if "WindowWidth" in data:
        bits, signed = data.BitsStored, data.PixelRepresentation
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        low, high = (
            x * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0)) for x in (low, high)
        )
    else:
        low, high = values.min(), values.max()
    expected = (values - low) / (high - low) * 65535
    expected = 65535 - expected if data.PhotometricInterpretation == "MONOCHROME1" else expected
    np.testing.assert_allclose(picture(read_dicom(path)), expected, atol=0.51)


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_rle.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "GDCMJ2K_TextGBR.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_dcmtk_+eb+cr.dcm",
        "SC_rgb_small_odd_big_endian.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "ExplVR_BigEnd.dcm",
    ],
)
def test_colour_files_look_as_pydicom_decodes_them(name):
    path = get_testdata_file(name, download=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some headers contradict their streams
        expected = pydicom.dcmread(path).pixel_array
    assert (picture(read_dicom(path)) == expected).all()


def test_a_frame_is_chosen_by_its_number(tmp_path, rng):
    frames = rng.integers(0, 1000, (3, 5, 4)).astype(np.uint16)
    for compress in ("", RLE):
        path = write(tmp_path / "a.dcm", frames, frames=3, compress=compress)
        assert count_frames(path) == 3
        for i in range(3):
            low, high = int(frames[i].min()), int(frames[i].max())
            got = picture(reader("dicom")(path, {"frame": i}))
            np.testing.assert_allclose(got, (frames[i] - low) / (high - low) * 65535, atol=0.51)
        for wrong in (None, 3, -1):
            with pytest.raises(UserError, match=r"3 frames; choose one with the reader option frame=0\.\.2"):
                read_dicom(path, frame=wrong)


def test_frames_of_an_enhanced_file_have_their_own_scale_and_window(tmp_path, rng):
    frames = rng.integers(0, 1000, (2, 5, 4)).astype(np.uint16)
    groups = [
        item(
            PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept="5")],
            FrameVOILUTSequence=[item(WindowCenter="900", WindowWidth="1001")],
        )
        for slope in ("1", "2")
    ]
    path = write(tmp_path / "a.dcm", frames, frames=2, PerFrameFunctionalGroupsSequence=groups, WindowCenter="1")
    for i in range(2):
        expected = ((frames[i] * (i + 1.0) + 5 - 899.5) / 1000 + 0.5).clip(0, 1) * 65535
        np.testing.assert_allclose(picture(read_dicom(path, frame=i)), expected, atol=0.51)


def test_burned_in_text_is_blanked_by_boxes_or_outside_ultrasound_regions(tmp_path):
    rgb = np.full((10, 12, 3), 200, np.uint8)
    region = item(RegionLocationMinX0=2, RegionLocationMinY0=3, RegionLocationMaxX1=7, RegionLocationMaxY1=8)
    path = write(tmp_path / "a.dcm", rgb, SequenceOfUltrasoundRegions=[region])
    inside = np.zeros((10, 12), bool)
    inside[3:9, 2:8] = True
    assert ((picture(read_dicom(path, mask="regions")) == 200).all(axis=-1) == inside).all()
    assert ((picture(read_dicom(path, mask=[(3, 2, 9, 8)])) == 0).all(axis=-1) == inside).all()
    plain = write(tmp_path / "b.dcm", rgb)
    for wrong, words in (("regions", "declares no ultrasound"), ("text", "the option mask"), ([(1, 1, 1, 4)], "box")):
        with pytest.raises(UserError, match=words):
            read_dicom(plain, mask=wrong)


def test_a_picture_carries_nothing_but_pixels(tmp_path, rng):
    path = write(
        tmp_path / "a.dcm", rng.integers(0, 99, (4, 4)).astype(np.uint16), PatientName="Doe^Jane", PatientID="4711"
    )
    raw = read_dicom(path)
    chunks, at, data = [], 8, raw.tobytes()
    while at < len(data):
        chunks.append(data[at + 4 : at + 8])
        at += 12 + struct.unpack(">I", data[at : at + 4])[0]
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
