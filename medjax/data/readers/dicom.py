"""One DICOM image to a presentation: the picture as it is meant to be seen, as PNG without metadata."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.readers.dicom_file import guarded, items, load, whole
from medjax.data.readers.dicom_palette import to_rgb
from medjax.data.readers.dicom_pixels import Layout, decode, layout
from medjax.data.readers.dicom_window import Window, check_window, presentation_table
from medjax.data.readers.image import encode_png
from medjax.errors import UserError

_REGIONS = "regions"


def read_dicom(
    path: str | Path,
    window: Window = "file",
    frame: int | None = None,
    mask: str | Sequence[Sequence[int]] = (),
) -> np.ndarray:
    """uint8[n]: a PNG, 16-bit gray [rows, columns] or 8-bit RGB [rows, columns, 3].

    Gray: the modality LUT or rescale, then the window, over 0..65535 and clipped there; MONOCHROME1 is inverted, so
    that 0 is black in every picture. Colour (RGB, YBR, palette): 8 bits, of deeper ones the upper 8 that are stored;
    no window applies, ICC profiles change nothing. Overlay planes are not drawn. Pixels that are not square stay as
    they are.

    window: "file" (VOI LUT or first window in the header, else "full"), "full" (least to greatest value), a CT window
    ("lung", "bone", ...; see `dicom_window.CT_WINDOWS`) or (centre, width) after the modality LUT, in HU for CT.
    frame: of a multi-frame file, from 0; such a file without it is refused.
    mask: what is made black because text may be burned in: "regions" keeps only the ultrasound regions that the file
    declares, boxes (top, left, bottom, right) in pixels, ends excluded, are blanked.

    Raises:
      UserError: the file is missing, torn, no image, or needs a decoder that is not installed; an unknown option.
    """
    path = Path(path)
    check_window(window)
    with guarded(path):
        dataset = load(path)
        header = layout(dataset)
        index = _frame(frame, header.frames)
        pixels = next(decode(dataset, header, [index]))
        shown = _shown(dataset, header, index, pixels, window)
        return encode_png(np.ascontiguousarray(_masked(dataset, shown, mask)))


def count_frames(path: str | Path) -> int:
    """How many frames an image file claims to have; `read_dicom` says whether it has them.

    Raises:
      UserError: the file is missing, torn, or no image.
    """
    with guarded(Path(path)):
        return layout(load(Path(path), pixels=False)).frames


def _frame(frame: int | None, frames: int) -> int:
    if frame is None and frames == 1:
        return 0
    if frame is None or not 0 <= frame < frames:
        raise UserError(
            f"it has {frames} frames; choose one with the reader option frame=0..{frames - 1}, or read them as a "
            "volume with the reader dicom_series"
        )
    return frame


def _shown(dataset: Any, header: Layout, index: int, pixels: np.ndarray, window: Window) -> np.ndarray:
    """uint16[H, W] or uint8[H, W, 3]."""
    if header.photometric == "PALETTE COLOR":
        return to_rgb(dataset, pixels)
    if header.samples == 3:
        return pixels if header.stored <= 8 else (pixels >> (header.stored - 8)).astype(np.uint8)
    table = presentation_table(dataset, header, index, pixels, window)
    return table[pixels.astype(np.int32) - header.range[0]]


def _masked(dataset: Any, shown: np.ndarray, mask: str | Sequence[Sequence[int]]) -> np.ndarray:
    if isinstance(mask, str):
        if mask != _REGIONS:
            raise UserError(f"the option mask is {_REGIONS!r} or a list of boxes (top, left, bottom, right)")
        keep = np.zeros(shown.shape[:2], bool)
        for top, left, bottom, right in _regions(dataset):
            keep[top:bottom, left:right] = True
        return np.where(keep.reshape(keep.shape + (1,) * (shown.ndim - 2)), shown, 0).astype(shown.dtype)
    out = shown.copy()
    for box in mask:
        if len(box) != 4 or min(box) < 0 or box[0] >= box[2] or box[1] >= box[3]:
            raise UserError(f"a box of the option mask is (top, left, bottom, right) in pixels, got {tuple(box)}")
        top, left, bottom, right = box
        out[top:bottom, left:right] = 0
    return out


def _regions(dataset: Any) -> list[tuple[int, int, int, int]]:
    """(top, left, bottom, right) of the ultrasound regions (PS3.3 C.8.5.5), whose ends the file includes."""
    names = ("RegionLocationMinY0", "RegionLocationMinX0", "RegionLocationMaxY1", "RegionLocationMaxX1")
    found = [tuple(whole(x, n, 0, 2**31) for n in names) for x in items(dataset, "SequenceOfUltrasoundRegions")]
    if not found:
        raise UserError("it declares no ultrasound regions, so mask='regions' would leave nothing; give boxes")
    return [(top, left, bottom + 1, right + 1) for top, left, bottom, right in found]
