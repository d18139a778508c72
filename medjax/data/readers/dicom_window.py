"""From stored values to a 16-bit presentation: modality LUT, then VOI LUT or window (DICOM PS3.3 C.11.1, C.11.2).

A picture has at most 65536 stored values, so each step is a table over all of them, exact in float64, and the picture
is looked up once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from medjax.data.readers.dicom_file import code, element, items, macro, number, numbers
from medjax.data.readers.dicom_pixels import Layout
from medjax.errors import UserError, suggest

# (centre, width) in HU as radiology departments set them; radiopaedia.org/articles/windowing-ct.
CT_WINDOWS = {
    "abdomen": (50.0, 400.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "liver": (30.0, 150.0),
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "stroke": (40.0, 40.0),
    "subdural": (75.0, 215.0),
}
Window = str | Sequence[float]
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def check_window(window: Window) -> None:
    """Raises UserError unless `window` is "file", "full", a name in `CT_WINDOWS` or (centre, width) with width >= 1."""
    if isinstance(window, str):
        if window not in ("file", "full", *CT_WINDOWS):
            known = suggest(window, ("file", "full", *CT_WINDOWS))
            raise UserError(f"unknown window {window!r}; {known}; or give (centre, width)")
    elif len(window) != 2 or not np.isfinite(window).all() or window[1] < 1:
        raise UserError(f"a window is (centre, width) with a width of at least 1, got {tuple(window)}")


def presentation_table(dataset: Any, layout: Layout, frame: int, pixels: np.ndarray, window: Window) -> np.ndarray:
    """uint16[K]: what each stored value from `layout.range[0]` to `layout.range[1]` becomes, black 0, white 65535.

    pixels: the stored values of the frame, for "full". MONOCHROME1 is inverted last. "file" takes the first VOI LUT
    of the file, else its first window with its function (LINEAR, LINEAR_EXACT, SIGMOID), else acts as "full"; a window
    of no width counts as none. "full" runs from the least to the greatest value of the frame that is not padding.

    Raises:
      UserError: a table or a value in the header is damaged, or a named CT window is asked of another modality.
    """
    low, high = layout.range
    values = modality(dataset, frame, np.arange(low, high + 1, dtype=np.float64))
    if window == "file":
        shown = _of_file(dataset, layout, frame, values)
    elif window == "full":
        shown = None
    elif isinstance(window, str):
        if code(dataset, "Modality") != "CT":
            raise UserError(
                f"the window {window!r} is in HU, and the image no CT; choose file, full or (centre, width)"
            )
        shown = linear(values, *CT_WINDOWS[window])
    else:
        shown = linear(values, *window)
    if shown is None:
        shown = _full(values, _used(dataset, layout, pixels))
    if layout.photometric == "MONOCHROME1":
        shown = 1 - shown
    return np.rint(shown * 65535).astype(np.uint16)


def rescale(dataset: Any, frame: int) -> tuple[float, float]:
    """(slope, intercept) of a frame; (1, 0) where the file has none.

    Raises:
      UserError: the slope is 0.
    """
    source = macro(dataset, "PixelValueTransformationSequence", frame)
    slope, intercept = number(source, "RescaleSlope", 1.0), number(source, "RescaleIntercept", 0.0)
    if not slope:
        raise UserError("its RescaleSlope is 0, which makes every pixel the same; correct it")
    return slope, intercept


def modality(dataset: Any, frame: int, stored: np.ndarray) -> np.ndarray:
    """float64 of the shape of `stored`: the modality LUT, else slope and intercept, of stored values."""
    if found := items(dataset, "ModalityLUTSequence"):
        table, first, _ = _lookup_table(dataset, found[0], signed=stored.min() < 0)
        return table[_index(stored, first, len(table))].astype(np.float64)
    slope, intercept = rescale(dataset, frame)
    return stored * slope + intercept


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """0..1: VOI LUT function LINEAR (PS3.3 C.11.2.1.2.1)."""
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return ((values - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1)


def _of_file(dataset: Any, layout: Layout, frame: int, values: np.ndarray) -> np.ndarray | None:
    source = macro(dataset, "FrameVOILUTSequence", frame)
    if found := items(source, "VOILUTSequence"):
        table, first, bits = _lookup_table(dataset, found[0], signed=values.min() < 0)
        return (table[_index(np.rint(values), first, len(table))] / (2.0**bits - 1)).clip(0, 1)
    centres, widths = numbers(source, "WindowCenter"), numbers(source, "WindowWidth")
    if not centres or not widths:
        return None
    centre, width, function = centres[0], widths[0], code(source, "VOILUTFunction") or "LINEAR"
    if function not in _FUNCTIONS:
        raise UserError(f"its VOI LUT function is not one of {', '.join(_FUNCTIONS)}; choose another window")
    if width < 1 if function == "LINEAR" else width <= 0:
        return None
    if function == "SIGMOID":  # PS3.3 C.11.2.1.3.1
        return 1 / (1 + np.exp((-4 * (values - centre) / width).clip(-700, 700)))
    if function == "LINEAR_EXACT":  # PS3.3 C.11.2.1.3.2
        return ((values - centre) / width + 0.5).clip(0, 1)
    return linear(values, centre, width)


def _full(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    low, high = values[used].min(), values[used].max()
    return ((values - low) / ((high - low) or 1.0)).clip(0, 1)


def _used(dataset: Any, layout: Layout, pixels: np.ndarray) -> np.ndarray:
    """bool[K]: the stored values that occur and are not padding; all that occur where everything is padding."""
    low, high = layout.range
    occurs = np.zeros(high - low + 1, bool)
    occurs[pixels.astype(np.int32) - low] = True
    padding = numbers(dataset, "PixelPaddingValue", 1)
    if not padding:
        return occurs
    limit = numbers(dataset, "PixelPaddingRangeLimit", 1) or padding
    stored = np.arange(low, high + 1)
    kept = occurs & ~((stored >= min(padding + limit)) & (stored <= max(padding + limit)))
    return kept if kept.any() else occurs


def _lookup_table(dataset: Any, item: Any, signed: bool) -> tuple[np.ndarray, int, int]:
    """(uint16[K], the value that its first entry is for, bits of an entry); descriptors as in PS3.3 C.11.1.1."""
    length, first, bits = (int(x) for x in numbers(item, "LUTDescriptor", 3) or (0, 0, 0))
    length = length or 65536
    first = first - 65536 if signed and first > 32767 else first  # the descriptor's VR is often wrong
    if not 1 <= bits <= 16 or not 0 < length <= 65536:
        raise UserError("the descriptor of its lookup table is damaged; choose window='full' or a (centre, width)")
    data = element(item, "LUTData")
    if isinstance(data, bytes):
        narrow = len(data) < 2 * length
        order = "<" if dataset.original_encoding[1] else ">"
        table = np.frombuffer(data[: len(data) // 2 * 2] if not narrow else data, "u1" if narrow else f"{order}u2")
    else:
        table = np.asarray([] if data is None else data).reshape(-1).astype(np.int64).astype(np.uint16)
    if len(table) < length:
        raise UserError(f"its lookup table has {len(table)} entries, not {length}; choose another window")
    return table[:length], first, bits


def _index(values: np.ndarray, first: int, length: int) -> np.ndarray:
    """Values before the first entry take the first, those beyond the last the last."""
    return (values - first).clip(0, length - 1).astype(np.intp)
