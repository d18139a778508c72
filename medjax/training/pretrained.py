"""Towers that start from folders of published weights.

What a recipe leaves to a folder is settled once, when a run starts, and recorded in the run with a copy of the
tokenizer. Whoever goes on with the run, evaluates or exports it needs no folder again.
"""

import dataclasses
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medjax.convert.adapt import adapted
from medjax.convert.pretrained import load_pretrained
from medjax.data import DataConfig, Dataset
from medjax.data import manifest as manifests
from medjax.data import tokenizer as tok
from medjax.data.records import decode_text
from medjax.errors import UserError
from medjax.methods.encoder import CONFIG
from medjax.models import TOWERS
from medjax.models.pair import Pair
from medjax.models.sizes import with_variant
from medjax.training.experiment import Experiment
from medjax.training.precision import COMPUTED, with_computation
from medjax.training.rundir import differences

log = logging.getLogger("medjax")

# What a recipe may set beside a folder: how a tower is trained, computed and pooled. All else is the folder's.
_FREE = (
    *("dropout", "drop_path", "drop_key", "drop_key_schedule", "patch_dropout", "lora"),
    *COMPUTED,
    *("pool", "pooler", "frozen_statistics"),
)
_SPARE_ROWS = 128  # tables of words are rounded up to a multiple of up to this
_PROBED = 200


def settle(experiment: Experiment, workdir: Path) -> Experiment:
    """The experiment with explicit options in the place of folders: those that `workdir` recorded if it holds the run
    already, else those of the folders.

    Raises:
      UserError: a folder that cannot be read or does not fit its modality, options that contradict it, a tokenizer with
        another vocabulary, or a run that was started with other options.
    """
    towers = {m: t for m, t in experiment.method.get("towers", {}).items() if t.get("pretrained")}
    tokenizers = {m: {"tokenizer": o["tokenizer"]} for m, o in experiment.data.modalities.items() if o.get("tokenizer")}
    if not towers and not tokenizers:
        return experiment
    given = {"method": {"towers": towers}, "data": {"modalities": tokenizers}}
    if (workdir / CONFIG).exists():
        data, explicit = _recorded(experiment, given, workdir)
    else:
        data = _with_tokenizer(experiment.data, towers)
        specs = {m: t.spec() for m, t in Dataset.open(data).transforms.items()}
        explicit = {m: _explicit(m, t, specs[m], data) for m, t in towers.items() if m in specs}
    # How a tower computes is said by the recipe, and not by who published it.
    explicit = {m: {k: v for k, v in t.items() if k not in COMPUTED or k in towers[m]} for m, t in explicit.items()}
    method = {**experiment.method, "towers": {**experiment.method["towers"], **explicit}}
    method = with_computation(method, experiment.precision, experiment.blocks)
    # The run's own copy of the tokenizer is where every reader of the run looks first.
    modalities = {m: {k: v for k, v in o.items() if k != "tokenizer"} for m, o in data.modalities.items()}
    resolved = experiment.resolved
    resolved = {**resolved, "method": method, "data": {**resolved["data"], "modalities": modalities}, "given": given}
    folders = {m: t["pretrained"] for m, t in towers.items()}
    return dataclasses.replace(experiment, data=data, method=method, resolved=resolved, pretrained=folders)


def _recorded(experiment: Experiment, given: Mapping[str, Any], workdir: Path) -> tuple[DataConfig, dict[str, Any]]:
    record = json.loads((workdir / CONFIG).read_text())
    different = differences(record.get("given", {}), json.loads(json.dumps(given)))
    if different:
        raise UserError(
            f"{workdir} holds a run with another {', '.join(different)}; use the same, or another --workdir"
        )
    texts = [m for m in experiment.data.modalities if manifests.read(workdir).modality(m).kind == "text"]
    data = _reading(experiment.data, texts, workdir / tok.FOLDER)
    return data, {m: record["method"]["towers"][m] for m in given["method"]["towers"]}


def _with_tokenizer(data: DataConfig, towers: Mapping[str, Mapping[str, Any]]) -> DataConfig:
    """All texts read with the tokenizer that is given, or that lies with the weights of a text tower."""
    texts = [m for m, t in Dataset.open(data).transforms.items() if t.kind == "text"]
    folders = {m: data.modalities[m].get("tokenizer", "") for m in texts}
    for m in texts:
        if not folders[m] and m in towers and tok.has_tokenizer(towers[m]["pretrained"]):
            folders[m] = towers[m]["pretrained"]
    chosen = sorted({str(folder) for folder in folders.values() if folder})
    if len(chosen) > 1:
        raise UserError(
            f"the texts of a run share one tokenizer, and {' and '.join(chosen)} are named; set the same "
            "config.data.modalities.<name>.tokenizer for all"
        )
    return _reading(data, texts, Path(chosen[0])) if chosen else data


