"""Where a paper and its code disagree: the same small training both ways, on the phantom, and what comes out."""

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from medjax.data.building.build import Options, build_dataset
from medjax.data.sources import Phantom
from medjax.errors import UserError, check_choice
from medjax.evaluation.bootstrap import Interval, summarise
from medjax.evaluation.embeddings import embed_batches
from medjax.evaluation.retrieval import pairwise_retrieval
from medjax.evaluation.zero_shot import zero_shot
from medjax.methods.encoder import load_run
from medjax.training import loop
from medjax.training.experiment import with_defaults

log = logging.getLogger("medjax")

_PAIR = ("ecg", "text")
_THREE = ("ecg", "image", "text")

_IMAGE = ("gloria_local", "mgca_instance", "mgca_prototype", "mgca_token", "mil_nce", "mp_nce", "pc_align")
REQUIRED = {"gram": {"anchor": "text"}, **{name: {"image": "ecg"} for name in _IMAGE}}


@dataclass(frozen=True)
class Switch:
    """One option of one objective. ours and other: options of the objective in a recipe, that make the difference.

    beside: a further objective, for those that train no pooled embedding. sentences: how many of a report are items
    of their own, 0 for whole reports. devices: how many it needs to make a difference.
    """

    objective: str
    name: str
    modalities: tuple[str, ...]
    ours: dict[str, Any]
    other: dict[str, Any]
    beside: str = ""
    sentences: int = 0
    devices: int = 1


_BAGS = {"parts": {"ecg": "items", "text": "items"}}
_SENTENCES = {"parts": {"text": "items"}, "similarity": "pooled"}


def _patches(
    objective: str, name: str, change: dict[str, Any], both: Mapping[str, Any] = MappingProxyType({})
) -> Switch:
    """Of an objective between patches and the sentences of a report, beside the one that trains pooled embeddings.

    both: options of either side.
    """
    ours = {"parts": {"text": "items"}, **both}
    beside = "info_nce" if objective == "mp_nce" else "sigmoid"
    return Switch(objective, name, _PAIR, ours, {**ours, **change}, beside, sentences=8)


_CLAMPED, _CLASSES, _LEARNT = {"scale": 100.0}, {"prototypes": 10}, {"prototypes": 32}

SWITCHES = (
    Switch("info_nce", "mean over pairs | sum", _THREE, {}, {"reduction": "sum"}),
    Switch("more", "temperature fixed at 0.02 | learnt", _THREE, {}, {"learn_scale": True}),
    Switch("more", "report against the others | all pairs", _THREE, {}, {"others": True}),
    Switch("convirt", "lambda 0.75 | 0.5", _PAIR, {}, {"first_weight": 0.5}),
    Switch("convirt", "temperature fixed at 0.1 | learnt", _PAIR, {}, {"learn_scale": True}),
    Switch("gram", "gradient of both sides | released: one side a direction", _THREE, {}, {"stop_gradient": True}),
    Switch("gram", "floor 1e-6 under the root | 1e-12", _THREE, {}, {"eps": 1e-12}),
    Switch("gram", "scale from 100, clamped there | free", _THREE, _CLAMPED, {**_CLAMPED, "max_scale": 0.0}),
    Switch(
        "symile", "mip_scale none, scale from 4 | sqrt_d_power", _THREE, {"scale": 4.0}, {"mip_scale": "sqrt_d_power"}
    ),
    Switch(
        "symile", "shuffled negatives | all tuples", _THREE, {"scale": 4.0}, {"scale": 4.0, "negatives": "n_squared"}
    ),
    Switch("dhn_nce", "published | released", _PAIR, {}, {"variant": "released"}),
    Switch("soft_target", "label temperature 0.1 | published 1", _PAIR, {}, {"label_temperature": 1.0}),
    Switch("soft_target", "targets add up to one | released: not one way", _PAIR, {}, {"renormalise": False}),
    Switch("soft_target", "scale 14.3 | released 2.659", _PAIR, {}, {"scale": 2.659}),
    Switch("mil_nce", "normalised | released", _PAIR, _BAGS, {**_BAGS, "variant": "released"}),
    Switch(
        "mp_nce",
        "each sentence an answer | summed up first",
        _PAIR,
        _SENTENCES,
        {**_SENTENCES, "row_sum": True, "col_sum": True},
        sentences=8,
    ),
    _patches("mp_nce", "attention at the logit scale | at 1", {"attention_scale": 1.0}),
    _patches("mp_nce", "equal sentences are negatives | left out", {"same_sentence": "mask"}),
    _patches("mp_nce", "equal sentences are negatives | answers", {"same_sentence": "positive"}),
    _patches("pc_align", "shared concepts are answers | negatives", {"same_concept": "ignore"}),
    _patches("pc_align", "each concept asked | whole texts", {"asked": "text"}, {"same_concept": "ignore"}),
    _patches("pc_align", "best patch | log-sum-exp", {"pooling": "lse"}),
    Switch("multi_positive", "mean of logarithms | logarithm of mean", _PAIR, {}, {"form": "in"}),
    Switch("gloria_local", "released: sum over words | mean", _PAIR, {}, {"aggregate": "mean"}, "info_nce"),
    Switch(
        "mgca_token", "normalised, padding left out | released", _PAIR, {}, {"variant": "released"}, "mgca_instance"
    ),
    Switch(
        "mgca_prototype",
        "Sinkhorn over the mesh | on each of 4 devices",
        _PAIR,
        _LEARNT,
        {**_LEARNT, "sinkhorn": "local"},
        beside="mgca_instance",
        devices=4,
    ),
    Switch("prototype_contrast", "every other class | 5 drawn", _THREE, _CLASSES, {**_CLASSES, "negatives": 5}),
    Switch("triplet", "hardest negative | mean", _PAIR, {}, {"negatives": "mean"}),
)


