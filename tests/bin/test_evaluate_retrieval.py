"""evaluate_retrieval on embeddings of somebody else's encoder, and on one modality."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.end_to_end
ROOT = Path(__file__).parents[2]


def _run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "medjax.bin.evaluate_retrieval", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    return done


def _write(path: Path, rng, names=("image", "ecg", "text"), n: int = 40, labels: bool = True) -> dict:
    shared = rng.normal(size=(n, 16))
    columns = {f"embedding/{m}": (shared + rng.normal(size=(n, 16))).astype(np.float32) for m in names}
    columns |= {"patient": np.arange(n) // 2, "text": np.where(np.arange(n) < 4, 0, np.arange(n))}
    if labels:
        columns["label/sick"] = (np.arange(n) % 4 < 2).astype(np.float32)
    np.savez(path, **columns)
    return columns


def test_every_protocol_is_there_for_stored_embeddings(rng, tmp_path):
    columns = _write(tmp_path / "theirs.npz", rng)
    worse = {k: v + rng.normal(size=v.shape) if k.startswith("embedding/") else v for k, v in columns.items()}
    np.savez(tmp_path / "worse.npz", **worse | {"patient": 99 - columns["patient"]})
    places = f"--embeddings={tmp_path / 'theirs.npz'}", f"--against={tmp_path / 'worse.npz'}"
    said = _run(*places, f"--output={tmp_path / 'out'}", "--joint=mean", "--faiss=Flat").stdout
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["data"]["patients_known"] and found["data"]["patients"] == 20
    assert found["rules"]["joint"] == "mean" and found["controls"]["untrained"] is None
    assert found["texts"] == {"studies": 40, "distinct": 37, "duplicated": 1, "studies_that_share_one": 4}
    assert "1 of 37 texts belong to several studies (4)" in said
    assert found["faiss"]["index"] == "Flat" and found["faiss"]["image_to_ecg"]["value"] == 1
    assert len(found["retrieval"]) == 6 and len(found["joint_retrieval"]) == 3
    assert len(found["joint_subsets"]) == 9 and len(found["label_retrieval"]) == 9
    # Both others together, in float64.
    x, y, z = (columns[f"embedding/{m}"].astype(np.float64) for m in ("image", "text", "ecg"))
    scores = (x + y) / 2 @ z.T
    texts = columns["text"]
    best = np.where(texts[:, None] == texts, scores, -np.inf).max(axis=1, keepdims=True)
    expected = np.mean(((scores > best) & (texts[:, None] != texts)).sum(axis=1) < 10)
    together = found["joint_subsets"]["image+text_to_ecg"]
    assert together["recall@10"]["value"] == pytest.approx(expected, abs=1e-6)
    assert together["compared"] and together["choice_of_ten"]["chance"] == {"accuracy": 0.1}
    torn = found["controls"]["shuffled"]["joint_subsets"]["image+text_to_ecg"]["choice_of_ten"]
    assert torn["candidate_list_sha256"] == together["choice_of_ten"]["candidate_list_sha256"]
    assert torn["accuracy"]["value"] < together["choice_of_ten"]["accuracy"]["value"]
    against = found["against"]["recall@10"]["image_to_text"]
    assert against["own"] == found["retrieval"]["image_to_text"]["recall@10"]
    difference = against["own"]["value"] - against["other"]["value"]
    assert against["difference"]["value"] == pytest.approx(difference, abs=1e-6) and difference > 0
    assert set(found["against"]) == {"place", "recall@10", "choice_of_ten", "label_map"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Rule: mean of inner products" in page and "other studies of its patient do not count" in page


@pytest.mark.slow
def test_one_modality_is_searched_by_label_and_needs_labels(rng, tmp_path):
    _write(tmp_path / "one.npz", rng, ("image",))
    _run(f"--embeddings={tmp_path / 'one.npz'}", f"--output={tmp_path / 'out'}", "--same_patient=keep")
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["retrieval"] == {} and list(found["label_retrieval"]) == ["image_to_image"]
    assert found["label_retrieval"]["image_to_image"]["shared_label"]["candidates"] == 39
    _write(tmp_path / "none.npz", rng, ("image",), labels=False)
    said = _run(f"--embeddings={tmp_path / 'none.npz'}", f"--output={tmp_path / 'out'}", status=2).stderr
    assert said.startswith("error: this encoder compares no modalities") and len(said.strip().splitlines()) == 1
