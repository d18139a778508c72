"""webdataset shards become studies: pictures with captions, patients and labels from their JSON, splits from names."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from medjax.data.building.build import REJECTED, Options, build_dataset
from medjax.data.readers.image import decode, encode_png
from medjax.data.records import decode_text
from medjax.data.sources import Columns, WebDataset
from medjax.errors import UserError


def pack(path, samples):
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for ending, data in members.items():
                data = data if isinstance(data, bytes) else json.dumps(data).encode()
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def picture(value: int) -> bytes:
    return encode_png(np.full((4, 5), value, np.uint8)).tobytes()


def sample(i: int, **changes):
    found = {"patient": f"p{i}", "sick": i % 2, "caption": f"from json {i}"}
    return {"png": picture(i), "txt": f"caption {i}".encode(), "json": found} | changes


KEYS = Columns(label=("sick",), patient="patient")


def test_samples_become_examples(tmp_path):
    pack(tmp_path / "train-0.tar", {f"{i:03d}": sample(i) for i in range(4)})
    source = WebDataset(str(tmp_path / "train-0.tar"), keys=KEYS)
    studies = source.studies()
    assert [(s.patient, s.split) for s in studies] == [(f"p{i}", "train") for i in range(4)]
    for i, study in enumerate(studies):
        example = study.read()
        assert np.asarray(decode(example.items["image"][0])).max() == i
        assert [decode_text(t) for t in example.items["text"]] == [f"caption {i}"]
        assert example.labels == {"sick": i % 2}


def test_shards_are_built_and_metadata_goes(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "Ottilie Musterfrau"
    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, "JPEG", exif=exif)
    for split, n in (("train", 6), ("val", 3), ("test", 3)):
        for shard in range(2):
            pack(
                tmp_path / f"{split}-{shard}.tar",
                {f"{i}": sample(i, jpg=out.getvalue(), json={"patient": f"{split}{i}{shard}"}) for i in range(n)},
            )
    source = WebDataset(f"{tmp_path}/{{train,val,test}}-{{0..1}}.tar", keys=Columns(patient="patient"))
    manifest = build_dataset(source, tmp_path / "data", Options(), lambda done, total: None)
    assert {k: s.examples for k, s in manifest.splits.items()} == {"train": 12, "validation": 6, "test": 6}
    assert manifest.patients_known and manifest.sensitive
    assert not any(b"Musterfrau" in p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file())


def test_several_pictures_of_a_sample_are_its_views_in_order(tmp_path):
    views = {"1.png": picture(11), "0.png": picture(10), "seg.txt": b"second", "txt": b"first", "mask": b"unknown"}
    pack(tmp_path / "s.tar", {"a": views})
    (study,) = WebDataset(str(tmp_path / "s.tar")).studies()
    example = study.read()
    assert [int(np.asarray(decode(x)).max()) for x in example.items["image"]] == [10, 11]
    assert {decode_text(t) for t in example.items["text"]} == {"first", "second"}
    assert study.split is None and not WebDataset(str(tmp_path / "s.tar")).schema.patients_known


FOUND = {"caption": "c", "split": "Val", "sick": -1, "id": 7.0, "crp": 1.5, "sodium": None, "born": "2031-05-06"}


def test_keys_of_the_json_and_numbered_classes(tmp_path):
    pack(tmp_path / "s.tar", {"a": sample(1, cls=b"2\n", json=FOUND)})
    labs = ("crp", "sodium")
    keys = Columns(text=("caption",), numeric=labs, label=("sick",), patient="id", split="split", identifier=("born",))
    source = WebDataset(str(tmp_path / "s.tar"), keys=keys, classes=("x", "y", "z"), uncertain="ones")
    (study,) = source.studies()
    example = study.read()
    assert (study.patient, study.split, study.identifiers) == ("7", "validation", ("2031-05-06",))
    np.testing.assert_array_equal(example.items["labs"], [[1.5, np.nan]])
    assert [decode_text(t) for t in example.items["text"]] == ["caption 1", "c"]
    assert example.labels == {"sick": 1, "x": 0, "y": 0, "z": 1} and source.schema.labels == ("sick", "x", "y", "z")


def test_one_key_in_two_shards_is_two_studies(tmp_path):
    for name in ("a.tar", "b.tar"):
        pack(tmp_path / name, {"000": sample(1)})
    names = [s.name for s in WebDataset(f"{tmp_path}/{{a,b}}.tar").studies()]
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"png": b"no picture"}, "cannot be read as an image"),
        ({"txt": b"\xff\xfe"}, "is not UTF-8"),
        ({"json": b"{"}, "is not JSON"),
        ({"json": b"[" * 10**5}, "is not JSON"),
        ({"json": [1]}, "is no object"),
        ({"json": {"sick": 1}}, "has no 'patient'"),
        ({"json": {"patient": ["p"]}}, "'patient' holds a list"),
        ({"json": {"patient": "p", "sick": "maybe"}}, "'maybe'"),
        ({"json": {"patient": "p", "sick": -1}}, "uncertain"),
        ({"cls": b"9"}, r"its .cls is '9'; classes are 0..1"),
    ],
)
def test_a_bad_sample_is_rejected_and_the_rest_is_built(tmp_path, changes, reason):
    for split in ("train", "val", "test"):
        pack(tmp_path / f"{split}.tar", {split + str(i): sample(i, json={"patient": split + str(i)}) for i in range(4)})
    pack(tmp_path / "train.tar", {f"{i}": sample(i, **(changes if i == 1 else {})) for i in range(4)})
    source = WebDataset(f"{tmp_path}/{{train,val,test}}.tar", keys=KEYS, classes=("a", "b"), sensitive=False)
    manifest = build_dataset(source, tmp_path / "data", Options(max_rejected_fraction=0.1), lambda done, total: None)
    (line,) = (tmp_path / "data" / REJECTED).read_text().splitlines()
    assert reason in json.loads(line)["reason"] and "train.tar" in json.loads(line)["reason"]
    assert manifest.rejected == 1 and sum(s.examples for s in manifest.splits.values()) == 11


def test_a_sample_of_nothing_useful_says_what_it_holds(tmp_path):
    pack(tmp_path / "s.tar", {"a": {"npy": b"x"}})
    with pytest.raises(UserError, match=r"sample 'a' of s\.tar: has no picture and no caption; it holds npy"):
        WebDataset(str(tmp_path / "s.tar")).studies()[0].read()


def test_keys_of_files_are_refused():
    with pytest.raises(UserError, match="only text, numbers, labels, patient and split"):
        WebDataset("s.tar", keys=Columns(image=("path",)))
