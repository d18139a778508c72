"""Corrupted embeddings of a run: an intact corruption changes nothing, and a real one only its modality."""

import numpy as np
import pytest

import medjax
from medjax.evaluation.corruptions import Corruption, corruptions_of
from medjax.evaluation.corruptions.embedding import Corruptor
from medjax.evaluation.embeddings import embed_batches

pytestmark = pytest.mark.end_to_end
NOTHING = Corruption("nothing", lambda item, parameter, rng, schema: item, (0,) * 5)


@pytest.fixture(scope="module")
def corruptor(phantom_run) -> Corruptor:
    encoder = medjax.load(phantom_run)
    dataset = encoder.dataset()
    table = embed_batches(encoder.encode, dataset.evaluation("test", 8), dataset.manifest.labels)
    return Corruptor(encoder.encode, dataset, "test", table, batch=8)


@pytest.mark.parametrize("modality", ["image", "ecg", "labs", "text"])
def test_nothing_done_is_nothing_changed(corruptor, modality):
    found = corruptor.tables(modality, NOTHING, (1,))[1]
    for m, x in corruptor.table.embeddings.items():
        np.testing.assert_allclose(found.embeddings[m], x, atol=2e-5)  # another program, in float32


def test_only_the_modality_changes_and_an_example_does_not_depend_on_the_others(corruptor):
    noise = next(c for c in corruptions_of("ecg") if c.name == "noise")
    found = corruptor.tables("ecg", noise, (1, 5))
    table, present = corruptor.table, corruptor.table.present["ecg"]
    for m in ("image", "labs", "text"):
        assert found[5].embeddings[m] is table.embeddings[m]
    moved = [np.linalg.norm(found[k].embeddings["ecg"] - table.embeddings["ecg"], axis=1) for k in (1, 5)]
    assert (moved[0][present] > 0).all() and moved[1][present].mean() > moved[0][present].mean()
    assert not moved[1][~present].any()
    some = np.flatnonzero(present)[[5, 2]]
    part = Corruptor(corruptor.encode, corruptor.dataset, "test", table.where(some), batch=8)
    again = part.tables("ecg", noise, (5,))[5].embeddings["ecg"]
    np.testing.assert_allclose(again, found[5].embeddings["ecg"][some], atol=2e-5)
