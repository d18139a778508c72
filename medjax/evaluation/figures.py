"""How figures of the reports are begun and become PNG bytes."""

import io
from contextlib import AbstractContextManager

import matplotlib
from matplotlib.figure import Figure

_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def style(**changes) -> AbstractContextManager:
    """The look of every figure, with changes, for as long as one is drawn."""
    return matplotlib.rc_context({**_STYLE, **{k.replace("__", "."): v for k, v in changes.items()}})


def subplots(rows: int, columns: int, figsize: tuple[float, float], layout: str | None = None, **options):
    """A figure and its axes, [rows, columns], as pyplot's, whose state and backend stay the caller's: in a notebook
    figures of pyplot show themselves."""
    figure = Figure(figsize=figsize, layout=layout)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def one_axis(figsize: tuple[float, float], layout: str | None = None):
    """A figure and its only axis."""
    figure, axes = subplots(1, 1, figsize, layout)
    return figure, axes[0][0]


def png(figure: Figure) -> bytes:
    """A figure as PNG bytes, cut to what it shows."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120, bbox_inches="tight")
    return out.getvalue()
