"""Items that are files or volumes come back as they were; a file that has changed is never taken for the old one."""

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image
from tiny_source import SCHEMA, TinySource, study

from medjax.data import manifest as manifests
from medjax.data.building.build import Options, build_dataset
from medjax.data.items import ChunkFiles, FileItem, items_of, refer
from medjax.data.manifest import SPLITS, Modality
from medjax.data.readers.image import decode as decode_picture
from medjax.data.readers.image import encode_png
from medjax.data.records import decode, decode_text, encode_text
from medjax.data.source_files import SourceFiles, checksum
from medjax.data.sources import Columns, Schema, Study, Table
from medjax.data.volumes import Volume
from medjax.errors import UserError


def build(source, directory, **options):
    return build_dataset(source, directory, Options(**options), lambda done, total: None)


def records_of(directory, split="train") -> list[dict]:
    import grain

    shards = manifests.load(directory).splits[split].shards
    source = grain.sources.ArrayRecordDataSource([str(directory / s["file"]) for s in shards])
    return [decode(source[i]) for i in range(len(source))]


def test_items_come_in_order_past_ten():
    record = {f"image/{i}": np.array([i]) for i in reversed(range(12))}
    assert [int(x[0]) for x in items_of(record, "image")] == list(range(12))
    assert items_of(record, "imag") == []


@pytest.fixture
def table(tmp_path, rng) -> Table:
    """Nine pictures with reports, three a split."""
    folder = tmp_path / "source"
    (folder / "png").mkdir(parents=True)
    lines = ["file,report,split"]
    for i in range(9):
        encode_png(rng.integers(0, 255, (8, 8)).astype(np.uint8)).tofile(folder / "png" / f"{i}.png")
        lines.append(f"png/{i}.png,report {i},{SPLITS[i % 3]}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    columns = Columns(image=("file",), text=("report",), split="split")
    return Table(folder / "table.csv", columns, "pictures", "CC0-1.0", sensitive=False)


def test_an_index_gives_the_items_of_a_copy_and_holds_no_picture(table, tmp_path):
    copied, index = build(table, tmp_path / "copied"), build(table, tmp_path / "index", index_only=True)
    assert (copied.index_only, index.index_only) == (False, True)
    for split in SPLITS:
        pairs = zip(records_of(tmp_path / "copied", split), records_of(tmp_path / "index", split), strict=True)
        for whole, reference in pairs:
            (a,), (b,) = items_of(whole, "image"), items_of(reference, "image", SourceFiles(table.root))
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
            assert set(whole) - set(reference) == {"image/0"}
            assert all(whole[k].tobytes() == reference[k].tobytes() for k in reference if k in whole)
            kept = json.loads(decode_text(reference["image/0@file"]))
            assert str(tmp_path) not in json.dumps(kept) and kept["path"].startswith("png/")
    for name in ("present", "positive", "patients", "examples"):
        assert all(getattr(copied.splits[s], name) == getattr(index.splits[s], name) for s in SPLITS)
    assert json.dumps(copied.modalities["image"].statistics) == json.dumps(index.modalities["image"].statistics)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), r"png/0\.png has changed since"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), r"png/0\.png has changed since"),
        (lambda path: path.unlink(), r"0\.png does not exist"),
    ],
)
def test_a_file_that_changed_or_went_is_named(table, tmp_path, damage, message):
    build(table, tmp_path / "index", index_only=True)
    damage(table.root / "png" / "0.png")
    with pytest.raises(UserError, match=message):
        items_of(records_of(tmp_path / "index")[0], "image", SourceFiles(table.root))