def _reading(data: DataConfig, texts: list[str], tokenizer: Path) -> DataConfig:
    modalities = {m: {**o, "tokenizer": str(tokenizer)} if m in texts else o for m, o in data.modalities.items()}
    return dataclasses.replace(data, modalities=modalities)


def _explicit(modality: str, given: Mapping[str, Any], spec: Mapping[str, Any], data: DataConfig) -> dict[str, Any]:
    """The folder's options with those given laid over them."""
    where, folder = f"config.method.towers.{modality}", given["pretrained"]
    config = load_tower(modality, folder, spec)[0].config
    published = {k: v for k, v in dataclasses.asdict(config).items() if k != "variant"}
    options = with_variant(given.get("name", config.name), given, where)
    options = {k: v for k, v in options.items() if k not in ("pretrained", "variant")}
    wrong = [
        f"{k}={v!r} where it has {published[k]!r}"
        for k, v in options.items()
        if k in published and k not in _FREE and json.dumps(v) != json.dumps(published[k])
    ]
    if wrong:
        raise UserError(f"{where} contradicts the weights in {folder}: {', '.join(wrong)}; leave these options out")
    if spec["kind"] == "text":
        _check_text(modality, spec, published, folder, data.modalities[modality].get("tokenizer") or "the data set's")
    return published | options


def _check_text(
    modality: str, spec: Mapping[str, Any], published: Mapping[str, Any], folder: str, tokenizer: str
) -> None:
    size, rows, where = spec["vocab_size"], published["vocab_size"], f"config.data.modalities.{modality}"
    if not 0 <= rows - size < _SPARE_ROWS:
        raise UserError(
            f"the tokenizer ({tokenizer}) has a vocabulary of {size} and the weights in {folder} are for {rows}; set "
            f"{where}.tokenizer to the folder of the tokenizer they were trained with"
        )
    if spec["length"] > published["positions"]:
        raise UserError(
            f"{where}.length={spec['length']} exceeds the {published['positions']} positions of the weights in "
            f"{folder}; lower it"
        )


def load_tower(modality: str, folder: str, spec: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Module and variables of a modality's tower from a folder, or of its side of a pair, for pictures as they are
    preprocessed: positions on their grid, a stem of one channel for grey ones.

    Raises:
      UserError: it cannot be read, or encodes another kind of modality.
    """
    kind = spec["kind"]
    module, variables = load_pretrained(folder)
    if isinstance(module, Pair):
        kinds = ("image", "text")
        if kind in kinds:
            module, variables = getattr(module, kind), {k: v[kind] for k, v in variables.items() if kind in v}
    else:
        kinds = TOWERS[module.config.name][2][:1]  # of published encoders; those of pictures know no place of a slice
    if kind not in kinds:
        raise UserError(
            f"config.method.towers.{modality}: {folder} encodes {' and '.join(kinds)}, and {modality} is {kind}; give "
            "another folder"
        )
    if kind == "image":
        return adapted(module, variables, spec["size"], 1 if spec["channels"] == 1 else None)
    return module, variables


def published_weights(
    folders: Mapping[str, str], specs: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """What `take_weights` takes: `(params, state)` of the towers in folders, and the pattern of their paths."""
    found = {m: load_tower(m, folder, specs[m])[1] for m, folder in folders.items()}
    stats = {m: v["batch_stats"] for m, v in found.items() if "batch_stats" in v}
    include = f"towers/({'|'.join(map(re.escape, folders))})/.*"
    return {"towers": {m: v["params"] for m, v in found.items()}}, {"batch_stats": stats}, include


def probe_tokenizer(dataset: Dataset) -> None:
    """Says how well a tokenizer that was brought along knows the first training texts."""
    for m, transform in dataset.transforms.items():
        if transform.kind != "text" or not transform.config.tokenizer:
            continue
        records = range(min(_PROBED, len(dataset.source("train"))))
        items = (x for found in dataset.raw_items("train", records) for x in found[m])
        texts = [decode_text(x) for x in items]
        pieces = sum(len(transform.tokenizer.encode(t, add_special_tokens=False).ids) for t in texts)
        words = sum(len(t.split()) for t in texts)
        share = tok.unknown_share(transform.tokenizer, texts)
        log.info("%s: %.2f pieces a word in %d training texts, %.1f %% unknown", m, pieces / max(words, 1), len(texts),
                 100 * share)  # fmt: skip
        if share > tok.MAX_UNKNOWN:
            log.warning(
                "%s: the tokenizer does not know %.0f %% of the pieces; is it of this language?", m, 100 * share
            )
