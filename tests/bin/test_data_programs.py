"""Looking into a data set, thinning it out, and forgetting a patient, as a user does, on a run of a few steps."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medjax.data import manifest as manifests
from medjax.data.curation.inspection import scan

pytestmark = pytest.mark.end_to_end
ROOT = Path(__file__).parents[2]


def _run(binary: str, *arguments: str, status: int = 0) -> str:
    command = [sys.executable, "-m", f"medjax.bin.{binary}", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == status, done.stderr[-3000:]
    return done.stdout if status == 0 else done.stderr


def _patient(directory: Path, split: str = "train") -> str:
    """A patient by the name that stands for its hash."""
    record = next(scan(directory, manifests.load(directory), split))
    return f"id-{record['id/patient'].tobytes().hex()}"


def test_a_page_says_what_a_data_set_holds(phantom_dir, tmp_path):
    said = _run("inspect_dataset", f"--data={phantom_dir}", f"--output={tmp_path / 'p.html'}", "--batch_size=16")
    page = (tmp_path / "p.html").read_text()
    split = manifests.load(phantom_dir).splits["train"]
    assert str(split.examples) in said and "Forecast for random batches of 16" in said
    assert page.count("<img") >= 6 and "same_patient=mask" in page


def test_a_patient_is_found_in_checkpoints_and_forgotten(phantom_run, phantom_dir, tmp_path):
    directory = Path(shutil.copytree(phantom_dir, tmp_path / "data"))
    patient, other = _patient(directory), _patient(directory, "test")
    seen = _run("seen", f"--workdir={phantom_run}", f"--patient={patient}")
    assert f"{phantom_run}/checkpoints/4" in seen and "in the train split" in seen
    never = _run("seen", f"--workdir={phantom_run}", f"--patient={other}")
    assert "in the test split" in never and "times" not in never

    removed = _run("forget", f"--data={directory}", f"--patient={patient}", f"--runs={phantom_run}")
    assert f"{phantom_run}/checkpoints/4" in removed and "removed" in removed
    manifest = manifests.load(directory)
    manifests.verify(manifest, directory)
    raw = bytes.fromhex(patient.removeprefix("id-"))
    for split in manifest.splits:
        assert all(r["id/patient"].tobytes() != raw for r in scan(directory, manifest, split))
    assert not any(raw in p.read_bytes() for p in directory.rglob("*") if p.is_file())
    assert manifest.splits["train"].patients == manifests.load(phantom_dir).splits["train"].patients - 1
    assert "none of these" in _run("forget", f"--data={directory}", f"--patient={patient}", status=2)


@pytest.mark.slow
def test_volumes_are_thinned_to_a_list_that_is_always_the_same(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    values = np.repeat(np.random.default_rng(0).integers(0, 999, (5, 20, 20)), 3, axis=0).astype(np.int16)
    (tmp_path / "scans").mkdir()
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.eye(4)), tmp_path / "scans" / "a.nii.gz")
    for name in ("one", "two"):
        _run("dedup", f"--volumes={tmp_path / 'scans'}", f"--output={tmp_path / name}", "--max_hamming=2")
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text()
    assert '"slices": 15, "kept": [0, 3, 6, 9, 12]' in (tmp_path / "one").read_text()
