"""Thumbnails show the study of their row, escape its words, and show nothing of sensitive data."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medjax.data import DataConfig, Dataset
from medjax.data.readers.image import decode as decode_image
from medjax.data.records import decode, decode_text
from medjax.evaluation import thumbnails
from medjax.evaluation.thumbnails import thumbnail

MODALITIES = ("image", "ecg", "labs", "text")


@pytest.fixture(scope="module")
def dataset(phantom_dir):
    return Dataset.open(DataConfig(dir=str(phantom_dir), modalities={"image": dict(size=16)}))


def first_with(dataset, modality, there=True) -> int:
    source = dataset.source("train")
    return next(i for i in range(len(source)) if (f"{modality}/0" in decode(source[i])) == there)


def test_a_picture_is_that_of_the_row(dataset):
    row = first_with(dataset, "image")
    encoded = re.search(r'base64,([^"]+)"', thumbnail(dataset, "train", row, "image")).group(1)
    shown = Image.open(io.BytesIO(base64.b64decode(encoded)))
    original = decode_image(decode(dataset.source("train")[row])["image/0"])
    # Enlarged and made small again: bicubic resampling loses a few of 255 levels.
    np.testing.assert_allclose(np.asarray(shown.resize(original.size), float), np.asarray(original, float), atol=25)


def test_words_and_values_are_those_of_the_row(dataset):
    row = first_with(dataset, "text")
    text = decode_text(decode(dataset.source("train")[row])["text/0"])
    assert thumbnail(dataset, "train", row, "text")[:300] == text[:300]
    row = first_with(dataset, "labs")
    values = decode(dataset.source("train")[row])["labs/0"]
    assert thumbnail(dataset, "train", row, "labs").count(",") == np.sum(~np.isnan(values)) - 1


def test_words_are_escaped(dataset, monkeypatch):
    row = first_with(dataset, "text")
    monkeypatch.setattr(thumbnails, "decode_text", lambda raw: "<b>pressure > 140</b>")
    assert thumbnail(dataset, "train", row, "text") == "&lt;b&gt;pressure &gt; 140&lt;/b&gt;"


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_is_absent_is_said_to_be(dataset, modality):
    assert "absent" in thumbnail(dataset, "train", first_with(dataset, modality, there=False), modality)


@pytest.mark.parametrize("modality", MODALITIES)
def test_of_sensitive_data_nothing_is_shown(dataset, modality):
    hidden = replace(dataset, manifest=replace(dataset.manifest, sensitive=True))
    shown = {thumbnail(hidden, "train", row, modality) for row in range(6)}
    assert len(shown) == 1 and "sensitive" in shown.pop()
