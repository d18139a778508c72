"""Measurements out of a results.json of any program: every interval, with the controls that stand beside it.

A control is found by its place. Inside a part of the results stand `chance` and `controls/NAME`, with the keys of the
part, and where there is `trained`, its siblings are its controls. `controls/NAME` at the top holds the measurement's
keys from the first, the second or the third on. `labels/X` is `findings/X/auroc`, and `auprc/X` is `X/auprc`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medjax.evaluation.bootstrap import Interval, verdict
from medjax.evaluation.reporting.gathering import Evaluation
from medjax.evaluation.reporting.vocabulary import MARKS, METRICS, Metric, control, ranked, section, spoken

Key = tuple[str, ...]
_STRUCTURE = ("trained", "labels", "findings", "joint_findings", "levels", "kinds")
_WORDS = {"clean": "intact", "full": "nothing missing", "emm": "whole modalities missing", "rmm": "missing at random"}
_PAIRED = ("against", "gain", "difference", "differences", "synergy", "interaction", "pointing_above_chance")
_INNER = ("by_modality", "choice_of_ten", "by_seed", "emm", "rmm")


@dataclass(frozen=True)
class Measurement:
    """key: names from the section on, the metric last. controls: `{name: its value}`; see `vocabulary`."""

    key: Key
    interval: Interval
    controls: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def metric(self) -> Metric:
        """What its last name says."""
        return METRICS.get(self.key[-1]) or Metric(spoken(self.key[-1]))

    @property
    def what(self) -> str:
        """Its names in words, without section and metric."""
        whole = "mean of findings" if self.key[-1].startswith("macro_") else "as a whole"
        return ", ".join(_WORDS.get(k) or spoken(k) for k in self.key[1:-1]) or whole

    @property
    def strongest(self) -> tuple[str, float] | None:
        """(name, value) of the control that is hardest to beat, marks apart; None without controls or a direction."""
        known = {k: c.value for k, c in self.controls.items() if k not in MARKS and np.isfinite(c.value)}
        if not known or not self.metric.better:
            return None
        name = max(known, key=lambda k: known[k] * self.metric.better)
        return control(name)[0], known[name]

    @property
    def clears(self) -> bool | None:
        """Whether the whole interval is better than the strongest control; None where that cannot be said."""
        best = self.strongest
        bound = self.interval.low if self.metric.better > 0 else self.interval.high
        if best is None or not np.isfinite(bound):
            return None
        return bool((bound - best[1]) * self.metric.better > 0)


@dataclass(frozen=True)
class Paired:
    """A difference on the same examples. key: as in `Measurement`. verdict: in words."""

    key: Key
    interval: Interval
    verdict: str

    @property
    def what(self) -> str:
        """Its names in words."""
        names = [k for k in self.key if k not in ("against", "difference", "differences", "gain", *_STRUCTURE)]
        return ", ".join(METRICS[k].title if k in METRICS else spoken(k) for k in names)


def measurements(evaluation: Evaluation) -> list[Measurement]:
    """Every interval below the head that is neither a control nor a difference, in the order of the file."""
    found: dict[Key, Interval] = {}
    near: dict[Key, dict[str, Interval]] = {}
    for name, part in evaluation.measured.items():
        if not _is_paired(name):
            _walk(part, (name,), "", found, near)
    far = {
        name: {_normal(p, ""): v for p, v in _numbers(part, ())}
        for name, part in (evaluation.content.get("controls") or {}).items()
    }
    out = []
    for key, interval in found.items():
        controls = {k: v for k, of in far.items() if (v := _beside(of, key))} | near.get(key, {})
        metric = METRICS.get(key[-1])
        if metric and metric.chance is not None:
            controls = {"chance": _plain(metric.chance)} | controls
        out.append(Measurement(key, interval, {k: controls[k] for k in ranked(controls)}))
    return out


def paired(evaluation: Evaluation) -> list[Paired]:
    """Every difference that the results hold, of two models or of a model and its control."""
    return [
        Paired(path, Interval.of({k: node[k] for k in ("value", "low", "high")}), said)
        for name, part in evaluation.measured.items()
        for path, node, said in _differences(part, (name,), _is_paired(name) and name != "against")
    ]


def headlines(found: list[Measurement]) -> dict[str, list[Measurement]]:
    """`{section: measurements that open it}`, at most 16 each: means where there are too many."""
    out: dict[str, list[Measurement]] = {}
    for m in found:
        inner = any(k in _INNER or k.isdecimal() or k.startswith("p=") for k in m.key)
        if m.metric.headline and not section(m.key[0]).detail and not inner:
            out.setdefault(m.key[0], []).append(m)
    for name, of in out.items():
        if len(of) > 16:
            out[name] = [m for m in of if m.key[-1].startswith("macro_") or "mean" in m.key] or of
    return {k: of[:16] for k, of in out.items()}


def _is_paired(name: str) -> bool:
    return name in _PAIRED or "gain_over" in name


def _is_interval(node: Any) -> bool:
    return isinstance(node, Mapping) and {"value", "low", "high"} <= set(node)


def _plain(value: float) -> Interval:
    return Interval(float(value), float("nan"), float("nan"))


def _interval(node: Any) -> Interval | None:
    """Of an interval object or a bare number."""
    if _is_interval(node):
        return Interval.of({k: node[k] for k in ("value", "low", "high")})
    number = isinstance(node, int | float) and not isinstance(node, bool)
    return _plain(node) if number else None


def _numbers(node: Any, path: Key) -> Iterator[tuple[Key, Interval]]:
    """Intervals and bare numbers, of controls."""
    if value := _interval(node):
        yield path, value
    elif isinstance(node, Mapping):
        for k, v in node.items():
            yield from _numbers(v, (*path, k))


def _walk(node: Any, path: Key, metric: str, found: dict[Key, Interval], near: dict[Key, dict[str, Interval]]) -> None:
    """Fills `found` and `near`. metric: the name that a node above gives to what is below it."""
    if isinstance(node, list):
        for i, item in enumerate(_named(node)):
            _walk(item[1], (*path, item[0] or str(i)), metric, found, near)
        return
    if not isinstance(node, Mapping):
        return
    if _is_interval(node):
        key = _own(path, metric)
        found[key] = _interval(node)
        if isinstance(node.get("by_chance"), int | float):
            near.setdefault(key, {})["by_chance"] = _plain(node["by_chance"])
        return
    if isinstance(node.get("metric"), str):
        metric = node["metric"].replace(" ", "_").lower()
    beside = {**_mapping(node.get("controls")), **{k: node[k] for k in ("chance",) if k in node}}
    if isinstance(node.get("trained"), Mapping):
        beside |= {k: v for k, v in node.items() if k != "trained"}
        node = {"trained": node["trained"]}
    for name, part in beside.items():
        for below, value in _numbers(part, ()):
            near.setdefault(_own((*path, *(below or ("clean",))), metric), {})[name] = value
            if not below:
                near.setdefault(_own((*path, "full"), metric), {})[name] = value
    for k in [k for k in node if k.endswith("_chance") and _is_interval(node[k])]:
        near.setdefault(_own((*path, k.removesuffix("_chance")), metric), {})["chance"] = _interval(node[k])
    if {"positives", "negatives", "auprc"} <= set(node):
        share = node["positives"] / max(1, node["positives"] + node["negatives"])
        near.setdefault(_own((*path, "auprc"), metric), {})["chance"] = _plain(share)
    for k, v in node.items():
        if k not in ("controls", "chance") and not _is_paired(k) and not k.endswith("_chance"):
            _walk(v, (*path, k), metric, found, near)


def _mapping(node: Any) -> Mapping[str, Any]:
    return node if isinstance(node, Mapping) else {}


def _named(items: list) -> Iterator[tuple[str, Any]]:
    """Items of a list under names: of what they say of themselves. Those whose `features` are not the encoder's are
    controls of the one whose are."""
    for item in items:
        said = [v for k, v in _mapping(item).items() if isinstance(v, str) and k not in ("features", "verdict")]
        said += [f"{k} {v:g}" for k, v in _mapping(item).items() if k == "lambda"]
        if "features" in _mapping(item):
            if item["features"] != "encoder":
                continue
            others = [
                x
                for x in items
                if all(x.get(k) == v for k, v in item.items() if isinstance(v, str) and k != "features")
                and x is not item
            ]
            item = {**item, "controls": {x["features"]: {"dice": x["dice"]} for x in others}}
        yield ", ".join(said), item


def _normal(path: Key, metric: str) -> Key:
    """Names with the metric last, without words that only give structure."""
    names = [k for k in path if k not in _STRUCTURE]
    at = next((i for i in reversed(range(len(names))) if names[i] in METRICS), None)
    if at is not None:
        last = names.pop(at)
    elif "labels" in path or "by_modality" in path:
        last = "auroc"
    elif metric:
        last = metric
    else:
        last = names.pop() if names else ""
    if names and names[-1] == "macro":
        names, last = names[:-1], last if last.startswith("macro_") else f"macro_{last}"
    return (*names, last)


def _own(path: Key, metric: str) -> Key:
    """The same of a measurement: its section stays first, even where its name gives structure elsewhere."""
    return (path[0], *_normal(path[1:], metric if "labels" not in path[:1] else "auroc"))


def _beside(of: Mapping[Key, Interval], key: Key) -> Interval | None:
    """A control's value for a measurement's key."""
    for skip in range(min(3, len(key))):
        if key[skip:] in of:
            return of[key[skip:]]
    if key[-1].startswith("macro_"):
        for skip in range(2):
            plain = (*key[skip:-1], key[-1].removeprefix("macro_"))
            if len(plain) > 1 and plain in of:
                return of[plain]
    return None


def _differences(node: Any, path: Key, inside: bool) -> Iterator[tuple[Key, Mapping[str, Any], str]]:
    if isinstance(node, list):
        for i, item in enumerate(node):
            said = [v for k, v in _mapping(item).items() if isinstance(v, str) and k != "verdict"]
            yield from _differences(item, (*path, " less ".join(said) or str(i)), inside)
    elif _is_interval(node):
        if inside:
            yield path, node, node.get("verdict") or verdict(_interval(node))
    elif isinstance(node, Mapping):
        said = node.get("verdict")
        for k, v in node.items():
            if k == "controls":
                continue
            here = inside or (_is_paired(k) and k != "against")
            for p, found, words in _differences(v, (*path, k), here):
                yield p, found, said if isinstance(said, str) and len(p) == len(path) + 1 else words
