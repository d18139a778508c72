"""Pictures of explanations show the map where it lies, and hide no pixel of what was not seen."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from medjax.evaluation.explain import drawing, drawing_series
from medjax.evaluation.explain.drawing import Drawn


def shown(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def reddish(pixels: np.ndarray) -> np.ndarray:
    return (pixels[..., 0] > pixels[..., 1] + 40) & (pixels[..., 0] > pixels[..., 2] + 40)


def bluish(pixels: np.ndarray) -> np.ndarray:
    return (pixels[..., 2] > pixels[..., 0] + 40) & (pixels[..., 2] > pixels[..., 1] + 20)


def halves(mask: np.ndarray) -> tuple[int, int]:
    return mask[:, : mask.shape[1] // 2].sum(), mask[:, mask.shape[1] // 2 :].sum()


def test_the_scale_is_even_about_zero_only_for_maps_that_speak_against():
    map_ = np.array([[-1.0, 0.5, np.nan]])
    signed, most = Drawn("", map_, True), Drawn("", np.abs(map_), False)
    assert (signed.scale.vmin, signed.scale.vmax) == (-1, 1) and (most.scale.vmin, most.scale.vmax) == (0, 1)
    np.testing.assert_allclose(signed.strength(map_), [[1, 0.5, 0]])
    assert Drawn("", np.full((2, 2), np.nan), True).scale.vmax == 1  # nothing to show, and nothing breaks
    assert Drawn("", np.zeros((2, 2)), False).scale.vmax == 1


def test_one_pixel_does_not_hide_the_rest():
    map_ = np.full((64, 64), 0.1)
    map_[0, 0] = 50.0
    assert Drawn("", map_, False).scale.vmax < 1


def test_what_speaks_for_is_red_where_it_lies_and_what_was_not_seen_is_uncovered():
    pixels = np.full((40, 40), 128, np.uint8)
    map_ = np.full((40, 40), np.nan)
    map_[:20, :20], map_[:20, 20:] = 1.0, -1.0
    found = shown(drawing.picture(pixels, [Drawn("map", map_, True)]))
    right = found[: int(0.72 * len(found)), found.shape[1] // 2 :]  # the map, without its scale below
    for mask, at in ((reddish(right), 0), (bluish(right), 1)):
        counts = halves(mask)
        assert counts[at] > 1000 and counts[1 - at] < 0.02 * counts[at]
        rows, columns = (np.flatnonzero(mask.any(axis=k)) for k in (1, 0))
        assert abs(np.ptp(rows) - np.ptp(columns)) < 0.1 * np.ptp(columns)  # a quarter: below, nothing was seen


@pytest.mark.parametrize("count", [1, 5])
def test_pictures_of_any_shape_are_drawn_with_their_boxes(count):
    maps = [Drawn(f"map {i}", np.linspace(0, 1, 600).reshape(20, 30), False) for i in range(count)]
    found = shown(drawing.picture(np.zeros((20, 30, 3), np.uint8), maps, np.array([[0.2, 0.2, 0.5, 0.5]])))
    cyan = (found[..., 0] < 60) & (found[..., 1] > 180) & (found[..., 2] > 200)
    assert cyan.sum() > 200 * (1 + count)


def test_slices_pass_through_the_voxel_that_speaks_most_with_the_head_above():
    map_ = np.full((10, 16, 16), -0.1)
    map_[8, 4, 12] = 1.0  # near the head
    found = shown(drawing.slices(np.zeros((10, 16, 16), np.uint8), [Drawn("map", map_, True)], (2.0, 1.0, 1.0)))
    for third in (1, 2):  # coronal and sagittal
        width = int(found.shape[1] * 0.29)
        rows = np.flatnonzero(reddish(found[:, third * width : (third + 1) * width]).any(axis=1))
        assert rows.size and rows.mean() < len(found) / 2


def test_an_ecg_is_red_where_and_in_the_leads_that_it_is_about():
    signal = np.zeros((3, 400), np.float32)
    signal[2] = np.nan  # not recorded
    map_ = np.full((3, 400), -1e-6)
    map_[0, 200:] = 1.0
    found = shown(drawing_series.ecg(signal, ("I", "II", "V1"), 100, Drawn("map", map_, True)))
    red = reddish(found) & (found[..., 1] < 60)
    rows, columns = np.nonzero(red[:, : int(0.9 * red.shape[1])])
    assert rows.max() - rows.min() < 8  # one line of the two that are drawn
    assert columns.min() > 0.45 * found.shape[1]


def words_of(values: Sequence[float], signed: bool) -> np.ndarray:
    text, spans = "no fluid, no air", [(0, 0), (0, 2), (3, 8), (8, 9), (10, 12), (13, 16), (0, 0)]
    return shown(drawing_series.words(text, spans, [Drawn("map", np.array(values, np.float32), signed)]))


def test_words_are_marked_where_they_stand():
    found = words_of([np.nan, -1, 1, 0, 0, 0, np.nan, np.nan], True)
    letter = 9 * 0.602 * 120 / 72  # of 9 points, at 120 pixels an inch
    black = np.flatnonzero((found < 90).all(axis=2).any(axis=0))[0] / letter  # the first letter's left edge
    red, blue = (np.flatnonzero(f(found).any(axis=0)) / letter - black for f in (reddish, bluish))
    np.testing.assert_allclose([red.min(), red.max(), blue.min(), blue.max()], [3, 8, 0, 2], atol=0.4)


def test_long_texts_are_broken_between_words():
    text = " ".join(["effusion"] * 30)
    lines = drawing_series._lines(text)
    assert "".join(text[a:b] for a, b in lines) == text
    assert all(text[a:b].startswith("effusion") and b - a <= 97 for a, b in lines)


def test_values_that_were_not_measured_have_no_bar():
    values = np.array([9.8, np.nan], np.float32)
    drawn = Drawn("map", np.array([0.4, 0.4]), True)
    found = reddish(shown(drawing_series.bars(("haemoglobin", "crp"), values, ("g/dL", "mg/L"), [drawn])))
    rows = np.flatnonzero(found.any(axis=1))
    assert rows.max() < found.shape[0] / 2
