"""A hundred damages, each to its own copy of a store: all are noticed, and the newest sound step is restored."""

import json
import logging
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from medjax.checkpoints import CheckpointStore, integrity
from medjax.errors import StorageError, UserError

STEPS = (20, 30)
SEEDS = range(17)  # of each kind of damage at a random place
OLDER, NEWEST = STEPS


def state(step: int) -> dict:
    rng = np.random.default_rng(step)
    return {name: jax.numpy.asarray(rng.normal(size=(16, 8)), np.float32) for name in ("kernel", "other")}


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A store of two steps. Copy it."""
    directory = tmp_path_factory.mktemp("sound") / "checkpoints"
    store = CheckpointStore(directory, keep=3)
    for step in STEPS:
        store.save(step, state(step), {"step": jax.numpy.int32(step)}, {"step": step})
    store.close()
    return directory


@pytest.fixture
def copy(sound, tmp_path) -> Path:
    shutil.copytree(sound, tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def files(folder: Path, filled: bool = False) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and (not filled or p.stat().st_size))


def flip(folder: Path, rng: np.random.Generator, path: Path | None = None) -> None:
    path = path or rng.choice(files(folder, filled=True))
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)


def truncate(folder: Path, rng: np.random.Generator) -> None:
    path = rng.choice(files(folder, filled=True))
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def delete(folder: Path, rng: np.random.Generator) -> None:
    rng.choice(files(folder)).unlink()


def add(folder: Path, rng: np.random.Generator) -> None:
    where = rng.choice([folder, *sorted(p for p in folder.rglob("*") if p.is_dir())])
    (where / rng.choice(["more", "checksums.json.1", ".hidden", f"{rng.integers(1 << 32):032x}"])).write_bytes(b"x")


def swap(folder: Path, rng: np.random.Generator) -> None:
    """A file of another step in place of this one's; their names differ where Orbax draws them."""
    other = folder.parent / str(OLDER)
    pairs = [(mine, theirs) for mine in files(folder, filled=True) for theirs in files(other, filled=True)]
    pairs = [(a, b) for a, b in pairs if a.name == b.name or a.parent.name == b.parent.name == "d"]
    mine, theirs = pairs[rng.choice([i for i, (a, b) in enumerate(pairs) if a.read_bytes() != b.read_bytes()])]
    mine.write_bytes(theirs.read_bytes())


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def another_step(folder: Path) -> None:
    """Whole and sealed, but of other weights than its name says."""
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / str(OLDER), folder)


def another_item(folder: Path) -> None:
    shutil.rmtree(folder / "params")
    shutil.copytree(folder.parent / str(OLDER) / "params", folder / "params")


