"""Which modality adds what, as a user asks it of somebody else's embeddings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.end_to_end
ROOT = Path(__file__).parents[2]


def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "medjax.bin.evaluate_modality_value", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == status, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory) -> Path:
    """NPZ files of three modalities: the image tells one label, and image and ECG together the other."""
    rng, out = np.random.default_rng(0), tmp_path_factory.mktemp("embeddings")
    for name, n in (("train", 300), ("validation", 150), ("test", 200)):
        x = {m: rng.normal(size=(n, 3)).astype(np.float32) for m in ("image", "ecg", "labs")}
        labels = {"fracture": x["image"][:, 0] > 0, "discordant": (x["image"][:, 1] > 0) ^ (x["ecg"][:, 0] > 0)}
        columns = {f"embedding/{m}": v for m, v in x.items()}
        np.savez(out / f"{name}.npz", **columns, **{f"label/{k}": v.astype(np.float32) for k, v in labels.items()})
    return out


@pytest.mark.slow
def test_it_says_whether_the_ecg_adds_anything(embeddings):
    done = run(f"--embeddings={embeddings}", f"--output={embeddings / 'out'}", "--modalities=image,ecg")
    found = json.loads((embeddings / "out" / "results.json").read_text())
    assert set(found["subsets"]) == {"image", "ecg", "image+ecg"}
    assert found["synergy"]["discordant"]["ecg"]["verdict"] == "better"
    assert found["synergy"]["discordant"]["ecg"]["above"] == ["image"]
    assert found["synergy"]["fracture"]["ecg"]["verdict"] != "better"
    assert found["interaction"]["discordant"]["auroc"]["value"] > 0.3
    assert found["controls"]["shuffled"]["macro_auroc"]["value"] < 0.65
    assert found["recipe"]["name"] == "mlp" and "discordant" in done.stdout
    page = (embeddings / "out" / "report.html").read_text()
    assert "image + ecg" in page and "data:image/png;base64," in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "message"),
    [("--modalities=image,egc", "did you mean 'ecg'"), ("--modalities=image", "pass --modalities, two to 4")],
)
def test_bad_input_is_one_line(embeddings, argument, message):
    done = run(f"--embeddings={embeddings}", argument, status=2)
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
