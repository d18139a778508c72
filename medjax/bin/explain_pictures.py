"""From a raw item and its maps to pictures, by the kind of its modality; for `medjax.bin.explain`."""

from collections.abc import Sequence

import numpy as np

from medjax.data.readers.image import decode as decode_image
from medjax.data.records import decode_text
from medjax.data.volumes import PERCENTILES
from medjax.evaluation.explain import drawing, drawing_series
from medjax.evaluation.explain.drawing import Drawn
from medjax.evaluation.explain.explainer import Item


def figures(transform, schema, item: Item, maps: Sequence[Drawn], boxes: Sequence) -> list[bytes]:
    """One PNG of an item under all maps; of an ECG one a map.

    transform, schema: of the modality. boxes: float32[k, 4] to draw on a picture.
    """
    raw = item.raw
    if transform.kind == "image":
        pixels = np.asarray(decode_image(raw, transform.config.channels)) if raw.ndim == 1 else _eight_bits(raw)
        return [drawing.picture(pixels, maps, boxes)]
    if transform.kind == "volume":
        return [drawing.slices(_gray(raw), maps, raw.spacing)]
    if transform.kind == "ecg":
        return [drawing_series.ecg(raw, schema.names, schema.rate, drawn) for drawn in maps]
    if transform.kind == "labs":
        return [drawing_series.bars(schema.names, raw, schema.units, maps)]
    text = decode_text(raw)
    return [drawing_series.words(text, spans(transform, text), maps)]


def spans(transform, text: str) -> list[tuple[int, int]]:
    """Where each of the tokens that the encoder reads stands in a text; (0, 0) for those that stand nowhere."""
    return transform.tokenizer.encode(text.replace("\x1e", " ")).offsets


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    return (pixels // 257).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def _gray(volume) -> np.ndarray:
    """uint8[D, H, W], from the 0.5th to the 99.5th percentile of its first channel."""
    values = volume.crop((0, 0, 0), volume.shape[:3]).reshape(*volume.shape[:3], -1)[..., 0]
    low, high = (volume.statistics.percentiles[0, PERCENTILES.index(p)] for p in (0.5, 99.5))
    return np.interp(values, (low, max(high, low + 1e-6)), (0, 255)).astype(np.uint8)
