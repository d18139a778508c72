"""Every file of the real test data is read: none is refused, and each gives an item of its kind."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medjax.data.readers import reader
from medjax.data.readers.image import decode
from medjax.data.readers.leads import LEADS
from medjax.data.readers.sniff import reader_for
from medjax.data.readers.table import read_table
from medjax.data.sources import MedMNIST
from medjax.data.volumes import Volume

KINDS = {".jpg": "image", ".gz": "volume", ".nrrd": "volume", ".hea": "ecg"}
# Parts of what another file names, and what is about the data.
BESIDE = (".dat", ".xyz", ".md", ".txt", ".json", ".sha256")


def _read(path: Path) -> str:
    """The kind of what was read."""
    if path.name.endswith((".csv", ".csv.gz", ".jsonl")):
        assert read_table(path)
        return "table"
    if path.suffix == ".npz":
        studies = MedMNIST(path).studies()
        for study in studies[:: len(studies) // 50]:
            decode(study.read().items["image"][0])
        return "npz"
    if path.parent.name == "ct_dicom_j2k":
        assert decode(reader("dicom")(path, {"window": "lung"})).size == (512, 512)
        return "dicom"
    kind = KINDS[path.suffix]
    if kind == "ecg":
        signal = reader("wfdb")(path.with_suffix(""), {"rate": 100.0})
        assert signal.shape[0] == len(LEADS) and np.isfinite(signal).all()
    elif kind == "image":
        assert min(decode(reader("image")(path, {})).size) > 100
    else:
        volume = reader(reader_for(path, "volume"))(path, {})
        assert isinstance(volume, Volume) and min(volume.shape[:3]) > 1
    return kind


@pytest.mark.slow
def test_every_file_is_read(test_data):
    files = [p for p in sorted(test_data.rglob("*")) if p.is_file() and not p.name.endswith(BESIDE)]
    found = Counter(_read(p) for p in files)
    assert sum(found.values()) == len(files)
    assert set(found) == {"image", "volume", "ecg", "table", "npz", "dicom"}, found
