"""Damaged files of every format are read or refused by name: no crash, hang, pickle, way out of the folder or flood."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent.parent / "support" / "fuzz_worker.py"
FORMATS = ("csv_ecg", "dicom", "dicom_series", "edf", "image", "nifti", "npz", "nrrd", "table", "webdataset", "wfdb")


def _fuzz(kinds: tuple[str, ...], count: int, seed: int, folder: Path) -> None:
    command = [sys.executable, str(WORKER), ",".join(kinds), str(count), str(seed), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, f"exit status {done.returncode} after {done.stdout[-300:]}: {done.stderr[-2000:]}"
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["format"] for r in results] == list(kinds)
    broken = [f"{r['format']} {what}" for r in results for what in r["broken"]]
    assert not broken, "\n".join(broken[:40])
    assert all(r["read"] + r["refused"] == count and r["refused"] for r in results), results


def test_damaged_files_are_read_or_refused(tmp_path):
    _fuzz(FORMATS, 25, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_thousands_of_damaged_files_are_read_or_refused(kind, tmp_path):
    _fuzz((kind,), 300, 1, tmp_path)
