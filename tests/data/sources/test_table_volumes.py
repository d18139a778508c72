"""A table names volumes of any format; their pictures in reports are middle slices."""

import base64
import csv
import io
import re
from dataclasses import replace

import nibabel
import nrrd
import numpy as np
import pytest
from PIL import Image

from medjax.data import DataConfig, Dataset
from medjax.data.building.build import Options, build_dataset
from medjax.data.sources import Columns, Table
from medjax.errors import UserError
from medjax.evaluation.thumbnails import thumbnail

SHAPE = (4, 6, 3)  # of the files: left, posterior, superior


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Nine studies; the first has two volumes, the third none."""
    folder = tmp_path_factory.mktemp("table")
    rows = []
    for i in range(9):
        values = np.full(SHAPE, i, np.int16)
        values[0, :, 1] = 100  # the patient's right, in the middle slice
        nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, -1, 2, 1])), folder / f"{i}.nii.gz")
        nrrd.write(str(folder / f"{i}.nrrd"), values, {"spacings": [1.0, 1.0, 2.0]})
        split = ("train", "train", "train", "val", "test")[i % 5]
        rows.append(
            {"id": f"s{i}", "split": split, "ct": f"{i}.nii.gz", "mr": f"{i}.nrrd" if i == 0 else "", "crp": "3"}
        )
    rows[2]["ct"] = ""
    with (folder / "studies.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    columns = Columns(volume=("ct", "mr"), numeric=("crp",), example="id", patient="id", split="split")
    return Table(folder / "studies.csv", columns, "volumes", "CC0-1.0", sensitive=False)


@pytest.fixture(scope="module")
def dataset(table, tmp_path_factory):
    """Its data set, copied."""
    directory = tmp_path_factory.mktemp("data") / "data"
    build_dataset(table, directory, Options(), lambda done, total: None)
    options = {"volume": dict(size=(3, 6, 4), fit="crop", scaling="window", window=(0, 100), mean=0, std=0.01)}
    return Dataset.open(DataConfig(dir=str(directory), modalities=options, batch_size=9, max_items={"volume": 2}))


def check(dataset) -> None:
    """Every study's own number and mark, in the canonical order."""
    (batch,) = dataset.evaluation("train", 6)
    volumes = batch.items["volume"]
    assert batch.valid.all() and volumes.mask.tolist() == [
        [i == 0 or (i != 2 and k == 0) for k in (0, 1)] for i in range(6)
    ]
    for study, number in enumerate((0, 1, 2, 5, 6, 7)):
        for value, there in zip(volumes.value[study, ..., 0], volumes.mask[study], strict=True):
            want = np.full((3, 6, 4), number)
            want[1, :, 0] = 100
            np.testing.assert_allclose(value, want if there else 0, atol=1e-4)


def test_nifti_and_nrrd_come_to_the_encoder_alike(dataset):
    check(dataset)


def test_without_copies_the_files_are_read_at_run_time(table, dataset, tmp_path):
    build_dataset(table, tmp_path / "data", Options(index_only=True), lambda done, total: None)
    assert not list((tmp_path / "data").glob("*chunks*"))
    config = replace(dataset.config, dir=str(tmp_path / "data"), source_dir=str(table.root))
    check(Dataset.open(config))


def test_a_file_that_is_no_volume_is_rejected_by_name(tmp_path):
    (tmp_path / "studies.csv").write_text("ct,id\nstudies.csv,a\n../b.nii,b\n")
    source = Table(tmp_path / "studies.csv", Columns(volume=("ct",), patient="id"), "volumes", "CC0-1.0")
    for study, message in zip(
        source.studies(), (r"volume files are for dicom_series, nifti, nrrd", "outside"), strict=True
    ):
        with pytest.raises(UserError, match=message):
            study.read()


def test_the_thumbnail_is_the_middle_slice_in_its_proportions(dataset):
    found = re.search(r'base64,([^"]+)"', thumbnail(dataset, "train", 1, "volume"))[1]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(found))), int)
    assert shown.shape == (225, 150)  # 6 mm high, 4 mm wide
    assert shown[:, :20].min() > 240 and shown[:, 80:].max() < 15  # the patient's right is at the left
    hidden = replace(dataset, manifest=replace(dataset.manifest, sensitive=True))
    assert "sensitive" in thumbnail(hidden, "train", 1, "volume")