def half_written_checksums(folder: Path) -> None:
    text = (folder / integrity.FILE).read_text()
    (folder / integrity.FILE).write_text(text[: len(text) // 2])


def no_checksums_of_anything(folder: Path) -> None:
    (folder / integrity.FILE).write_text('{"step": 30, "files": {}}')


def checksums_of_another_step(folder: Path) -> None:
    shutil.copy(folder.parent / str(OLDER) / integrity.FILE, folder / integrity.FILE)


def checksums_are_a_folder(folder: Path) -> None:
    (folder / integrity.FILE).unlink()
    (folder / integrity.FILE).mkdir()


def no_folder_of_parameters(folder: Path) -> None:
    shutil.rmtree(folder / "params")


def link_that_leads_nowhere(folder: Path) -> None:
    path = files(folder / "params")[0]
    path.unlink()
    path.symlink_to(folder / "gone")


def without(name: str):
    def remove(folder: Path) -> None:
        (folder / name).unlink()

    remove.__name__ = f"without_{name.replace('/', '_')}"
    return remove


MARKERS = [f"{item}commit_success.txt" for item in ("", "params/", "rest/", "meta/")]
RANDOM = [flip, truncate, delete, add, swap]
WHOLE = [
    *(without(name) for name in (integrity.FILE, *MARKERS)),
    *(empty, a_file, another_step, another_item, half_written_checksums, no_checksums_of_anything),
    *(checksums_of_another_step, checksums_are_a_folder, no_folder_of_parameters, link_that_leads_nowhere),
]


def check_fallback(directory: Path, caplog, restored: bool = True) -> None:
    """What a run does when it starts: the step before the damaged one, bit for bit, and the damaged one kept."""
    damaged = {p.relative_to(directory / str(NEWEST)) for p in (directory / str(NEWEST)).rglob("*")}
    untouched = {p: p.read_bytes() for p in files(directory / str(OLDER))}
    with pytest.raises(UserError, match="is damaged"):
        CheckpointStore(directory, read_only=True).restore_params(NEWEST)
    store = CheckpointStore(directory, keep=3)
    with caplog.at_level(logging.WARNING, "medjax"):
        assert store.latest_valid_step() == OLDER
    assert store.steps() == [OLDER]
    assert f"checkpoint {NEWEST} is damaged" in caplog.text
    (aside,) = (directory / "damaged").iterdir()
    assert {p.relative_to(aside) for p in aside.rglob("*")} == damaged
    assert {p: p.read_bytes() for p in files(directory / str(OLDER))} == untouched
    if not restored:  # which takes a tenth of a second, from the same bytes each time
        return
    want = state(OLDER)
    params, rest, meta = store.restore(OLDER, abstract(want), abstract({"step": jax.numpy.int32(0)}))
    jax.tree.map(np.testing.assert_array_equal, params, want)
    assert (int(rest["step"]), meta["step"]) == (OLDER, OLDER)
    store.close()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("how", RANDOM, ids=lambda f: f.__name__)
def test_damage_at_a_random_place_is_noticed(copy, how, seed, caplog):
    how(copy / str(NEWEST), np.random.default_rng(seed))
    check_fallback(copy, caplog, restored=seed == 0)


@pytest.mark.parametrize("how", WHOLE, ids=lambda f: f.__name__)
def test_what_is_missing_or_of_another_step_is_noticed(copy, how, caplog):
    how(copy / str(NEWEST))
    check_fallback(copy, caplog)


def test_a_bit_in_every_kind_of_file_is_noticed(copy):
    folder = copy / str(NEWEST)
    rng = np.random.default_rng(0)
    for path in files(folder, filled=True):
        data = path.read_bytes()
        flip(folder, rng, path)
        assert integrity.damage(folder_of(folder)) is not None, path
        path.write_bytes(data)
    assert integrity.damage(folder_of(folder)) is None


def folder_of(path: Path):
    return epath.Path(path)


def test_every_bit_of_the_checksums_counts(tmp_path):
    """Of a small folder, so that all can be tried."""
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "a").write_bytes(b"some weights")
    integrity.seal(folder_of(folder))
    sealed = (folder / integrity.FILE).read_bytes()
    assert integrity.damage(folder_of(folder)) is None
    for bit in range(0, 8 * len(sealed), 3):  # every byte, and each of its bits in turn
        data = bytearray(sealed)
        data[bit // 8] ^= 1 << bit % 8
        (folder / integrity.FILE).write_bytes(data)
        assert integrity.damage(folder_of(folder)) is not None, bit


def test_all_that_is_damaged_is_passed_over_until_something_is_sound(copy, caplog):
    rng = np.random.default_rng(0)
    store = CheckpointStore(copy, keep=3)
    store.save(10, state(10), state(10), {})
    store.close()
    flip(copy / "30", rng)
    (copy / "25").mkdir()
    truncate(copy / "20", rng)
    with caplog.at_level(logging.WARNING, "medjax"):
        assert CheckpointStore(copy).latest_valid_step() == 10
    assert sorted(p.name.split("-")[0] for p in (copy / "damaged").iterdir()) == ["20", "25", "30"]


def test_a_folder_that_cannot_be_read_is_passed_over_and_stays(copy, caplog, monkeypatch):
    """As without permission, which root always has."""
    walk = os.walk

    def refuse(top, **options):
        if Path(top).name == "30":
            options["onerror"](PermissionError(13, "Permission denied"))
        return walk(top, **options)

    monkeypatch.setattr(os, "walk", refuse)
    monkeypatch.setattr(type(epath.Path("/")), "rename", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no")))
    store = CheckpointStore(copy)
    with caplog.at_level(logging.WARNING, "medjax"):
        assert store.latest_valid_step() == 20
    assert "it cannot be read: Permission denied" in caplog.text and "cannot be moved" in caplog.text
    # Nor may the run that reaches the step again believe that it is saved.
    with pytest.raises(StorageError, match="in the way of a new save"):
        store.save(30, state(30), state(30), {})
    assert (copy / "30").exists()


def test_checksums_from_before_sizes_were_kept_are_understood(copy):
    sealed = json.loads((copy / "30" / integrity.FILE).read_text())
    plain = {name: entry["sha256"] for name, entry in sealed["files"].items()}
    (copy / "30" / integrity.FILE).write_text(json.dumps(plain))
    assert CheckpointStore(copy).latest_valid_step() == 30
    flip(copy / "30", np.random.default_rng(1), copy / "30" / "meta" / "metadata")
    assert CheckpointStore(copy).latest_valid_step() == 20


def test_names_that_only_look_like_steps_are_no_steps(copy):
    for name in ("030", "\u0663\u0664", "4\u00b2", "-5", "40.orbax-checkpoint-tmp", "50.deleting", "latest"):
        (copy / name).mkdir()
    assert CheckpointStore(copy, read_only=True).steps() == list(STEPS)


def test_a_sound_step_is_read_once_and_again_after_a_change(copy, monkeypatch):
    read = []
    digest = integrity._digest
    monkeypatch.setattr(integrity, "_digest", lambda path, *more: read.append(path) or digest(path, *more))
    store = CheckpointStore(copy)
    store.latest_valid_step()
    store.restore(30, abstract(state(30)), abstract({"step": jax.numpy.int32(0)}))
    assert len(read) == len(set(read)) == len(files(copy / "30")) - 1
    flip(copy / "30", np.random.default_rng(2), copy / "30" / "meta" / "metadata")
    with pytest.raises(UserError, match="meta/metadata differs from its checksum"):
        store.restore_params(30)


def test_unfinished_saves_do_not_pile_up_and_what_was_sealed_stays(copy, caplog):
    store = CheckpointStore(copy)
    for number in range(5):
        flip(copy / "30", np.random.default_rng(number), copy / "30" / "meta" / "metadata")
        (copy / str(40 + number)).mkdir()  # as a kill leaves it
        with caplog.at_level(logging.WARNING, "medjax"):
            assert store.latest_valid_step() == 20
        shutil.copytree(copy / "20", copy / "30")
    aside = [p for p in (copy / "damaged").iterdir()]
    assert sum(p.name.startswith("30-") for p in aside) == 5
    assert sorted(p.name.split("-")[0] for p in aside if not p.name.startswith("30-")) == ["42", "43", "44"]
    assert "was never finished, and 3 newer ones like it are kept; it is deleted" in caplog.text
