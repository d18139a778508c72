"""Probes as a user asks for them beyond the defaults, and what they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.end_to_end
ROOT = Path(__file__).parents[2]
RULE = np.random.default_rng(1).normal(size=(4, 3))


def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "medjax.bin.evaluate_probe", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == status, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory) -> Path:
    """Plain NPZ files of one modality with ids of examples; the labels are its directions."""
    rng, out = np.random.default_rng(0), tmp_path_factory.mktemp("embeddings")
    for name, n in (("train", 200), ("validation", 80), ("test", 100)):
        x = rng.normal(size=(n, 4)).astype(np.float32)
        labels = {f"label/{k}": (x @ RULE[:, i] > 0).astype(np.float32) for i, k in enumerate("abc")}
        ids = {"example": rng.integers(1, 2**32, (n, 2), dtype=np.uint32), "patient": np.arange(n) // 2}
        if name == "test":
            labels = dict(reversed(labels.items()))  # the order of columns is nobody's promise
        np.savez(out / f"{name}.npz", **{"embedding/ecg": x}, **labels, **ids)
    return out


@pytest.mark.slow
def test_the_same_parts_can_be_used_again_and_another_model_compared(embeddings):
    first, again = embeddings / "first", embeddings / "again"
    run(f"--embeddings={embeddings}", f"--output={first}", "--recipe=knn", "--fractions=0.2")
    lists, noise = first / "fraction_lists", embeddings / "noise"
    noise.mkdir()
    for path in embeddings.glob("*.npz"):
        columns = dict(np.load(path))
        x = np.random.default_rng(2).normal(size=columns["embedding/ecg"].shape)
        np.savez(noise / path.name, **{**columns, "embedding/ecg": x.astype(np.float32)})
    other = (f"--fraction_lists={lists}", f"--against={noise}")
    run(f"--embeddings={embeddings}", f"--output={again}", "--recipe=knn", *other)
    found = [json.loads((place / "results.json").read_text()) for place in (first, again)]
    assert found[0]["fractions"]["probe"] == found[1]["fractions"]["probe"]
    assert found[0]["probe"] == found[1]["probe"]
    against = found[1]["against"]["probe"]["ecg"]["macro"]
    assert against["own"] == found[1]["probe"]["ecg"]["trained"]["macro_auroc"] and against["verdict"] == "better"
    gain = against["own"]["value"] - against["other"]["value"]
    assert gain == pytest.approx(against["difference"]["value"], abs=1e-5)
    assert found[0]["recipe"]["features"] == "scaled to unit length"
    assert set(found[0]["probe"]["ecg"]) == {"trained", "shuffled"}
    assert found[0]["probe"]["ecg"]["trained"]["macro_auroc"]["value"] > 0.9
    assert found[0]["fractions"]["probe"]["ecg"]["0.2"]["trained"]["macro_auroc"]["value"] > 0.8


@pytest.mark.slow
def test_a_run_can_be_fine_tuned(phantom_run, tmp_path):
    options = ("--fine_tune", "--fine_tune_epochs=2", "--fine_tune_batch=16", "--raw=false", "--recipe=sgd")
    run(f"--workdir={phantom_run}", f"--output={tmp_path}", *options)
    found = json.loads((tmp_path / "results.json").read_text())["fine_tuned"]
    assert found["options"] == {"epochs": 2, "lr": 3e-4, "layer_decay": 1.0, "batch": 16}
    assert found["best_epoch"] == 1 + int(np.argmax(found["validation_auroc"]))
    assert set(found["gain"]) == {"linear_probe", "from_random_parameters"}
    assert set(found["fine_tuned"]["labels"]) == set(found["linear_probe"]["labels"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fractions=0.1,2",), "'2' is no part of the training split"),
        pytest.param(("--fractions=0.1", "--seeds=1"), "take at least 3", marks=pytest.mark.slow),
        pytest.param(("--exclusive=a,bb",), "did you mean 'b'", marks=pytest.mark.slow),
        pytest.param(("--targets=age",), "no number 'age'", marks=pytest.mark.slow),
        pytest.param(("--fine_tune",), "stored embeddings are none", marks=pytest.mark.slow),
        pytest.param(("--recipe=knn", "--normalise=standardise"), "compares by cosine", marks=pytest.mark.slow),
        pytest.param(("--split=train",), "leave --split out", marks=pytest.mark.slow),
    ],
)
def test_bad_input_is_one_line(embeddings, arguments, message):
    done = run(f"--embeddings={embeddings}", *arguments, status=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")
