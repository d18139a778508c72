"""What a study looks like in a report: its picture, ECG, text or lab values."""

import html
import io

import numpy as np
from PIL import Image

from medjax.data import Dataset
from medjax.data.readers.image import decode as decode_image
from medjax.data.records import decode_text
from medjax.data.volumes import PERCENTILES
from medjax.evaluation.page import image_tag
from medjax.evaluation.plots import ecg_trace

_PIXELS = 150


def thumbnail(dataset: Dataset, split: str, row: int, modality: str) -> str:
    """HTML of the first item of a modality; a placeholder where the data set is sensitive or the item absent."""
    if dataset.manifest.sensitive:
        return '<span class="small">not shown: the data set is marked sensitive</span>'
    items = next(dataset.raw_items(split, [row]))[modality]
    if not items:
        return '<span class="small">absent</span>'
    schema = dataset.manifest.modality(modality)
    return {"image": _image, "ecg": _ecg, "text": _text, "labs": _labs, "volume": _volume}[schema.kind](
        items[0], schema
    )


def _image(raw: np.ndarray, schema) -> str:
    picture = decode_image(raw)
    out = io.BytesIO()
    picture.resize((_PIXELS, round(_PIXELS * picture.height / picture.width))).save(out, "PNG")
    return image_tag(out.getvalue(), "image")


def _volume(volume, schema) -> str:
    """The middle slice, from the 0.5th to the 99.5th percentile of the volume."""
    middle = volume.shape[0] // 2
    pixels = volume.crop((middle, 0, 0), (1, *volume.shape[1:3]))[0].reshape(*volume.shape[1:3], -1)[..., 0]
    low, high = (volume.statistics.percentiles[0, PERCENTILES.index(p)] for p in (0.5, 99.5))
    gray = np.interp(pixels, (low, max(high, low + 1e-6)), (0, 255)).astype(np.uint8)
    aspect = gray.shape[0] * volume.spacing[1] / (gray.shape[1] * volume.spacing[2])
    out = io.BytesIO()
    Image.fromarray(gray).resize((_PIXELS, max(1, round(_PIXELS * aspect)))).save(out, "PNG")
    return image_tag(out.getvalue(), "middle slice")


def _ecg(raw: np.ndarray, schema) -> str:
    return image_tag(ecg_trace(raw, schema.names, schema.rate), "ECG")


def _text(raw: np.ndarray, schema) -> str:
    text = decode_text(raw)
    return html.escape(text if len(text) <= 320 else text[:317] + "...")


def _labs(raw: np.ndarray, schema) -> str:
    known = [f"{n} {v:.4g}" for n, v in zip(schema.names, raw, strict=True) if not np.isnan(v)]
    return html.escape(", ".join(known))
