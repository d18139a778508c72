"""Figures of the reports, as PNG bytes."""

from collections.abc import Mapping, Sequence

import numpy as np

from medjax.evaluation.bootstrap import Interval
from medjax.evaluation.figures import one_axis, png, style, subplots

_BLUE, _GRAY, _RED = "#1f5fa8", "#9a9a9a", "#b5402f"


def roc_curves(curves: Sequence[tuple[str, np.ndarray, np.ndarray, Interval]]) -> bytes:
    """Small multiples of (name, false positive rate, true positive rate, AUROC)."""
    columns = min(5, len(curves))
    rows = -(-len(curves) // columns)
    with style():
        figure, axes = subplots(rows, columns, figsize=(2.1 * columns, 2.2 * rows))
        for axis in axes.flat:
            axis.axis("off")
        for axis, (name, fpr, tpr, area) in zip(axes.flat, curves, strict=False):
            axis.axis("on")
            axis.plot([0, 1], [0, 1], color=_GRAY, lw=0.8, ls=":")
            axis.plot(fpr, tpr, color=_BLUE, lw=1.6)
            axis.set_title(f"{name.replace('_', ' ')}\n{area}", fontsize=8)
            axis.set(xlim=(0, 1), ylim=(0, 1.01), xticks=[0, 1], yticks=[0, 1], aspect="equal")
        axes[-1][0].set(xlabel="1 - specificity", ylabel="sensitivity")
        figure.tight_layout()
        return png(figure)


def intervals(rows: Sequence[tuple[str, Interval]], chance: float | None, label: str) -> bytes:
    """Points with their intervals, one a row, and a line at chance."""
    with style():
        figure, axis = one_axis((6.2, 0.5 + 0.26 * len(rows)))
        y = np.arange(len(rows))[::-1]
        values = np.array([i.value for _, i in rows])
        low = np.array([i.low for _, i in rows])
        high = np.array([i.high for _, i in rows])
        axis.hlines(
            y, np.where(np.isfinite(low), low, values), np.where(np.isfinite(high), high, values), color=_BLUE, lw=1.6
        )
        axis.plot(values, y, "o", color=_BLUE, ms=4)
        if chance is not None:
            axis.axvline(chance, color=_RED, lw=1, ls="--", label="chance")
            axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0))
        axis.set_yticks(y, [name.replace("_", " ") for name, _ in rows])
        axis.set_xlabel(label)
        axis.set_ylim(-0.7, len(rows) - 0.3)
        return png(figure)


def reliability_curves(curves: Sequence[tuple[str, Mapping[str, Sequence[tuple[float, float, int]]]]]) -> bytes:
    """Small multiples of (name, {how: (mean probability, share of positives, examples) of each bin})."""
    columns = min(5, len(curves))
    rows = -(-len(curves) // columns)
    with style():
        figure, axes = subplots(rows, columns, figsize=(2.1 * columns, 2.2 * rows))
        for axis in axes.flat:
            axis.axis("off")
        for axis, (name, ways) in zip(axes.flat, curves, strict=False):
            axis.axis("on")
            axis.plot([0, 1], [0, 1], color=_GRAY, lw=0.8, ls=":")
            for color, (how, bins) in zip((_RED, _GRAY, _BLUE), ways.items(), strict=False):
                axis.plot([b[0] for b in bins], [b[1] for b in bins], "o-", color=color, ms=2.5, lw=1.1, label=how)
            axis.set_title(name.replace("_", " "), fontsize=8)
            axis.set(xlim=(0, 1), ylim=(0, 1.01), xticks=[0, 1], yticks=[0, 1], aspect="equal")
        axes[-1][0].set(xlabel="probability", ylabel="share of positives")
        figure.tight_layout()
        axes[0][0].legend(loc="lower left", bbox_to_anchor=(0, 1.25), ncols=3)
        return png(figure)


def similarity_matrix(scores: np.ndarray, query: str, target: str) -> bytes:
    """A square of scores; the diagonal holds the pairs."""
    with style():
        figure, axis = one_axis((3.6, 3.2))
        picture = axis.imshow(scores, cmap="viridis", interpolation="nearest")
        axis.set(xlabel=f"{target} of study", ylabel=f"{query} of study", xticks=[], yticks=[])
        figure.colorbar(picture, ax=axis, shrink=0.8)
        return png(figure)


def recall_bars(names: Sequence[str], values: Sequence[Interval], chance: Sequence[float], label: str) -> bytes:
    """Bars with intervals, and a tick where chance lies."""
    with style():
        figure, axis = one_axis((6.2, 0.6 + 0.28 * len(names)))
        y = np.arange(len(names))[::-1]
        value = np.array([v.value for v in values])
        spread = np.array([[v.value - v.low for v in values], [v.high - v.value for v in values]])
        axis.barh(y, value, height=0.6, color=_BLUE, alpha=0.75, xerr=np.nan_to_num(spread.clip(0)), ecolor="#333333")
        axis.plot(chance, y, "|", color=_RED, ms=11, mew=2, label="chance")
        axis.set_yticks(y, [n.replace("_", " ") for n in names])
        axis.set_xlabel(label)
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0))
        return png(figure)


def learning_curve(steps: Sequence[int], loss: Sequence[float], validation: Sequence[tuple[int, float]]) -> bytes:
    """Training loss by step, and validation loss where it was measured."""
    with style():
        figure, axis = one_axis((5.2, 2.4))
        axis.plot(steps, loss, color=_BLUE, lw=1.4, label="training")
        if validation:
            axis.plot(*zip(*validation, strict=True), "o-", color=_RED, ms=4, lw=1, label="validation")
        axis.set(xlabel="step", ylabel="loss")
        axis.legend()
        return png(figure)


def ecg_trace(
    signal_ct: np.ndarray, leads: Sequence[str], rate: float, shown: Sequence[str] = ("I", "II", "V2", "V5")
) -> bytes:
    """A few leads of the first four seconds, float32[C, T] in mV."""
    chosen = [lead for lead in shown if lead in leads] or list(leads[:4])
    t = np.arange(min(signal_ct.shape[1], int(4 * rate))) / rate
    with style():
        figure, axis = one_axis((2.6, 1.5))
        for i, lead in enumerate(chosen):
            axis.plot(t, signal_ct[list(leads).index(lead), : len(t)] - 2.0 * i, color="#222222", lw=0.7)
            axis.text(-0.05, -2.0 * i, lead, ha="right", va="center", fontsize=7)
        axis.axis("off")
        return png(figure)
