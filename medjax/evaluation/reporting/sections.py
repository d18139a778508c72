"""The parts of the page below its opening: evaluations, models side by side, and examples."""

from collections.abc import Sequence

import numpy as np

from medjax.evaluation.bootstrap import Interval
from medjax.evaluation.page import Page
from medjax.evaluation.reporting.comparing import labels, not_comparable, side_by_side
from medjax.evaluation.reporting.drawing import beside_controls, models_beside
from medjax.evaluation.reporting.examples import examples
from medjax.evaluation.reporting.gathering import Evaluation
from medjax.evaluation.reporting.opening import Read
from medjax.evaluation.reporting.reading import Measurement, headlines, paired
from medjax.evaluation.reporting.vocabulary import MARKS, METRICS, control, ranked, section, spoken

_MOST = 400
Table = tuple[tuple[str, ...], list[tuple]]


def shown(interval: Interval | None) -> str:
    """Value and bounds as a table shows them."""
    if interval is None or not np.isfinite(interval.value):
        return "-"
    if not np.isfinite(interval.low):
        return f"{interval.value:.3f}"
    return str(interval)


def beats(m: Measurement) -> str:
    """Whether the whole interval is better than the strongest control, in words."""
    if m.clears is None:
        return "no control" if m.metric.better else "-"
    return f"yes ({m.strongest[0]})" if m.clears else f"not shown ({m.strongest[0]})"


def score_table(found: Sequence[Measurement]) -> Table:
    """what | score | value | a column for each control | whether the strongest is beaten."""
    names = ranked(k for m in found for k in m.controls)
    header = ("what", "score", "value [95 %]", *(control(k)[0] for k in names), "better than its controls?")
    rows = [
        (
            *(m.what, m.metric.title, shown(m.interval)),
            *(_number(m.controls[k].value) if k in m.controls else "-" for k in names),
            beats(m),
        )
        for m in found
    ]
    return header, rows


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


def sentence(found: Sequence[Measurement]) -> str:
    """How to read the scores of a section, and how many of them mean something."""
    first = found[0]
    words = list(dict.fromkeys(m.metric.says for m in found))
    if first.key[-1] in ("auroc", "macro_auroc") and np.isfinite(first.interval.value):
        words.append(f"For {first.what} that is {100 * first.interval.value:.0f} of 100 such pairs.")
    judged = [m for m in found if m.clears is not None]
    if judged:
        good = [m for m in judged if m.clears]
        missed = [m.what for m in judged if not m.clears]
        count = len(good) or "none"
        words.append(f"Of {len(judged)} scores {count} lie with their whole interval beyond the strongest control")
        words[-1] += f"; not so: {', '.join(dict.fromkeys(missed))}." if missed else "."
    return " ".join(w for w in words if w)


def at_a_glance(page: Page, read: Read) -> None:
    """One row for each section of each evaluation: its mean or the range of its scores, and how many beat controls."""
    names, rows = labels([e for e, _ in read]), []
    for e, found in read:
        for name, of in headlines(list(found)).items():
            judged = [m for m in of if m.clears is not None]
            good = f"{sum(m.clears for m in judged)} of {len(judged)}" if judged else "no control"
            rows.append((section(name).title, names[e.path], e.data["name"], *_one(of), good))
    page.heading("At a glance")
    page.text(
        "The last column counts the scores whose whole interval is better than the strongest of their controls. Where "
        "a section has no mean, the lowest and the highest of its scores are given; their intervals are below."
    )
    header = ("what", "model", "data", "score", "value [95 %]", "strongest control", "better than their controls")
    page.table(header, rows)


def _one(of: Sequence[Measurement]) -> tuple[str, str, str]:
    """Metric, value and strongest control of a section: of its mean if it has one, else the range over its scores."""
    means = [m for m in of if m.key[-1].startswith("macro_") or m.key[-2] in ("mean", "all together", "all findings")]
    if len(of) == 1 or len(means) == 1:
        m = (means or list(of))[0]
        best = f"{m.strongest[0]} {m.strongest[1]:.3f}" if m.strongest else "-"
        return f"{m.metric.title}, {m.what}", shown(m.interval), best
    same = [m for m in of if m.metric == of[0].metric and np.isfinite(m.interval.value)]
    values, best = [m.interval.value for m in same], [m.strongest[1] for m in same if m.strongest]
    span = f"{min(values):.3f} to {max(values):.3f}" if values else "-"
    return f"{of[0].metric.title}, {len(same)} scores", span, f"{min(best):.3f} to {max(best):.3f}" if best else "-"


def evaluation(page: Page, e: Evaluation, found: Sequence[Measurement], level_title: str) -> None:
    """A section for one results.json."""
    page.heading(level_title)
    data = e.data
    page.small(
        f"{e.model}; {data['name']}, {data['split']} split, {data['examples']} studies; intervals: "
        f"{e.content['intervals']}; the split had been opened {_times(data['times_opened'])} by then"
    )
    opened = headlines(list(found))
    for name, of in opened.items():
        page.heading(section(name).title, 3)
        if section(name).asks:
            page.text(section(name).asks)
        page.text(sentence(of))
        page.table(*score_table(of))
        same = [m for m in of if _base(m) == _base(of[0])]
        page.figure(beside_controls(same), _caption(name, same))
    if not found:
        page.text("This file holds no interval.")
    _differences(page, e)
    _rest(page, [m for m in found if not any(m in of for of in opened.values())])
    _skipped(page, e)
    _examples(page, e)


