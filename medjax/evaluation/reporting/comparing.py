"""Which results measure the same thing of several models, and whether they did so on the same examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medjax.evaluation.reporting.gathering import Evaluation
from medjax.evaluation.reporting.reading import Key, Measurement
from medjax.evaluation.reporting.vocabulary import SECTIONS

_SETTINGS = ("rule", "recipe", "rules", "settings", "prompts_sha256")


@dataclass(frozen=True)
class SideBySide:
    """Models on the same examples. section: of the results. scores: `{key: {model: its measurement}}`, each key of at
    least two models. differ: settings that are not the same for all of them."""

    section: str
    data: str
    split: str
    examples: int
    models: tuple[str, ...]
    scores: Mapping[Key, Mapping[str, Measurement]]
    differ: tuple[str, ...]


def side_by_side(read: Sequence[tuple[Evaluation, Sequence[Measurement]]]) -> list[SideBySide]:
    """What can be compared. read: evaluations, each with the measurements that matter."""
    names = labels([e for e, _ in read])
    scores: dict[tuple[str, str], dict[Key, dict[str, Measurement]]] = {}
    for e, found in read:
        for m in found:
            scores.setdefault((_list(e), m.key[0]), {}).setdefault(m.key, {})[names[e.path]] = m
    out = []
    for (digest, name), of in scores.items():
        of = {k: v for k, v in of.items() if len(v) > 1}
        if of:
            used = [e for e, found in read if _list(e) == digest and any(m.key in of for m in found)]
            models, data = tuple(dict.fromkeys(m for v in of.values() for m in v)), used[0].data
            out.append(SideBySide(name, data["name"], data["split"], data["examples"], models, of, _differ(used)))
    return out


def labels(evaluations: Sequence[Evaluation]) -> dict[Path, str]:
    """`{path: model}`; with the folder where two files hold the same section of a model on the same examples."""
    out = {}
    for e in evaluations:
        twin = any(
            e is not x and e.model == x.model and _list(e) == _list(x) and _sections(e) & _sections(x)
            for x in evaluations
        )
        out[e.path] = f"{e.model} in {e.name}" if twin else e.model
    return out


def _list(e: Evaluation) -> str:
    return e.data["example_list_sha256"]


def _sections(e: Evaluation) -> set[str]:
    return set(e.measured) & set(SECTIONS)


def not_comparable(read: Sequence[tuple[Evaluation, Sequence[Measurement]]]) -> list[str]:
    """A sentence for each data set of which several models were scored on different examples."""
    groups: dict[tuple[str, Key], dict[str, set[str]]] = {}
    for e, found in read:
        for m in found:
            group = groups.setdefault((f"{e.data['name']}, {e.data['split']} split", m.key), {})
            group.setdefault(_list(e), set()).add(e.model)
    lists: dict[str, dict[str, set[str]]] = {}
    for (where, _), of in groups.items():
        if len(of) > 1:
            for sha, models in of.items():
                lists.setdefault(where, {}).setdefault(sha, set()).update(models)
    out = []
    for where, of in lists.items():
        shown = "; ".join(f"list {sha[:8]}: {', '.join(sorted(models))}" for sha, models in sorted(of.items()))
        out.append(f"Not comparable on {where}: the examples that were scored differ ({shown}).")
    return out


def _differ(used: Sequence[Evaluation]) -> tuple[str, ...]:
    """Settings that are not the same in all of these files."""
    return tuple(k for k in _SETTINGS if any(e.measured.get(k) != used[0].measured.get(k) for e in used))