@dataclass(frozen=True)
class Outcome:
    """What a training ended with, on the validation split: zero-shot AUROC over the findings that its modalities show,
    and recall at 10 from ECG to report, each with its bootstrap replicates over patients.
    """

    auroc: Interval
    auroc_replicates: np.ndarray
    recall: Interval
    recall_replicates: np.ndarray


@dataclass(frozen=True)
class Effect:
    """Both sides of a switch, and how much the other one is better, paired by patient."""

    switch: Switch
    ours: Outcome
    other: Outcome

    @property
    def auroc_gain(self) -> Interval:
        """Of the other side."""
        return summarise(self.other.auroc_replicates - self.ours.auroc_replicates)

    @property
    def recall_gain(self) -> Interval:
        """Of the other side."""
        return summarise(self.other.recall_replicates - self.ours.recall_replicates)

    def as_dict(self) -> dict[str, Any]:
        """JSON."""
        return {
            "objective": self.switch.objective,
            "switch": self.switch.name,
            "ours": {"auroc": self.ours.auroc.as_dict(), "recall": self.ours.recall.as_dict()},
            "other": {"auroc": self.other.auroc.as_dict(), "recall": self.other.recall.as_dict()},
            "gain": {"auroc": self.auroc_gain.as_dict(), "recall": self.recall_gain.as_dict()},
        }


def chosen(only: list[str]) -> list[Switch]:
    """The switches of the objectives named in `only`, by default all that the devices at hand are enough for.

    Raises:
      UserError: an objective without a switch, or one that needs more devices.
    """
    known = [s.objective for s in SWITCHES]
    for name in only:
        check_choice("--only", name, known)
    picked = [s for s in SWITCHES if not only or s.objective in only]
    few = [s for s in picked if s.devices > jax.device_count()]
    if few:
        names, most = ", ".join(s.objective for s in few), max(s.devices for s in few)
        hint = f"XLA_FLAGS=--xla_force_host_platform_device_count={most} makes {most} of a CPU"
        if only:
            raise UserError(f"--only={names} needs {most} devices, there are {jax.device_count()}; {hint}")
        log.warning("left out for want of devices: %s; %s", names, hint)
    return [s for s in picked if s not in few]


def measure(directory: Path, steps: int, switches: Iterable[Switch] = SWITCHES) -> Iterator[Effect]:
    """The effect of every switch; a training that two switches share is done once."""
    done: dict[str, Outcome] = {}
    data = directory / "data"
    if not (data / "manifest.json").is_file():
        build_dataset(Phantom(patients=800, size=32), data, Options(), lambda done, total: None)
    for switch in switches:
        sides = []
        for options in (switch.ours, switch.other):
            key = f"{switch.objective} {switch.modalities} {sorted(options.items())}"
            if key not in done:
                done[key] = _train(_recipe(data, switch, options, steps))
            sides.append(done[key])
        yield Effect(switch, *sides)


def _recipe(data: Path, switch: Switch, options: dict[str, Any], steps: int) -> ConfigDict:
    block = dict(width=48, depth=1, heads=4, pool="mean")
    modalities = dict(
        image=dict(size=32),
        ecg=dict(samples=1000, gain=0.1),
        text=dict(length=24 if switch.sentences else 72, sentences=switch.sentences),
    )
    towers = dict(
        image=dict(name="vit", patch=8, **block),
        ecg=dict(name="ecg_vit", patch=50, **block),
        text=dict(name="bert", positions=72, **block),
    )
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        dir=str(data),
        batch_size=64,
        cache=True,
        threads=0,
        modalities={m: modalities[m] for m in switch.modalities},
    )
    config.method = dict(
        name="contrastive",
        embed_dim=64,
        head=dict(centre=True),
        towers={m: towers[m] for m in switch.modalities},
        objectives={
            name: dict(modalities=switch.modalities, **REQUIRED.get(name, {}), **own)
            for name, own in {switch.objective: options, switch.beside: {}}.items()
            if name
        },
    )
    config.optimizer = dict(lr=1e-3, weight_decay=0.05, warmup_percent=10)
    config.train = dict(total_steps=steps, log_every_steps=steps, eval_every_steps=steps, checkpoint_every_steps=steps)
    return with_defaults(config)


def _train(config: ConfigDict) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        loop.run(config, Path(folder))
        encoder = load_run(Path(folder), "last")
    dataset = encoder.dataset()
    seen = set(encoder.modalities)
    findings = {k: f for k, f in dataset.manifest.findings.items() if f.seen_in and set(f.seen_in) <= seen}
    table = embed_batches(encoder.encode, dataset.evaluation("validation", 64), dataset.manifest.labels)
    found = zero_shot(table, encoder.embed_prompts(findings), findings, encoder.scorer())
    retrieved = {r.name: r for r in pairwise_retrieval(table)}["ecg_to_text"]
    return Outcome(found.macro, found.macro_replicates, retrieved.recall[10], retrieved.recall_replicates[10])
