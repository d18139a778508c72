"""The folder of a run: what describes it, and whether it may be gone on with."""

import importlib.metadata
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medjax import __version__
from medjax.checkpoints.mirror import readable
from medjax.config import build, merge
from medjax.data import Dataset
from medjax.data import manifest as manifests
from medjax.data import tokenizer as tok
from medjax.data.privacy import licence
from medjax.data.privacy.licence import Licence
from medjax.errors import UserError
from medjax.methods.encoder import CONFIG
from medjax.storage import absolute
from medjax.training.experiment import Experiment, defaults
from medjax.training.precision import BlockOptions, Precision, with_computation

_VERSIONS = "versions.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")
# What may differ when a run goes on: how often things happen, where data and devices lie, how fast data are read, how
# many examples a batch has (they go on in the same order).
_FREE = (
    *("data.dir", "data.source_dir", "data.batch_size", "data.threads", "data.workers", "data.cache", "data.verify"),
    *("data.cache_dir", "data.check_files"),
    *("data.max_invalid_fraction", "data.max_invalid"),
    *("mesh", "train.keep", "train.max_bad_steps", "train.micro_batch", "train.peak_flops"),
    *("train.profile_steps", "train.wandb_project", "warm_start.dir"),
    *("train.async_checkpoints", "train.restore_cast"),
    *("train.hang_seconds", "train.hang_action"),
    *("train.spike_deviations", "train.spike_window", "train.max_rollbacks"),
)
_BLOCKS = re.compile(r"blocks\..*|method\.towers\.[^.]+\.(remat|remat_save|scan|attention)")
# What may differ beside that where config.train.restore_cast asks for it.
_PRECISION = re.compile(r"precision\..*|method\..*\.dtype|optimizer\.mu_dtype")


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
    terms = _terms(dataset, experiment.warm_start.dir)
    about = {"packages": versions, "data_manifest_sha256": dataset.manifest.digest(), "terms": asdict(terms)}
    (workdir / _VERSIONS).write_text(json.dumps(about, indent=1) + "\n")
    data = _with_absolute_folders(experiment.resolved["data"])
    partial = path.with_name(f"{CONFIG}.partial")
    partial.write_text(json.dumps({**experiment.resolved, "data": data}, indent=1) + "\n")
    partial.replace(path)  # a kill leaves it whole, or makes the next start describe the run again


def _terms(dataset: Dataset, start: str | None) -> Licence:
    """Of the data, and of those behind the weights that the run starts from."""
    folder = readable(start) if start else None
    before = [run_terms(folder)] if folder and (folder / CONFIG).is_file() else []
    return licence.combine([licence.of(dataset.manifest), *before])


def run_terms(workdir: Path) -> Licence:
    """What the licences of all data ask for that a run has learnt from, also through the run that it started from.

    Raises:
      UserError: there is no run.
    """
    if not (workdir / CONFIG).is_file():
        raise UserError(f"no run at {workdir}: {CONFIG} is missing; give the --workdir of medjax.bin.train")
    try:
        about = json.loads((workdir / _VERSIONS).read_text())
    except (OSError, ValueError):
        about = {}
    if "terms" not in about:  # of a run from before they were kept
        return licence.of(manifests.read(workdir))
    return build(Licence, about["terms"], str(workdir / _VERSIONS))


def _with_absolute_folders(data: dict[str, Any]) -> dict[str, Any]:
    where = {k: absolute(data[k]) for k in ("dir", "source_dir") if data.get(k)}
    sets = {name: _with_absolute_folders(s) for name, s in data.get("mixture", {}).items()}
    return {**data, **where, **({"mixture": sets} if sets else {})}


def _check_same(experiment: Experiment, workdir: Path, dataset: Dataset) -> None:
    before, now = (_complete(c) for c in (json.loads((workdir / CONFIG).read_text()), experiment.resolved))
    cast = experiment.train.restore_cast
    different = [k for k in differences(before, now) if not (_is_free(k) or (cast and _PRECISION.fullmatch(k)))]
    if different:
        raise UserError(
            f"{workdir} holds a run with another {', '.join(different)}; use the same, or another --workdir"
        )
    if manifests.read(workdir).digest() != dataset.manifest.digest():
        raise UserError(f"{workdir} holds a run on other data than {dataset.directory}; use another --workdir")


def _complete(config: dict[str, Any]) -> dict[str, Any]:
    """As JSON, with the defaults of options that there were none of when the run started."""
    full = merge(defaults(), config)
    how = (build(cls, full[k], f"config.{k}") for k, cls in (("precision", Precision), ("blocks", BlockOptions)))
    return json.loads(json.dumps({**full, "method": with_computation(full["method"], *how)}))


def _is_free(key: str) -> bool:
    place = key.startswith("data.mixture.") and key.endswith((".dir", ".source_dir"))
    return place or key.startswith(_FREE) or bool(_BLOCKS.fullmatch(key)) or "_every_" in key


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """The dotted keys at which two nested dicts differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in sorted({*a, *b}) for d in differences(a.get(k), b.get(k), f"{where}.{k}" if where else k)]
    return [] if a == b else [where]
