"""Figures of the geometry report, as PNG bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medjax.evaluation.bootstrap import Interval
from medjax.evaluation.figures import one_axis, png, style, subplots

_COLOURS = ("#1f5fa8", "#b5402f", "#2e8b57", "#8a6bb1", "#c08a1e", "#4a4a4a")


def scatter(points: Mapping[str, np.ndarray], explained: Sequence[float]) -> bytes:
    """Modalities in the plane, `{name: [n, 2]}`. explained: shares of the variance along both axes."""
    with style():
        figure, axis = one_axis((4.6, 3.8))
        for i, (name, xy) in enumerate(points.items()):
            axis.plot(*xy.T, "o", ms=3, alpha=0.5, mew=0, color=_COLOURS[i % len(_COLOURS)], label=name)
        axis.set(xlabel=f"first component, {explained[0]:.0%}", ylabel=f"second component, {explained[1]:.0%}")
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=2)
        return png(figure)


def spectra(spectra_: Mapping[str, np.ndarray], untrained: Mapping[str, np.ndarray]) -> bytes:
    """Singular values over the largest, by modality; dashed before training."""
    with style():
        figure, axis = one_axis((4.6, 3.2))
        for i, (name, s) in enumerate(spectra_.items()):
            colour = _COLOURS[i % len(_COLOURS)]
            axis.semilogy(*_above(s), color=colour, lw=1.5, label=name)
            if name in untrained:
                axis.semilogy(*_above(untrained[name]), color=colour, lw=1, ls="--")
        axis.set(xlabel="singular value", ylabel="over the largest", xlim=(0, None))
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), title="dashed: untrained" if untrained else None)
        return png(figure)


def _above(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places and values over the largest, down to where rounding begins."""
    shown = s[s > 1e-6 * s[0]]
    return np.arange(1, len(shown) + 1), shown / s[0]


@dataclass(frozen=True)
class Panel:
    """One curve figure of several. lines: `{name: one interval for each x}`."""

    title: str
    label: str
    lines: Mapping[str, Sequence[Interval]]
    chance: float


def curves(x: Sequence[float], panels: Sequence[Panel], label: str) -> bytes:
    """Small multiples of values against x, with their intervals as bands and chance as a dotted line."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with style():
        figure, axes = subplots(rows, columns, figsize=(3.2 * columns, 2.5 * rows))
        for axis in axes.flat[len(panels) :]:
            axis.axis("off")
        for axis, panel in zip(axes.flat, panels, strict=False):
            for i, (name, values) in enumerate(panel.lines.items()):
                v = np.array([(p.value, p.low, p.high) for p in values])
                axis.plot(x, v[:, 0], "o-", ms=2.5, lw=1.4, color=_COLOURS[i], label=name)
                axis.fill_between(x, v[:, 1], v[:, 2], color=_COLOURS[i], alpha=0.15, lw=0)
            axis.axhline(panel.chance, color="#9a9a9a", lw=1, ls=":")
            axis.set(title=panel.title, ylabel=panel.label, xlabel=label)
            if len(panel.lines) > 1:
                axis.legend()
        figure.tight_layout()
        return png(figure)
