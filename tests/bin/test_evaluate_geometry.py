"""evaluate_geometry on a run, with its controls, and on embeddings alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medjax.evaluation import store
from medjax.evaluation.geometry import modality_geometry, pair_geometry

pytestmark = pytest.mark.end_to_end
ROOT = Path(__file__).parents[2]


def _run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "medjax.bin.evaluate_geometry", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("theirs") / "theirs.npz"
    np.savez(path, **{f"embedding/{m}": rng.normal(size=(30, 8)) for m in ("image", "text")})
    return path


@pytest.mark.slow
def test_a_run_is_set_beside_its_beginning(phantom_run, tmp_path):
    _run(f"--workdir={phantom_run}", f"--output={tmp_path}", "--shift=0.5,0")
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found["modalities"]) == {"image", "ecg", "labs", "text"} and len(found["pairs"]) == 6
    assert set(found["controls"]["untrained"]["pairs"]) == set(found["pairs"]) == set(found["gap_shift"]["pairs"])
    assert found["gap_shift"]["gap_of"] == "validation" and found["gap_shift"]["no_auroc"] == ""
    for pair, curve in found["gap_shift"]["pairs"].items():
        assert [p["lambda"] for p in curve] == [0, 0.5]
        assert all((p["macro_auroc"] is not None) == pair.endswith("text") for p in curve)
    assert (tmp_path / "report.html").read_text().count("data:image/png") == 3


@pytest.mark.slow
def test_embeddings_alone_are_measured_and_not_moved(theirs, tmp_path):
    said = _run(f"--embeddings={theirs}", f"--output={tmp_path}").stdout
    found, table = json.loads((tmp_path / "results.json").read_text()), store.read_npz(theirs)
    for m, of in modality_geometry(table).items():
        assert found["modalities"][m]["uniformity"] == of.uniformity.as_dict()
    (of,) = pair_geometry(table).values()
    assert found["pairs"]["image and text"]["modality_gap"] == of.values["modality_gap"].as_dict()
    assert found["controls"]["untrained"] is None and found["gap_shift"]["pairs"] == {}
    assert "not moved along the gap: the gap is estimated on another split" in said


@pytest.mark.slow
def test_lambdas_that_are_no_numbers_are_refused(theirs, tmp_path):
    said = _run(f"--embeddings={theirs}", f"--output={tmp_path}", "--shift=0,much", status=2).stderr
    assert said == "error: --shift takes numbers such as -0.5,0,0.5; got 0,much\n"