def _times(count: int | None) -> str:
    return "an unknown number of times" if count is None else "once" if count == 1 else f"{count} times"


def _base(m: Measurement) -> str:
    return m.key[-1].removeprefix("macro_")


def _caption(name: str, of: Sequence[Measurement]) -> str:
    best = "; ".join(f"{m.what} {shown(m.interval)}" for m in of[:4])
    more = f" and {len(of) - 4} more" if len(of) > 4 else ""
    return (
        f"{section(name).title}: {of[0].metric.title} beside its controls. {best}{more}; values are in the table above"
    )


def _differences(page: Page, e: Evaluation) -> None:
    found = paired(e)
    if not found:
        return
    place = e.content.get("against")
    other = place.get("place") if isinstance(place, dict) else None
    page.heading("Paired differences", 3)
    page.text(
        "Both sides are scored on the same patients, and each repetition draws the same ones for both. A difference "
        "whose interval holds 0 is not resolvable on this data." + (f" The other model is {other}." if other else "")
    )
    rows = [(p.what, shown(p.interval), p.verdict) for p in found]
    page.table(("difference", "value [95 %]", "in words"), rows[:16])
    if len(rows) > 16:
        page.details(f"{len(rows) - 16} more differences", ("difference", "value [95 %]", "in words"), rows[16:_MOST])


def _rest(page: Page, found: Sequence[Measurement]) -> None:
    """Everything else, in tables that open at a click and are printed."""
    parts: dict[str, list[Measurement]] = {}
    for m in found:
        parts.setdefault(m.key[0], []).append(m)
    for name, of in parts.items():
        page.details(f"{section(name).title}: {len(of)} more numbers", *score_table(of[:_MOST]))
        if len(of) > _MOST:
            page.text(f"{len(of) - _MOST} more are in results.json.")


def _skipped(page: Page, e: Evaluation) -> None:
    rows = [
        (spoken(k), why)
        for part in ("skipped", "not_measured", "left_out")
        for k, why in _strings(e.measured.get(part))
    ]
    if rows:
        page.heading("Not measured", 3)
        page.table(("what", "why"), rows)


def _strings(node) -> list[tuple[str, str]]:
    return [(k, v) for k, v in node.items() if isinstance(v, str)] if isinstance(node, dict) else []


def _examples(page: Page, e: Evaluation) -> None:
    if e.data["sensitive"]:
        page.text("Examples are not shown here: the data set is marked sensitive.")
        return
    rows = examples(e.path.with_name("report.html"))
    if not rows:
        return
    page.heading("Examples right and wrong", 3)
    page.text("As the evaluation chose them: a green frame is right. They show single studies and prove nothing.")
    for row in rows:
        page.heading(row.heading.replace("_", " "), 4)
        page.cards(row.cards)


def comparison(page: Page, read: Read) -> None:
    """Models side by side where the examples are the same, and a warning where they are not."""
    main = [(e, [m for of in headlines(list(found)).values() for m in of]) for e, found in read]
    groups, warnings = side_by_side(main), not_comparable(main)
    if not groups and not warnings:
        return
    page.heading("Models side by side")
    for warning in warnings:
        page.note(warning)
    if groups:
        page.text(
            "Intervals that overlap do not say that models are equal, nor the reverse; a paired difference does, where "
            "an evaluation was given another model to stand against: it is in its own part below."
        )
    for g in groups:
        page.heading(f"{section(g.section).title}: {g.data}, {g.split} split, the same {g.examples} studies", 3)
        if g.differ:
            page.note(f"What was asked differs between them: {', '.join(spoken(k) for k in g.differ)}.")
        rows = [
            (*_of_first(of), *(shown(of[m].interval) if m in of else "-" for m in g.models))
            for k, of in g.scores.items()
        ]
        page.table(("what", "score", "strongest control", *g.models), rows)
        base = _base(next(iter(next(iter(g.scores.values())).values())))
        same = [of for k, of in g.scores.items() if k[-1].removeprefix("macro_") == base]
        drawn = [(next(iter(of.values())).what, {m: x.interval for m, x in of.items()}) for of in same]
        label = METRICS[base].title
        page.figure(models_beside(drawn, g.models, label), f"{label} of {', '.join(g.models)}; 95 % intervals")


def _of_first(of) -> tuple[str, str, str]:
    """what, metric and the strongest control over models."""
    ms = list(of.values())
    best = [m.strongest for m in ms if m.strongest]
    top = max(best, key=lambda b: b[1] * ms[0].metric.better) if best else None
    return ms[0].what, ms[0].metric.title, f"{top[0]} {top[1]:.3f}" if top else "-"


def legend(page: Page, read: Read) -> None:
    """What the controls are, in words."""
    used = ranked(k for _, found in read for m in found for k in m.controls)
    rows: dict[str, tuple[str, str, str]] = {}
    for k in used:
        rows.setdefault(control(k)[0], (*control(k), "a mark to reach" if k in MARKS else "to be beaten"))
    page.heading("The controls")
    page.table(("control", "what it is", "how to take it"), list(rows.values()))