@pytest.mark.parametrize("check", ["first", "always"])
def test_a_file_is_compared_when_it_is_first_read_or_always(table, tmp_path, monkeypatch, check):
    from medjax.data import source_files

    build(table, tmp_path / "index", index_only=True)
    record, files, path = (
        records_of(tmp_path / "index")[0],
        SourceFiles(table.root, check),
        table.root / "png" / "0.png",
    )
    compared = []
    monkeypatch.setattr(source_files, "checksum", lambda file: compared.append(file) or checksum(file))
    for _ in range(3):
        items_of(record, "image", files)
    assert len(compared) == (1 if check == "first" else 3)
    data, before = path.read_bytes(), path.stat()
    path.write_bytes(data[:-1] + b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(UserError, match="has changed since"):
        items_of(record, "image", files)
    path.write_bytes(data)
    assert items_of(record, "image", pickle.loads(pickle.dumps(files)))


def test_metadata_stay_only_where_nothing_but_pixels_is_kept(tmp_path, rng):
    from PIL.PngImagePlugin import PngInfo

    pixels, about, turned = rng.integers(0, 255, (8, 6)).astype(np.uint8), PngInfo(), Image.Exif()
    about.add_text("PatientName", "Planted Name")
    turned[274] = 6
    saved = {"text.png": dict(pnginfo=about), "turned.png": dict(exif=turned), "turned.jpg": dict(exif=turned)}
    for name, options in saved.items():
        Image.fromarray(pixels).save(tmp_path / name, **options)
        raw = refer("image/0", FileItem("image", tmp_path / name), tmp_path)["image/0@file"]
        kept, decoded = SourceFiles(tmp_path).load(raw), SourceFiles(tmp_path).decoded().load(raw)
        assert b"Planted" not in kept.tobytes() and (b"Planted" in decoded.tobytes()) == (name == "text.png")
        assert np.array_equal(np.asarray(decode_picture(kept)), np.asarray(decode_picture(decoded)))


def test_an_index_without_the_folder_of_its_files_says_so(table, tmp_path):
    build(table, tmp_path / "index", index_only=True)
    with pytest.raises(UserError, match=r"config\.data\.source_dir"):
        items_of(records_of(tmp_path / "index")[0], "image")


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_an_index_is_opened_only_with_its_files(table, tmp_path, folder):
    from medjax.data import DataConfig, Dataset

    build(table, tmp_path / "index", index_only=True)
    modalities = {"image": {"size": 8}}
    with pytest.raises(UserError, match=r"index-only and config\.data\.source_dir=.* is no folder"):
        Dataset.open(DataConfig(dir=str(tmp_path / "index"), modalities=modalities, source_dir=folder))
    config = DataConfig(dir=str(tmp_path / "index"), modalities=modalities, batch_size=3, source_dir=str(table.root))
    found = Dataset.open(config)
    (batch,) = found.evaluation("test", 3)
    assert batch.valid.all() and batch.items["image"].mask.all()


def reference(**changes) -> dict[str, np.ndarray]:
    kept = {"reader": "image", "path": "a.png", "options": {}, "bytes": 1, "sha256": ""} | changes
    return {"image/0@file": encode_text(json.dumps(kept))}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (reference(path="../secret.png"), "leaves the folder"),
        (reference(path="/etc/passwd"), "leaves the folder"),
        ({"image/0@file": encode_text("{")}, "damaged"),
        ({"image/0@file": encode_text("[]")}, "damaged"),
        (reference(path=None), "damaged"),
    ],
)
def test_a_reference_leads_nowhere_else(tmp_path, record, message):
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "root").mkdir()
    with pytest.raises(UserError, match=message):
        items_of(record, "image", SourceFiles(tmp_path / "root"))


def test_a_link_out_of_the_source_is_refused(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match="lies outside"):
        refer("image/0", FileItem("image", tmp_path / "root" / "a.png"), tmp_path / "root")


def test_an_unknown_reader_is_named(tmp_path):
    with pytest.raises(UserError, match="did you mean 'image'"):
        FileItem("imag", tmp_path).load()


