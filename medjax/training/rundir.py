"""The folder of a run: what describes it, and whether it may be gone on with."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from medjax import __version__
from medjax.data import Dataset
from medjax.data import manifest as manifests
from medjax.data import tokenizer as tok
from medjax.errors import UserError
from medjax.methods.encoder import CONFIG
from medjax.training.experiment import Experiment

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")
# What may differ when a run goes on: how often things happen, where data and devices lie, how fast data are read.
_FREE = (
    *("data.dir", "data.threads", "data.cache", "data.verify", "data.max_invalid_fraction"),
    *("mesh", "train.keep", "train.max_bad_steps", "train.wandb_project", "warm_start.dir"),
)


def describe_run(experiment: Experiment, workdir: Path, dataset: Dataset) -> None:
    """Writes the configuration, the versions, and a copy of what preprocesses inputs without the data set.

    Raises:
      UserError: the workdir holds a run of another configuration or on other data.
    """
    path = workdir / CONFIG
    if path.exists():
        _check_same(experiment, workdir, dataset)
        return
    workdir.mkdir(parents=True, exist_ok=True)
    dataset.manifest.save(workdir)
    if dataset.manifest.tokenizer:
        brought = next((o["tokenizer"] for o in experiment.data.modalities.values() if o.get("tokenizer")), "")
        tok.adopt(brought or dataset.directory / tok.FOLDER, workdir)
    versions = {"medjax": __version__, **{p: importlib.metadata.version(p) for p in _PACKAGES}}
    about = {"packages": versions, "data_manifest_sha256": dataset.manifest.digest()}
    (workdir / "versions.json").write_text(json.dumps(about, indent=1) + "\n")
    data = {**experiment.resolved["data"], "dir": str(dataset.directory.absolute())}
    path.write_text(json.dumps({**experiment.resolved, "data": data}, indent=1) + "\n")


def _check_same(experiment: Experiment, workdir: Path, dataset: Dataset) -> None:
    before = json.loads((workdir / CONFIG).read_text())
    now = json.loads(json.dumps(experiment.resolved))
    different = [k for k in differences(before, now) if not k.startswith(_FREE) and "_every_" not in k]
    if different:
        raise UserError(
            f"{workdir} holds a run with another {', '.join(different)}; use the same, or another --workdir"
        )
    if manifests.read(workdir).digest() != dataset.manifest.digest():
        raise UserError(f"{workdir} holds a run on other data than {dataset.directory}; use another --workdir")


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """The dotted keys at which two nested dicts differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in sorted({*a, *b}) for d in differences(a.get(k), b.get(k), f"{where}.{k}" if where else k)]
    return [] if a == b else [where]
