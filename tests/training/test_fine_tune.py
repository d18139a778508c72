"""Fine-tuning fits the training examples at least as well as a linear probe, and leaves alone what it should."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler

import medjax
from medjax.evaluation.embeddings import embed_batches
from medjax.evaluation.probe import joined_features
from medjax.training.fine_tune import FineTuneConfig, cross_entropy, fine_tune

USED = ("ecg", "labs")
COLUMNS = (3, 7)  # atrial fibrillation, renal failure


@pytest.fixture(scope="module")
def encoder(phantom_run):
    return medjax.load(phantom_run)


@pytest.fixture(scope="module")
def tuned(encoder):
    dataset = encoder.dataset()
    batches = {s: [b.select(USED) for b in dataset.evaluation(s, 16)] for s in ("train", "validation", "test")}
    table = embed_batches(encoder.encode, batches["train"], dataset.manifest.labels)
    features = joined_features(table, USED)
    scaler = StandardScaler().fit(features.x)
    config = FineTuneConfig(steps=len(batches["train"]), epochs=30, lr=3e-3)
    endless = (b for _ in range(config.epochs) for b in batches["train"])
    scale = scaler.mean_, scaler.scale_
    result = fine_tune(encoder, USED, COLUMNS, endless, lambda: batches["validation"], scale, config)
    return result, batches, features, scaler


def loss_of(logits, labels) -> float:
    return float(sum(log_loss(labels[:, k], 1 / (1 + np.exp(-logits[:, k].astype(float)))) for k in range(2)))


@pytest.mark.slow
def test_it_fits_the_training_examples_at_least_as_well_as_the_linear_probe(tuned):
    result, batches, features, scaler = tuned
    _, labels = result.logits(batches["train"])
    np.testing.assert_array_equal(labels, features.labels[:, COLUMNS])
    x = scaler.transform(features.x)
    models = [LogisticRegression(C=1.0, max_iter=1000).fit(x, features.labels[:, k]) for k in COLUMNS]
    probe = np.stack([m.decision_function(x) for m in models], axis=1)
    assert result.loss[-1] <= loss_of(probe, labels) < result.loss[0]  # whichever epoch validation prefers


@pytest.mark.slow
def test_the_epoch_is_the_best_on_validation(tuned):
    result, batches, *_ = tuned
    logits, labels = result.logits(batches["validation"])
    mean = np.mean([roc_auc_score(labels[:, k], logits[:, k]) for k in range(2)])
    assert result.epoch == 1 + int(np.argmax(result.validation))
    assert mean == pytest.approx(max(result.validation), abs=1e-6)


@pytest.mark.slow
def test_towers_that_are_used_move_and_nothing_else(tuned, encoder):
    params = tuned[0].encoder.params
    moved = {
        f"{root}/{name}": not all(map(np.array_equal, jax.tree.leaves(tree), jax.tree.leaves(params[root][name])))
        for root, trees in encoder.params.items()
        for name, tree in trees.items()
    }
    assert {name for name, yes in moved.items() if yes} == {f"towers/{m}" for m in USED}


def test_unknown_labels_have_no_part_in_the_loss():
    logits = np.array([[0.3, -2.0], [1.0, 0.5], [7.0, 0.1]], np.float32)
    target = np.array([[1, 0], [0, 1], [np.nan, 1]], np.float32)
    known = np.array([[True, True], [True, False], [False, True]])
    expected = log_loss([1, 0], 1 / (1 + np.exp(-logits[:2, 0]))) + log_loss(
        [0, 1], 1 / (1 + np.exp(-logits[[0, 2], 1].astype(float)))
    )
    assert float(cross_entropy(logits, target, known)) == pytest.approx(expected, rel=1e-6)
    assert float(cross_entropy(logits, target, np.zeros((3, 2), bool))) == 0
