"""What a study looks like in a report: its picture, ECG, text or lab values."""

import html
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medjax.data import Dataset
from medjax.data.readers.image import decode as decode_image
from medjax.data.records import decode_text
from medjax.data.volumes import PERCENTILES
from medjax.evaluation.page import image_tag
from medjax.evaluation.plots import ecg_trace

_PIXELS = 150


@dataclass(frozen=True)
class Preview:
    """png: a picture, with `text` for those who cannot see it; without one, `text` is what there is to show, or if
    `withheld` why there is nothing.
    """

    text: str
    png: bytes = b""
    withheld: bool = False


def preview(dataset: Dataset, split: str, row: int, modality: str) -> Preview:
    """The first item of a modality; withheld where the data set is sensitive or the item absent."""
    if dataset.manifest.sensitive:
        return Preview("not shown: the data set is marked sensitive", withheld=True)
    items = next(dataset.raw_items(split, [row]))[modality]
    if not items:
        return Preview("absent", withheld=True)
    schema = dataset.manifest.modality(modality)
    return {"image": _image, "ecg": _ecg, "text": _text, "labs": _labs, "volume": _volume}[schema.kind](
        items[0], schema
    )


def thumbnail(dataset: Dataset, split: str, row: int, modality: str) -> str:
    """HTML of the same."""
    found = preview(dataset, split, row, modality)
    if found.png:
        return image_tag(found.png, found.text)
    return f'<span class="small">{found.text}</span>' if found.withheld else html.escape(found.text)


def _image(raw: np.ndarray, schema) -> Preview:
    picture = decode_image(raw)
    out = io.BytesIO()
    picture.resize((_PIXELS, round(_PIXELS * picture.height / picture.width))).save(out, "PNG")
    return Preview("image", out.getvalue())


def _volume(volume, schema) -> Preview:
    """The middle slice, from the 0.5th to the 99.5th percentile of the volume."""
    middle = volume.shape[0] // 2
    pixels = volume.crop((middle, 0, 0), (1, *volume.shape[1:3]))[0].reshape(*volume.shape[1:3], -1)[..., 0]
    low, high = (volume.statistics.percentiles[0, PERCENTILES.index(p)] for p in (0.5, 99.5))
    gray = np.interp(pixels, (low, max(high, low + 1e-6)), (0, 255)).astype(np.uint8)
    aspect = gray.shape[0] * volume.spacing[1] / (gray.shape[1] * volume.spacing[2])
    out = io.BytesIO()
    Image.fromarray(gray).resize((_PIXELS, max(1, round(_PIXELS * aspect)))).save(out, "PNG")
    return Preview("middle slice", out.getvalue())


def _ecg(raw: np.ndarray, schema) -> Preview:
    return Preview("ECG", ecg_trace(raw, schema.names, schema.rate))


def _text(raw: np.ndarray, schema) -> Preview:
    text = decode_text(raw)
    return Preview(text if len(text) <= 320 else text[:317] + "...")


def _labs(raw: np.ndarray, schema) -> Preview:
    known = [f"{n} {v:.4g}" for n, v in zip(schema.names, raw, strict=True) if not np.isnan(v)]
    return Preview(", ".join(known))
