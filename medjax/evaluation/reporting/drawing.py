"""Figures of scores beside their controls, and of models side by side."""

from collections.abc import Mapping, Sequence

import numpy as np

from medjax.evaluation.bootstrap import Interval
from medjax.evaluation.figures import one_axis, png, style
from medjax.evaluation.reporting.reading import Measurement
from medjax.evaluation.reporting.vocabulary import MARKS, METRICS, control, ranked

_COLORS = ("#1f5fa8", "#d1731c", "#2e8b57", "#8a4fa3", "#b5402f", "#5b5b5b")
_MARKERS = ("o", "s", "D", "^", "v", "P")
_SIGNS = {"chance": ("|", "#b5402f"), "by_chance": ("|", "#b5402f"), "untrained": ("x", "#5b5b5b")}
_MORE = (("v", "#8a4fa3"), ("^", "#d1731c"), ("<", "#2e8b57"), (">", "#777777"), ("d", "#a0522d"), ("P", "#333333"))


def beside_controls(found: Sequence[Measurement]) -> bytes:
    """Points with their intervals, one a row, and the controls' values as signs of their own; all of one metric."""
    names = ranked(k for m in found for k in m.controls)
    others = iter(_MORE)
    signs = {k: _SIGNS.get(k) or next(others, _MORE[-1]) for k in names}
    with style():
        figure, axis = one_axis((6.6, 0.9 + 0.3 * len(found)))
        y = np.arange(len(found))[::-1]
        _points(axis, y, [m.interval for m in found], _COLORS[0], "o", "model, with its 95 % interval")
        for k in names:
            marker, color = signs[k]
            at = [(m.controls[k].value, row) for m, row in zip(found, y, strict=True) if k in m.controls]
            label = control(k)[0] + (" (to reach)" if k in MARKS else "")
            x, rows = zip(*at, strict=True)
            axis.plot(x, rows, marker, color=color, ms=11 if marker == "|" else 6, mew=1.6, mfc="none", label=label)
        _finish(axis, y, [m.what for m in found], METRICS[found[0].key[-1].removeprefix("macro_")].title)
        return png(figure)


def models_beside(scores: Sequence[tuple[str, Mapping[str, Interval]]], models: Sequence[str], label: str) -> bytes:
    """Intervals of several models, one group of rows for each score."""
    with style():
        step = 0.8 / max(1, len(models))
        figure, axis = one_axis((6.6, 0.9 + len(scores) * max(0.3, 0.17 * len(models))))
        y = np.arange(len(scores))[::-1].astype(float)
        for i, model in enumerate(models):
            rows = [(row, of[model]) for row, (_, of) in zip(y, scores, strict=True) if model in of]
            if rows:
                at = np.array([row for row, _ in rows]) + step * ((len(models) - 1) / 2 - i)
                color, marker = _COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)]
                _points(axis, at, [v for _, v in rows], color, marker, model)
        _finish(axis, y, [name for name, _ in scores], label)
        return png(figure)


def _points(axis, y: np.ndarray, intervals: Sequence[Interval], color: str, marker: str, label: str) -> None:
    value = np.array([i.value for i in intervals])
    low, high = (np.array([getattr(i, k) for i in intervals]) for k in ("low", "high"))
    axis.hlines(y, np.where(np.isfinite(low), low, value), np.where(np.isfinite(high), high, value), color=color, lw=2)
    axis.plot(value, y, marker, color=color, ms=5, label=label)


def _finish(axis, y: np.ndarray, names: Sequence[str], label: str) -> None:
    axis.set_yticks(y, names)
    axis.set_ylim(-0.7, len(names) - 0.3)
    axis.set_xlabel(label)
    axis.grid(axis="x", color="#e5e5e5", lw=0.6)
    axis.set_axisbelow(True)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
