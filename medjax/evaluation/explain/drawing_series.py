"""ECGs, texts and lab values in the colours of an explanation, as PNG bytes."""

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medjax.evaluation.explain.drawing import Drawn
from medjax.evaluation.figures import one_axis, png, style, subplots

_STEP_MV = 2.0  # from one lead's baseline to the next
_PAPER = {"minor": "#fbe6e6", "major": "#f3c6c6"}
_COLUMNS, _POINTS, _ADVANCE = 96, 9, 0.602  # letters a line, their size, and DejaVu Sans Mono's width by its size


def ecg(signal_ct: np.ndarray, leads: Sequence[str], rate: float, drawn: Drawn) -> bytes:
    """Every recorded lead on ECG paper (large squares of 0.2 s and 0.5 mV), its line in the map's colours.

    signal: float32[C, T] in mV, rows of NaN for absent leads. map: float32[C, T].
    """
    there = [i for i in range(len(leads)) if np.isfinite(signal_ct[i]).all()]
    t = np.arange(signal_ct.shape[1]) / rate
    with style():
        figure, axis = one_axis((11, 0.9 + 0.6 * len(there)), layout="constrained")
        _paper(axis, t[-1], len(there))
        for line, lead in enumerate(there):
            trace, relevance = np.clip(signal_ct[lead], -1.5, 2.2) - _STEP_MV * line, drawn.map[lead]
            points = np.stack([t, trace], axis=1)[:, None]
            pieces = np.concatenate([points[:-1], points[1:]], axis=1)
            colours = drawn.colours(relevance[:-1], light=True)
            colours[~np.isfinite(relevance[:-1]), 3] = 0.25
            widths = 0.8 + 1.4 * drawn.strength(relevance[:-1])
            axis.add_collection(LineCollection(pieces, colors=colours, linewidths=widths, capstyle="round"))
            axis.text(-0.06, -_STEP_MV * line, leads[lead], ha="right", va="center", fontweight="bold")
        axis.set(xlabel="seconds", title=drawn.title)
        drawn.bar(figure, light=True, ax=axis, location="right", fraction=0.03, pad=0.02)
        return png(figure)


def _paper(axis, seconds: float, lines: int) -> None:
    low, high = -_STEP_MV * (lines - 1) - 1.2, 1.6
    for kind, dx, dy, width in (("minor", 0.04, 0.1, 0.3), ("major", 0.2, 0.5, 0.6)):
        axis.vlines(np.arange(0, seconds + dx, dx), low, high, color=_PAPER[kind], lw=width, zorder=0)
        axis.hlines(np.arange(np.ceil(low / dy) * dy, high, dy), 0, seconds, color=_PAPER[kind], lw=width, zorder=0)
    axis.set(xlim=(0, seconds), ylim=(low, high), yticks=[])
    for side in ("top", "left", "right"):
        axis.spines[side].set_visible(False)


def words(text: str, spans: Sequence[tuple[int, int]], maps: Sequence[Drawn]) -> bytes:
    """A text under each map, each word piece marked in its colour. spans: where each token stands in the text, (0, 0)
    for those that stand nowhere. map: float32[L]."""
    text = re.sub(r"\s", " ", text)
    breaks = _lines(text)
    height = _POINTS * 2.0 * (len(breaks) + 2) * len(maps)
    width = _POINTS * _ADVANCE * (_COLUMNS + 2)
    with style():
        figure = Figure(figsize=(width / 72, height / 72))
        axis = figure.add_axes((0, 0, 1, 1))  # letters and marks meet only where a unit is a letter
        axis.set(xlim=(-1, _COLUMNS + 1), ylim=(len(maps) * (len(breaks) + 2), 0))
        axis.axis("off")
        for k, drawn in enumerate(maps):
            top = k * (len(breaks) + 2)
            axis.text(0, top + 0.6, f"{drawn.title} ({_ends(drawn)})", fontsize=_POINTS, va="center")
            for (first, last), value in zip(spans, drawn.map[: len(spans)], strict=True):
                if last > first and np.isfinite(value):
                    _mark(axis, breaks, first, last, top + 1, drawn, value)
            for line, (first, last) in enumerate(breaks):
                letters = dict(family="DejaVu Sans Mono", fontsize=_POINTS, va="center")
                axis.text(0, top + 1.55 + line, text[first:last], **letters)
        return png(figure)


def _ends(drawn: Drawn) -> str:
    high = f"{drawn.scale.vmax:.2g}"
    return f"red: for, up to {high}; blue: against" if drawn.signed else "red: most; white: none"


def _lines(text: str) -> list[tuple[int, int]]:
    """First and last letter of each line, broken between words."""
    out, first = [], 0
    while len(text) - first > _COLUMNS:
        cut = text.rfind(" ", first, first + _COLUMNS + 1)
        cut = cut + 1 if cut > first else first + _COLUMNS
        out.append((first, cut))
        first = cut
    return [*out, (first, len(text))]


def _mark(axis, breaks, first: int, last: int, top: float, drawn: Drawn, value: float) -> None:
    colour = (*drawn.colours(np.array(value), light=True)[:3], 0.75 * float(drawn.strength(np.array(value))))
    for line, (start, end) in enumerate(breaks):
        left, right = max(first, start), min(last, end)
        if right > left:
            axis.add_patch(Rectangle((left - start, top + line + 0.1), right - left, 0.9, color=colour, lw=0))


def bars(names: Sequence[str], values: np.ndarray, units: Sequence[str], maps: Sequence[Drawn]) -> bytes:
    """Lab values with a bar each for what they do, one panel a map. values: float32[F], NaN for not measured."""
    labels = [
        f"{n}  {v:.3g} {u}" if np.isfinite(v) else f"{n}  not measured"
        for n, v, u in zip(names, values, units or [""] * len(names), strict=True)
    ]
    y = np.arange(len(names))[::-1]
    with style():
        size = 2.6 + 3.2 * len(maps), 0.8 + 0.27 * len(names)
        figure, axes = subplots(1, len(maps), figsize=size, sharey=True, layout="constrained")
        for axis, drawn in zip(axes[0], maps, strict=True):
            shown = np.where(np.isfinite(values), np.nan_to_num(drawn.map), 0.0)
            axis.barh(y, shown, color=drawn.colours(shown, light=True), height=0.7)
            axis.axvline(0, color="#555555", lw=0.8)
            span = 1.08 * drawn.scale.vmax
            axis.set(xlim=(-span if drawn.signed else 0, span), title=drawn.title)
            axis.set_xlabel("against        for" if drawn.signed else "share in the score")
        axes[0][0].set_yticks(y, labels)
        return png(figure)
