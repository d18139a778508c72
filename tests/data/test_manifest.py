"""A data set with missing or changed files is refused, with the file's name."""

import json
import shutil

import pytest

from medjax.data import manifest as manifests
from medjax.errors import UserError


@pytest.fixture
def copy(phantom_dir, tmp_path):
    """A data set that a test may damage."""
    return shutil.copytree(phantom_dir, tmp_path / "data")


def shard(directory, split="train"):
    return directory / manifests.read(directory).splits[split].shards[0]["file"]


def test_saving_and_loading_keeps_everything(phantom_dir, tmp_path):
    manifest = manifests.load(phantom_dir)
    manifest.save(tmp_path)
    assert manifests.read(tmp_path) == manifest
    assert manifests.read(tmp_path).digest() == manifest.digest()


def test_the_digest_changes_with_a_checksum(phantom_dir, tmp_path):
    raw = json.loads((phantom_dir / manifests.FILE).read_text())
    raw["splits"]["test"]["shards"][0]["sha256"] = "0" * 64
    (tmp_path / manifests.FILE).write_text(json.dumps(raw))
    assert manifests.read(tmp_path).digest() != manifests.read(phantom_dir).digest()


def test_a_sound_data_set_passes_verification(phantom_dir):
    manifests.verify(manifests.load(phantom_dir), phantom_dir)


def test_counts_are_those_of_the_splits(phantom_dir):
    manifest = manifests.load(phantom_dir)
    assert sum(s.patients for s in manifest.splits.values()) == 60
    for split in manifest.splits.values():
        assert sum(s["records"] for s in split.shards) == split.examples
        assert all(n <= split.examples for n in (*split.present.values(), *split.positive.values()))


def test_no_data_set_names_the_command(tmp_path):
    with pytest.raises(UserError, match=r"no data set at .*medjax\.bin\.build_dataset"):
        manifests.load(tmp_path)


def test_a_missing_shard_is_named(copy):
    path = shard(copy)
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name} .* is missing"):
        manifests.load(copy)


def test_a_truncated_shard_is_named(copy):
    path = shard(copy)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{path.name} has .* bytes"):
        manifests.load(copy)


def test_a_flipped_bit_passes_loading_and_is_found_by_verification(copy):
    path = shard(copy, "validation")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    manifest = manifests.load(copy)
    with pytest.raises(UserError, match=f"{path.name} differs from its checksum"):
        manifests.verify(manifest, copy)


def test_another_format_is_refused(copy):
    path = copy / manifests.FILE
    path.write_text(path.read_text().replace(manifests.FORMAT, "medjax-records-0"))
    with pytest.raises(UserError, match=r"format 'medjax-records-0'.*build it again"):
        manifests.load(copy)


def test_a_half_written_manifest_is_refused(copy):
    path = copy / manifests.FILE
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UserError, match="is not JSON"):
        manifests.load(copy)


def test_an_unknown_modality_is_answered_with_those_there_are(phantom_dir):
    with pytest.raises(UserError, match=r"no modality 'volume'.*image, ecg, labs, text"):
        manifests.load(phantom_dir).modality("volume")
