"""A task of the decathlon becomes volumes with the sizes of their structures, and a crop reads what it needs."""

import json
import shutil

import nibabel
import numpy as np
import pytest

from medjax.data import DataConfig, Dataset
from medjax.data.building.build import Options, build_dataset
from medjax.data.chunks import StoredVolume
from medjax.data.sources import Decathlon
from medjax.errors import UserError

LABELS = {"0": "background", "1": "Anterior", "2": "Posterior"}
AFFINE = np.diag([-1.0, -2, 3, 1])


def write_task(folder, rng, numbers=range(1, 21), name="Toy", modality="MRI", shape=(7, 6, 5)):
    """Files in the layout of the archive; case n holds n voxels of the first structure and two of the second."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    cases = []
    for n in numbers:
        mask = np.zeros(shape, np.uint8)
        mask.ravel()[:n] = 1
        mask.ravel()[-2:] = 2
        file = f"toy_{n:03d}.nii.gz"
        nibabel.save(
            nibabel.Nifti1Image(rng.integers(0, 400, shape).astype(np.int16), AFFINE), folder / "imagesTr" / file
        )
        nibabel.save(nibabel.Nifti1Image(mask, AFFINE), folder / "labelsTr" / file)
        cases.append({"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"})
    write_table(folder, name=name, modality={"0": modality}, training=cases)
    return Decathlon(folder)


def write_table(folder, **fields):
    table = {"name": "Toy", "licence": "CC-BY-SA 4.0", "modality": {"0": "MRI"}, "labels": LABELS, "training": []}
    (folder / "dataset.json").write_text(json.dumps(table | fields))


def test_sizes_are_cubic_millimetres_of_the_masks(tmp_path, rng):
    source = write_task(tmp_path, rng)
    assert source.schema.modalities["labs"].names == ("Anterior", "Posterior")
    examples = [s.read() for s in source.studies()]
    for n, example in enumerate(examples, 1):
        np.testing.assert_allclose(example.items["labs"][0], (6 * n, 12))
        assert example.example_id == f"toy_{n:03d}"
    assert examples[0].items["volume"][0].load().spacing == (3.0, 2.0, 1.0)


def test_splits_are_by_number_and_neighbouring_hippocampi_stay_together(tmp_path, rng):
    studies = write_task(tmp_path / "toy", rng).studies()
    assert [s.split for s in studies[:11]] == ["train"] * 6 + ["validation"] + ["test"] * 2 + ["train"] * 2
    assert len({s.patient for s in studies}) == 20
    studies = write_task(tmp_path / "task04", rng, range(65, 85), "Hippocampus").studies()
    assert [s.split for s in studies] == ["train"] * 5 + ["validation"] * 10 + ["test"] * 5
    assert len({s.patient for s in studies}) == 3 and len({(s.patient, s.split) for s in studies}) == 3


def test_ct_is_in_hounsfield_units(tmp_path, rng):
    (study,) = write_task(tmp_path, rng, [1], modality="CT").studies()
    assert study.read().items["volume"][0].load().unit == "HU"


def test_a_table_that_misleads_is_refused(tmp_path, rng):
    with pytest.raises(UserError, match=r"dataset\.json does not exist"):
        Decathlon(tmp_path).studies()
    for text in ("[", "{}", "[]", '{"training": 3, "labels": {}, "modality": {}}'):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(UserError, match=r"dataset\.json"):
            Decathlon(tmp_path).studies()
    write_table(tmp_path, training=[{"image": "../a_1.nii", "label": "/etc/passwd"}])
    with pytest.raises(UserError, match="folder"):
        Decathlon(tmp_path).studies()[0].read()


def test_a_mask_with_an_unknown_label_is_refused(tmp_path, rng):
    source = write_task(tmp_path, rng, [1])
    mask = tmp_path / "labelsTr" / "toy_001.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.full((7, 6, 5), 9, np.uint8), AFFINE), mask)
    with pytest.raises(UserError, match="label 9"):
        source.studies()[0].read()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A data set of volumes of 70x40x40 voxels."""
    folder = tmp_path_factory.mktemp("decathlon")
    source = write_task(folder / "task", np.random.default_rng(0), range(1, 11), shape=(40, 40, 70))
    build_dataset(source, folder / "data", Options(), lambda done, total: None)
    return source, folder / "data"


def test_records_give_the_files_voxels(built):
    source, directory = built
    config = DataConfig(dir=str(directory), modalities={"volume": {}, "labs": {}}, batch_size=2, threads=0)
    dataset = Dataset.open(config)
    tests = [s for s in source.studies() if s.split == "test"]
    for study, items in zip(tests, dataset.raw_items("test", range(2)), strict=True):
        want, (got,) = study.read().items["volume"][0].load(), items["volume"]
        assert isinstance(got, StoredVolume) and got.spacing == want.spacing
        np.testing.assert_array_equal(got.values, want.values)


def test_batches_are_crops_that_read_a_part_of_the_chunks(built, monkeypatch):
    _, directory = built
    asked, read = [], StoredVolume._chunk

    def counted(self, index, corner):
        asked.append(index)
        return read(self, index, corner)

    monkeypatch.setattr(StoredVolume, "_chunk", counted)
    options = dict(size=(8, 8, 8), fit="crop")
    config = DataConfig(dir=str(directory), modalities={"volume": options}, batch_size=5, threads=0)
    batch = next(Dataset.open(config).train(0, 0, 5))
    assert batch.items["volume"].value.shape == (5, 1, 8, 8, 8, 1) and batch.valid.all()
    assert 5 <= len(asked) < 5 * 12  # of 3 x 2 x 2 chunks a volume
    again = next(Dataset.open(config).train(0, 0, 5))
    np.testing.assert_array_equal(batch.items["volume"].value, again.items["volume"].value)


def test_the_voxels_are_in_the_manifest_and_damage_to_them_is_counted(built, tmp_path):
    _, directory = built
    shutil.copytree(directory, tmp_path / "data")
    (chunks,) = (tmp_path / "data").glob("train*.chunks.array_record")
    data = bytearray(chunks.read_bytes())
    middle = len(data) // 4
    data[middle : middle + 4000] = bytes(4000)
    chunks.write_bytes(data)
    options = {"volume": dict(size=(16, 16, 16), fit="stretch")}
    config = DataConfig(dir=str(tmp_path / "data"), modalities=options, batch_size=7, threads=0)
    batch = next(Dataset.open(config).train(0, 0, 7))
    assert 0 < batch.valid.sum() < 7 and not batch.items["volume"].value[~batch.valid].any()
    with pytest.raises(UserError, match="checksum"):
        Dataset.open(DataConfig(dir=str(tmp_path / "data"), modalities=options, verify=True))


def test_the_real_hippocampi_have_the_counted_sizes(test_data, tmp_path):
    import csv

    folder = test_data / "vol3d_hippocampus"
    with (folder / "volumes.csv").open() as f:
        rows = list(csv.DictReader(f))
    cases = [{k: f"{k}s/{r['id']}.nii.gz" for k in ("image", "label")} for r in rows]
    for name in ("images", "labels"):
        (tmp_path / name).symlink_to(folder / name)
    write_table(tmp_path, name="Hippocampus", training=cases)
    studies = Decathlon(tmp_path).studies()
    assert len(studies) == 70
    for row, study in zip(rows[::7], studies[::7], strict=True):
        items = study.read().items  # voxels of 1 mm^3
        np.testing.assert_array_equal(items["labs"][0], [int(row["vox_anterior"]), int(row["vox_posterior"])])
        assert "x".join(map(str, items["volume"][0].load().shape[::-1])) == row["shape"]
