"""Stored values of DICOM to the presentation, against the standard's formulas one value at a time."""

import numpy as np
import pytest
from dicom_files import dataset, item, picture, write

from medjax.data.readers.dicom import read_dicom
from medjax.errors import UserError

RLE = "1.2.840.10008.1.2.5"


def shown(tmp_path, pixels, options=None, **elements) -> np.ndarray:
    return picture(read_dicom(write(tmp_path / "a.dcm", pixels, **elements), **(options or {})))


def voi(x: float, centre: float, width: float, function: str) -> float:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, one value at a time, onto 0..1."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (x - centre) / width))
    if function == "LINEAR_EXACT":
        if x <= centre - width / 2:
            return 0.0
        return 1.0 if x > centre + width / 2 else (x - centre) / width + 0.5
    if x <= centre - 0.5 - (width - 1) / 2:
        return 0.0
    if x > centre - 0.5 + (width - 1) / 2:
        return 1.0
    return (x - (centre - 0.5)) / (width - 1) + 0.5


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("kind, bits", [("u1", 8), ("u2", 12), ("i2", 12), ("u2", 16), ("i2", 16)])
def test_gray_values_are_rescaled_and_windowed_by_the_formulas_of_the_standard(tmp_path, rng, kind, bits, function):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if kind[0] == "i" else (0, 2**bits)
    pixels = rng.integers(low, high, (9, 7)).astype(kind)
    centre, width = 0.5 * (low + high) / 2 - 20, (high - low) / 5
    extra = {"VOILUTFunction": function} if function else {}
    window = {"WindowCenter": [f"{centre:g}", "3"], "WindowWidth": [f"{width:g}", "9"], **extra}
    got = shown(tmp_path, pixels, BitsStored=bits, RescaleSlope="0.5", RescaleIntercept="-20", **window)
    centre, width = float(f"{centre:g}"), float(f"{width:g}")
    expected = [voi(0.5 * float(x) - 20, centre, width, function or "LINEAR") * 65535 for x in pixels.ravel()]
    assert got.dtype == np.uint16 and got.shape == (9, 7)
    np.testing.assert_allclose(got.ravel(), expected, atol=0.5 + 1e-6)  # rounded to whole steps
    assert np.mean((got > 0) & (got < 65535)) > 0
    inverse = shown(
        tmp_path,
        pixels,
        BitsStored=bits,
        RescaleSlope="0.5",
        RescaleIntercept="-20",
        PhotometricInterpretation="MONOCHROME1",
        **window,
    )
    assert (abs(inverse.astype(int) + got - 65535) <= 1).all()


def test_a_window_is_the_files_or_full_or_named_or_given(tmp_path):
    pixels = np.array([[-2000, -1000, 0, 40, 300, 1000]], np.int16)
    elements = {"WindowCenter": "40", "WindowWidth": "401"}
    at = {w: shown(tmp_path, pixels, {"window": w}, **elements)[0] for w in ("file", "full", "lung", (40, 401))}
    assert (at["file"] == at[40, 401]).all()
    assert at["file"][0] == at["file"][1] == 0 and at["file"][-1] == 65535
    assert at["full"][0] == 0 and at["full"][-1] == 65535 and at["full"][1] == round(65535 / 3)
    assert at["lung"][1] > 0 and at["lung"][4] == 65535  # -1350..150 HU
    padded = shown(tmp_path, pixels, {"window": "full"}, PixelPaddingValue=-2000)
    assert padded[0, 0] == padded[0, 1] == 0 and padded[0, 2] == round(65535 / 2)
    step = shown(tmp_path, pixels, {"window": (40, 1)})
    assert step[0].tolist() == [0, 0, 0, 65535, 65535, 65535]  # a window of one value is a threshold at 39.5
    for useless in ({}, {"WindowCenter": "0", "WindowWidth": "0"}):
        assert (shown(tmp_path, pixels, **useless) == at["full"][None]).all()
    with pytest.raises(UserError, match="is in HU"):
        shown(tmp_path, pixels, {"window": "lung"}, Modality="MR")
    for wrong in ("lungs", (40,), (40, 0.5), (40, float("nan"))):
        with pytest.raises(UserError, match="window"):
            shown(tmp_path, pixels, {"window": wrong})


@pytest.mark.parametrize("first, kind", [(0, "u2"), (100, "u2"), (-50, "i2")])
def test_lookup_tables_replace_rescale_and_window(tmp_path, rng, first, kind):
    modality = rng.integers(0, 4096, 300)
    display = rng.permutation(1024)
    pixels = np.arange(-60 if kind == "i2" else 0, 480, dtype=kind).reshape(-1, 12)
    descriptor = [300, first, 16]
    tables = {
        "ModalityLUTSequence": [item(LUTDescriptor=descriptor, LUTData=modality.astype("<u2").tobytes())],
        "VOILUTSequence": [item(LUTDescriptor=[1024, 1000, 10], LUTData=display.astype("<u2").tobytes())],
    }
    data = dataset(pixels, WindowCenter="5", WindowWidth="9", **tables)
    for sequence in (data.ModalityLUTSequence, data.VOILUTSequence):
        sequence[0]["LUTDescriptor"].VR = "SS" if first < 0 else "US"
        sequence[0]["LUTData"].VR = "OW"
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    expected = []
    for x in pixels.ravel().tolist():
        y = modality[min(max(x - first, 0), 299)]
        expected.append(display[min(max(y - 1000, 0), 1023)] / 1023 * 65535)
    np.testing.assert_allclose(picture(read_dicom(tmp_path / "a.dcm")).ravel(), expected, atol=0.5 + 1e-6)


def test_bits_above_the_highest_stored_one_do_not_show(tmp_path, rng):
    values = rng.integers(0, 4096, (8, 8)).astype(np.uint16)
    overlay = rng.integers(0, 16, (8, 8)).astype(np.uint16)
    plain = shown(tmp_path, values, BitsStored=12)
    assert (shown(tmp_path, values | overlay << 12, BitsStored=12) == plain).all()
    assert (shown(tmp_path, values << 4 | overlay, BitsStored=12, HighBit=15) == plain).all()
    assert (shown(tmp_path, values | overlay << 12, BitsStored=12, compress=RLE) == plain).all()
    signed = ((values.astype(np.int16) - 2048) & 4095).astype(np.int16)
    assert (shown(tmp_path, signed, BitsStored=12) == plain).all()
