"""Palette colour of DICOM to RGB (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6, segmented tables C.7.9.2)."""

from typing import Any

import numpy as np

from medjax.data.readers.dicom_file import element, numbers
from medjax.errors import UserError

_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2


def to_rgb(dataset: Any, stored: np.ndarray) -> np.ndarray:
    """uint8[H, W, 3]: the palette's colours of stored values [H, W]; of 16-bit entries the upper 8 bits are kept.

    Raises:
      UserError: a table is missing, damaged, or longer than 65536 entries.
    """
    return np.stack([_channel(dataset, colour, stored) for colour in ("Red", "Green", "Blue")], axis=-1)


def _channel(dataset: Any, colour: str, stored: np.ndarray) -> np.ndarray:
    length, first, bits = (
        int(x) for x in numbers(dataset, f"{colour}PaletteColorLookupTableDescriptor", 3) or (0, 0, 0)
    )
    length = length or 65536
    if bits not in (8, 16) or not 0 < length <= 65536:
        raise UserError(f"the descriptor of its {colour.lower()} palette is missing or damaged; convert it to RGB")
    order = "<" if dataset.original_encoding[1] else ">"
    data = element(dataset, f"{colour}PaletteColorLookupTableData")
    if data is None:
        segments = _words(element(dataset, f"Segmented{colour}PaletteColorLookupTableData"), bits, order)
        table = _expand(segments.tolist(), bits, length)
    else:
        # Entries of 8 bits may stand in words of 16 (PS3.3 C.7.6.3.1.6).
        wide = isinstance(data, bytes) and len(data) >= 2 * length
        table = _words(data, 16 if wide else 8, order)
    if len(table) < length:
        raise UserError(f"its {colour.lower()} palette has {len(table)} entries, not {length}; convert it to RGB")
    index = (stored.astype(np.int64) - first).clip(0, length - 1)
    return (table[:length] >> (bits - 8)).astype(np.uint8)[index]


def _words(data: Any, bits: int, order: str) -> np.ndarray:
    if not isinstance(data, bytes):
        raise UserError("its palette is missing; convert it to RGB")
    size = bits // 8
    return np.frombuffer(data[: len(data) // size * size], f"{order}u{size}")


def _expand(words: list[int], bits: int, length: int) -> np.ndarray:
    """uint16[K]: the entries of a segmented table, of which no more than needed are made."""
    out: list[int] = []
    at = 0
    while at + 1 < len(words) and len(out) < length:
        if words[at] != _INDIRECT:
            at = _segment(words, at, out)
            continue
        # The place of the segments to repeat is given in bytes, 32 bits, the lower half first.
        offset = words[at + 2 : at + 2 + 32 // bits]
        source = sum(word << (bits * i) for i, word in enumerate(offset)) // (bits // 8)
        for _ in range(words[at + 1]):
            if len(out) >= length:
                break
            source = _segment(words, source, out)
        at += 2 + 32 // bits
    return np.array(out[:length], np.uint16)


def _segment(words: list[int], at: int, out: list[int]) -> int:
    """Appends the entries of a discrete or linear segment; returns where the next one begins."""
    if at + 1 >= len(words) or words[at] not in (_DISCRETE, _LINEAR):
        raise UserError("a segment of its palette is damaged; convert it to RGB")
    kind, count = words[at], words[at + 1]
    if kind == _DISCRETE:
        out += words[at + 2 : at + 2 + count]
        return at + 2 + count
    if at + 2 >= len(words) or not out:
        raise UserError("a segment of its palette is damaged; convert it to RGB")
    start, end = out[-1], words[at + 2]
    out += [round(start + (end - start) * i / count) for i in range(1, count + 1)]
    return at + 3