def test_the_checksum_of_a_record_is_over_all_its_files(tmp_path):
    for name, text in (("r1.hea", "header"), ("r1.dat", "data"), ("r10.dat", "another record")):
        (tmp_path / name).write_text(text)
    size, digest = checksum(tmp_path / "r1")
    assert size == len("header") + len("data")
    (tmp_path / "r1.dat").write_text("dATA")
    assert checksum(tmp_path / "r1")[1] != digest
    with pytest.raises(UserError, match="does not exist"):
        checksum(tmp_path / "r2")


def test_a_source_that_makes_its_items_has_no_index(tmp_path):
    with pytest.raises(UserError, match="--index_only needs a source that reads files"):
        build(TinySource([study(s, s) for s in SPLITS]), tmp_path, index_only=True)


VOLUMES = Schema("scans", "made up", "CC0-1.0", {"volume": Modality("volume"), **SCHEMA.modalities}, sensitive=False)


@pytest.fixture
def scans(rng) -> dict[str, Volume]:
    """Seven volumes of several shapes by name."""
    shapes = {f"{s}-{i}": (5 + i, 40, 33 + 7 * i) for s in SPLITS for i in range(3 if s == "train" else 2)}
    return {k: Volume(rng.integers(-1000, 2000, v).astype(np.int16), (2.5, 1.0, 0.7), "HU") for k, v in shapes.items()}


def unlabelled(name: str, split: str, **items) -> Study:
    example = study(name, split, **items).read()
    example.labels = {}
    return Study(name, name, split, lambda: example)


def test_volumes_lie_beside_their_shard_and_come_back(scans, tmp_path):
    given = [unlabelled(name, name.split("-")[0], volume=[scans[name]]) for name in scans]
    manifest = build(TinySource([*given, unlabelled("none", "train")], VOLUMES), tmp_path, records_per_shard=2)
    assert [s["chunks"]["file"] for s in manifest.splits["train"].shards] == [
        "train-00000.chunks.array_record",
        "train-00001.chunks.array_record",
    ]
    assert manifest.splits["train"].present["volume"] == 3
    manifests.verify(manifest, tmp_path)
    names = [name for name in scans if name.startswith("train")]
    chunks = ChunkFiles(tmp_path, manifest.splits["train"])
    for name, record in zip(names, records_of(tmp_path), strict=False):
        (stored,) = items_of(record, "volume", chunks=chunks)
        np.testing.assert_array_equal(stored.values, scans[name].values)
        assert (stored.spacing, stored.unit) == (scans[name].spacing, "HU")
        np.testing.assert_array_equal(stored.crop((1, 30, 5), (3, 8, 4)), scans[name].values[1:4, 30:38, 5:9])
    assert items_of(records_of(tmp_path)[-1], "volume", chunks=chunks) == []


def test_a_shard_without_volumes_has_no_file_of_chunks(scans, tmp_path):
    given = [unlabelled(s, s) for s in SPLITS]
    manifest = build(TinySource(given, VOLUMES), tmp_path)
    assert not any("chunks" in shard for s in manifest.splits.values() for shard in s.shards)
    assert not list(tmp_path.glob("*chunks*"))


def test_missing_or_damaged_chunks_are_named(scans, tmp_path):
    given = [unlabelled(name, name.split("-")[0], volume=[scans[name]]) for name in scans]
    manifest = build(TinySource(given, VOLUMES), tmp_path)
    path = tmp_path / manifest.splits["train"].shards[0]["chunks"]["file"]
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(UserError, match=rf"{path.name} has \d+ bytes and the manifest says"):
        manifests.load(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name} .*is missing"):
        manifests.load(tmp_path)
    path.write_bytes(data)
    (record, *_) = records_of(tmp_path)
    record["volume/0@volume/file"] = encode_text("../other")
    (volume,) = items_of(record, "volume", chunks=ChunkFiles(tmp_path, manifest.splits["train"]))
    with pytest.raises(UserError, match="which the manifest does not"):
        volume.crop((0, 0, 0), (1, 1, 1))
