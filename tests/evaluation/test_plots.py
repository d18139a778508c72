"""Plots are PNG pictures that show what they are given."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from medjax.evaluation import plots
from medjax.evaluation.bootstrap import Interval

GOOD, UNKNOWN = Interval(0.8, 0.7, 0.9), Interval(0.5, float("nan"), float("nan"))
T = np.arange(1000) / 100
ECG = np.stack([np.sin(2 * np.pi * (1 + i) * T) for i in range(12)]).astype(np.float32)
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

# Each plot as a function of one number that it must show.
PLOTS = {
    "roc_curves": lambda x: plots.roc_curves([("a_b", np.array([0, x, 1]), np.array([0, 0.9, 1]), GOOD)] * 6),
    "intervals": lambda x: plots.intervals([("a", Interval(x, 0.0, 1.0)), ("b", UNKNOWN)], 0.5, "AUROC"),
    "similarity_matrix": lambda x: plots.similarity_matrix(np.array([[1.0, x], [0.0, 0.5]]), "image", "text"),
    "recall_bars": lambda x: plots.recall_bars(["a", "b"], [Interval(x, 0.0, 1.0), UNKNOWN], [0.1, 0.1], "recall"),
    "learning_curve": lambda x: plots.learning_curve([1, 2, 3], [3.0, 2.0 + x, 1.0], [(2, 2.5)]),
    "ecg_trace": lambda x: plots.ecg_trace(ECG * (0.5 + x), LEADS, 100.0),
}


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_png_that_shows_its_data(name):
    a, again, b = (PLOTS[name](x) for x in (0.2, 0.2, 0.6))
    assert a[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = picture(a)
    assert min(pixels.shape) > 80 and np.mean(pixels < 200) > 0.002
    np.testing.assert_array_equal(pixels, picture(again))
    other = picture(b)
    assert pixels.shape != other.shape or np.any(pixels != other)


def test_plots_leave_pyplot_to_the_caller():
    """A notebook's own figures must stay, and show themselves by its own backend."""
    code = "import medjax.evaluation.plots as p; import sys; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_leads_that_a_record_lacks_are_left_out():
    two = plots.ecg_trace(ECG[:2], ("x", "y"), 100.0)
    assert np.mean(picture(two) < 200) > 0.002
