"""Every recipe trains: on the phantom, and on real data where that is at hand."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from medjax.bin.cli import load_config
from medjax.data.building.build import Options, build_dataset
from medjax.data.sources import PTBXL, Columns, Decathlon, MedMNIST, Table
from medjax.errors import UserError
from medjax.methods.encoder import load_run
from medjax.models.partitioning import axis_rules
from medjax.sharding import ACTIVATION_RULES, MeshConfig, make_mesh
from medjax.training import loop
from medjax.training.experiment import stages
from medjax.training.planning.compiling import Traced
from medjax.training.planning.description import Assumed, describe_data

ROOT = Path(__file__).parents[2]

SLOW = pytest.mark.slow  # what these recipes consist of is trained elsewhere too


def _train(spec: str, data: Path, workdir: Path, image_size: int | None = None) -> tuple[list[float], list[str]]:
    """Training losses, and the modalities whose encoder moved, after a few steps of a tiny recipe."""
    config = load_config(str(ROOT / "configs" / spec))
    config.data.dir = str(data)
    if image_size:
        config.data.modalities.image.size = image_size
    config.train.log_every_steps = 1
    config.optimizer.weight_decay = 0.0  # which moves what has no gradient
    for key in [k for k in config.train if k.startswith("total_")]:
        del config.train[key]
    config.train.total_steps = 6
    config.train.eval_every_percent = config.train.checkpoint_every_percent = 100
    loop.run(config, workdir)
    rows = (json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines())
    losses = [r["train/loss"] for r in rows if "train/loss" in r]
    before, after = (load_run(workdir, c).params["towers"] for c in ("untrained", "last"))
    moved = [
        m
        for m in after
        if any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before[m], after[m])), strict=True))
    ]
    return losses, moved


def _check(losses: list[float], moved: list[str], modalities: set[str]) -> None:
    assert len(losses) == 6 and np.isfinite(losses).all()
    assert len(set(losses)) == 6
    assert set(moved) == modalities  # every encoder that the objective uses gets a gradient, and no other


@SLOW
@pytest.mark.parametrize("objective", ["info_nce", "symile", "gram"])
def test_phantom(objective, phantom_dir, tmp_path):
    # Symile's three modalities leave the lab values without a loss.
    expected = {"image", "ecg", "text"} | (set() if objective == "symile" else {"labs"})
    _check(*_train(f"phantom.py:tiny,objective={objective}", phantom_dir, tmp_path / "run", 32), expected)


@SLOW
@pytest.mark.parametrize("modalities", ["image+ecg+labs+text", "labs+text"])
def test_table(modalities, phantom_dir, tmp_path):
    spec = f"table.py:modalities={modalities},width=16,depth=1,batch=16"
    size = 32 if "image" in modalities else None
    _check(*_train(spec, phantom_dir, tmp_path / "run", size), set(modalities.split("+")))


@SLOW
def test_mae_then_contrastive(phantom_dir, tmp_path):
    spec = "mae_then_contrastive.py:tiny,stages=autoencoder"
    _check(*_train(spec, phantom_dir, tmp_path / "run", 32), {"image", "ecg"})


def _build(source, directory: Path, **options) -> Path:
    build_dataset(source, directory, Options(**options), lambda done, total: None)
    return directory


@SLOW
def test_ptbxl(test_data, tmp_path):
    data = _build(PTBXL(test_data / "ecg_ptbxl100"), tmp_path / "data")
    _check(*_train("ptbxl.py:tiny", data, tmp_path / "run"), {"ecg", "demographics", "text"})


@SLOW
def test_hannover(test_data, tmp_path):
    columns = Columns(
        image=("image",),
        numeric=("crp_val", "ldh_val", "lymphocytes_val", "neutrophils_val", "pco2_val", "po2_val"),
        label=("ever_icu", "died"),
        patient="patient_id",
        example="image_id",
        split="split",
    )
    source = Table(test_data / "cxr_labs_hannover" / "metadata.csv", columns, "hannover", "CC-BY-3.0")
    data = _build(source, tmp_path / "data")
    _check(*_train("hannover.py:tiny", data, tmp_path / "run"), {"image", "labs"})


@SLOW
def test_cxr_notes(test_data, tmp_path):
    columns = Columns(
        image=("image",), text=("notes",), label=("covid",), patient="patient_id", example="id", split="split"
    )
    source = Table(test_data / "cxr_notes" / "metadata.csv", columns, "cxr_notes", "per image")
    data = _build(source, tmp_path / "data")
    _check(*_train("cxr_notes.py:tiny", data, tmp_path / "run"), {"image", "text"})


@SLOW
def test_pneumonia_mnist(test_data, tmp_path):
    data = _build(MedMNIST(test_data / "cxr_pneumoniamnist" / "pneumoniamnist_dev.npz"), tmp_path / "data")
    _check(*_train("pneumonia_mnist.py:tiny", data, tmp_path / "run"), {"image", "text"})


@SLOW
@pytest.mark.parametrize("stage", ["autoencoder", "both"])
def test_hippocampus(stage, test_data, tmp_path):
    folder, task = test_data / "vol3d_hippocampus", tmp_path / "task"
    names = sorted(p.name for p in (folder / "images").iterdir())
    task.mkdir()
    for part in ("images", "labels"):
        (task / part).symlink_to(folder / part)
    table = {
        "name": "Hippocampus",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [{"image": f"images/{name}", "label": f"labels/{name}"} for name in names],
    }
    (task / "dataset.json").write_text(json.dumps(table))
    data, run = _build(Decathlon(task), tmp_path / "data"), tmp_path / "run"
    _check(
        *_train(f"hippocampus.py:tiny,stages={stage}", data, run), {"volume"} | ({"labs"} if stage == "both" else set())
    )


# Those of the papers that no other test here trains, and a recipe that is tiny by its arguments.
_REST = {"table": "width=16,depth=1,batch=16", "mae_then_contrastive": "tiny", "symile_mimic": "tiny"} | dict.fromkeys(
    ("contrastive_gap", "convirt", "gram", "medclip_sam", "mgca", "more", "radclip", "siglip", "unicl", "unimed_clip"),
    "tiny",
)


def _values(shape: jax.ShapeDtypeStruct, rng: np.random.Generator) -> np.ndarray:
    """Everything present, small whole numbers for tokens and lengths."""
    if shape.dtype == bool:
        return np.ones(shape.shape, bool)
    if np.issubdtype(shape.dtype, np.integer):
        return rng.integers(1, 8, shape.shape).astype(shape.dtype)
    return rng.normal(size=shape.shape).astype(shape.dtype)


@SLOW
@pytest.mark.parametrize("name", sorted(_REST))
def test_full_size_has_shapes_and_tiny_size_takes_two_steps(name):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])

    def traced(spec: str) -> Traced:
        experiment = stages(load_config(str(ROOT / "configs" / spec)))[-1][1]
        return Traced.create(experiment, describe_data(experiment, Assumed()), mesh)

    traced(f"{name}.py")
    tiny = traced(f"{name}.py:{_REST[name]}")
    batch = jax.tree.map(partial(_values, rng=np.random.default_rng(0)), tiny.batch)
    batch = replace(batch, row=np.arange(batch.size, dtype=np.int32))
    with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES):
        state = replace(tiny.program.factory, batch=batch).fresh(0)  # some centre their heads on it
        start = jax.tree.map(np.asarray, state.params["towers"])
        for _ in range(2):
            state, metrics = tiny.program.step(state, batch)
    assert (int(state.step), int(state.skipped)) == (2, 0)
    assert np.isfinite(float(metrics["train/loss"]))
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), start, state.params["towers"])
    assert any(jax.tree.leaves(changed))


@pytest.mark.parametrize("recipe", ["phantom.py", "ptbxl.py"])
def test_an_unknown_objective_names_the_nearest(recipe):
    with pytest.raises(UserError, match="unknown objective 'symil'; did you mean 'symile'"):
        load_config(f"{ROOT / 'configs' / recipe}:objective=symil")


def test_every_option_at_its_default_can_be_set():
    recipes = [load_config(str(path)) for path in (ROOT / "configs").glob("*.py")]
    for config in (r for r in recipes if "method" in r):  # an experiment of its own has none
        assert (
            config.train.wandb_project == "" and config.optimizer.mu_dtype == "float32" and config.warm_start.dir == ""
        )


def test_a_batch_that_the_devices_cannot_share_is_refused_before_the_start(phantom_dir, tmp_path):
    config = load_config(str(ROOT / "configs" / "phantom.py:tiny"))
    config.data.dir, config.data.batch_size, config.data.modalities.image.size = str(phantom_dir), 20, 32
    with pytest.raises(UserError, match=r"batch_size=20 does not divide by the 8 devices of the batch; use 16"):
        loop.run(config, tmp_path / "run")
