"""Figures of robustness, as PNG bytes: how a score falls with the level, and what the levels look like."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medjax.data.manifest import Modality
from medjax.data.volumes import Volume
from medjax.evaluation.bootstrap import summarise
from medjax.evaluation.figures import one_axis, png, style, subplots
from medjax.evaluation.robustness import Curve

_BLUE, _GRAY, _RED = "#1f5fa8", "#9a9a9a", "#b5402f"
_SECONDS, _LEADS = 3, ("II", "V5")


def degradation(curves: Sequence[Curve], metric: str, chance: float, untrained: float | None) -> bytes:
    """A panel a corruption: the score at each level with its interval, level 0 being the intact split; dashed chance,
    dotted the untrained encoder on the intact split."""
    columns = min(5, len(curves))
    rows = -(-len(curves) // columns)
    with style(font__size=8, axes__titlesize=8):
        figure, axes = subplots(rows, columns, figsize=(2.1 * columns, 1.7 * rows), sharey=True, sharex=True)
        for axis in axes.flat[len(curves) :]:
            axis.axis("off")
        for axis, curve in zip(axes.flat, curves, strict=False):
            levels = list(curve.value)
            points = [summarise(v) for v in curve.value.values()]
            axis.axhline(chance, color=_RED, lw=0.9, ls="--")
            if untrained is not None:
                axis.axhline(untrained, color=_GRAY, lw=0.9, ls=":")
            axis.fill_between(levels, [p.low for p in points], [p.high for p in points], color=_BLUE, alpha=0.18, lw=0)
            axis.plot(levels, [p.value for p in points], "o-", color=_BLUE, ms=2.5, lw=1.4)
            axis.set(title=curve.kind.replace("_", " "), xticks=levels)
        axes[0][0].set_ylabel(metric)
        axes[-1][0].set_xlabel("level")
        figure.tight_layout()
        return png(figure)


def subset_bars(names: Sequence[str], values: Sequence[np.ndarray], metric: str, chance: float) -> bytes:
    """A bar with its interval for each subset of modalities, float64[1 + r] each, and a line at chance."""
    with style(font__size=8, axes__titlesize=8):
        figure, axis = one_axis((5.6, 0.6 + 0.26 * len(names)))
        found, y = [summarise(v) for v in values], np.arange(len(names))[::-1]
        spread = np.array([[f.value - f.low for f in found], [f.high - f.value for f in found]])
        axis.barh(y, [f.value for f in found], height=0.6, color=_BLUE, alpha=0.75, xerr=np.nan_to_num(spread).clip(0))
        axis.axvline(chance, color=_RED, lw=1, ls="--")
        axis.set_yticks(y, names)
        axis.set_xlabel(f"{metric} (dashed: chance)")
        return png(figure)


def grid(items: Mapping[str, Sequence[Any]], schema: Modality, levels: Sequence[int]) -> bytes:
    """One example: a row a corruption, its first column intact, the others at the levels that follow. Pictures,
    middle slices of volumes in the range of the intact one, or three seconds of an ECG."""
    rows, columns = len(items), max(len(x) for x in items.values())
    wide = 1.9 if schema.kind == "ecg" else 1.15
    draw = {"image": _picture, "volume": _slice, "ecg": _trace}[schema.kind]
    with style(font__size=8, axes__titlesize=8):
        figure, axes = subplots(rows, columns, figsize=(wide * columns + 0.6, 1.15 * rows))
        for line, (name, found) in zip(axes, items.items(), strict=True):
            for axis, item in zip(line, found, strict=True):
                draw(axis, item, found[0], schema)
                axis.set(xticks=[], yticks=[])
                for side in axis.spines.values():
                    side.set_visible(False)
            line[0].set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center")
        for axis, title in zip(axes[0], ("intact", *(f"level {k}" for k in levels)), strict=True):
            axis.set_title(title)
        figure.subplots_adjust(wspace=0.04, hspace=0.06)
        return png(figure)


def _picture(axis, item: np.ndarray, intact: np.ndarray, schema: Modality) -> None:
    axis.imshow(item, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def _slice(axis, item: Volume, intact: Volume, schema: Modality) -> None:
    middle = item.shape[0] // 2
    pixels, before = (
        v.crop((middle, 0, 0), (1, *v.shape[1:3]))[0].reshape(*v.shape[1:3], -1)[..., 0] for v in (item, intact)
    )
    low, high = np.percentile(before, (0.5, 99.5))
    axis.imshow(pixels, cmap="gray", vmin=low, vmax=high, aspect=item.spacing[1] / item.spacing[2])


def _trace(axis, item: np.ndarray, intact: np.ndarray, schema: Modality) -> None:
    shown = [schema.names.index(lead) for lead in _LEADS if lead in schema.names] or [0]
    t = int(_SECONDS * schema.rate)
    for place, lead in enumerate(shown):
        axis.plot(np.clip(item[lead, :t], -1.4, 1.8) - 3.2 * place, color="#222222", lw=0.6)
    axis.set_ylim(-3.2 * len(shown) + 1.6, 2.0)
