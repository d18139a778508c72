"""Pictures and volumes under maps, as PNG bytes, with the colours' scale beside; hatched is what was not seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.patches import Rectangle

from medjax.evaluation.figures import png, style, subplots

_FRAME = "#00e5ff"
_MANY = 500
_COLUMNS = 4  # pictures side by side
_COVER = 0.65  # the picture must stay readable under its map
# On gray pictures, and on white paper.
_DARK = {True: "RdBu_r", False: "inferno"}
_LIGHT = {
    True: LinearSegmentedColormap.from_list("for_against", ["#1b5fb4", "#b8b8b8", "#c4161c"]),
    False: LinearSegmentedColormap.from_list("most", ["#b8b8b8", "#f08a24", "#c4161c"]),
}


@dataclass(frozen=True)
class Drawn:
    """A map with its name, any shape, NaN where nothing was seen. signed: whether it speaks for and against: then red
    and blue about zero, else from nothing to the highest value."""

    title: str
    map: np.ndarray
    signed: bool

    @cached_property
    def scale(self) -> Normalize:
        """From the map's own extremes, of many numbers without the highest 0.1 %, so that one pixel does not hide the
        rest."""
        strongest = np.abs(self.map[np.isfinite(self.map)])
        highest = float(np.percentile(strongest, 99.9 if strongest.size > _MANY else 100)) if strongest.size else 0.0
        highest = highest or (float(strongest.max()) if strongest.size else 0.0) or 1.0
        return Normalize(-highest if self.signed else 0.0, highest)

    def strength(self, map_: np.ndarray) -> np.ndarray:
        """From 0 to 1, of a part of the map; 0 where nothing was seen."""
        share = np.abs(np.nan_to_num(map_)) if self.signed else np.nan_to_num(map_).clip(0)
        return (share / self.scale.vmax).clip(0, 1)

    def colours(self, map_: np.ndarray, light: bool = False) -> np.ndarray:
        """float64[..., 4], of a part of the map."""
        return self.palette(light)(self.scale(np.nan_to_num(map_)))

    def palette(self, light: bool = False) -> Colormap:
        """Of its numbers; `light` for white paper."""
        return _LIGHT[self.signed] if light else matplotlib.colormaps[_DARK[self.signed]]

    def bar(self, figure, light: bool = False, **where) -> None:
        """Adds the scale to a figure; where: as `Figure.colorbar` takes it."""
        bar = figure.colorbar(ScalarMappable(self.scale, self.palette(light)), **where)
        low, high = self.scale.vmin, self.scale.vmax
        names = [f"{low:.2g}\nagainst", "0", f"{high:.2g}\nfor"] if self.signed else ["none", "most"]
        bar.set_ticks([low, 0, high] if self.signed else [0, high], labels=names)
        bar.ax.tick_params(labelsize=7)


def picture(pixels: np.ndarray, maps: Sequence[Drawn], boxes: np.ndarray | Sequence = ()) -> bytes:
    """A picture as it came, then under each map. pixels: uint8[H, W] or [H, W, 3]. boxes: float[k, 4] (x0, y0, x1, y1
    in [0, 1]), drawn as frames."""
    height, width = pixels.shape[:2]
    cells = [None, *maps]
    columns = min(_COLUMNS, len(cells))
    rows, side = -(-len(cells) // columns), 2.9 * min(height / width, 1.6)
    with style(hatch__linewidth=0.4):
        size, ratios = (2.9 * columns, rows * (side + 0.8)), [side, 0.12] * rows
        figure, axes = subplots(2 * rows, columns, figsize=size, height_ratios=ratios)
        for axis in axes.flat:
            axis.axis("off")
        for i, drawn in enumerate(cells):
            axis, below = (axes[2 * (i // columns) + k][i % columns] for k in (0, 1))
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
            axis.set(title=drawn.title if drawn else "as it came")
            if drawn:
                _cover(axis, drawn, drawn.map)
                below.axis("on")
                drawn.bar(figure, cax=below, orientation="horizontal")
            for x0, y0, x1, y1 in boxes:
                corner, sides = (x0 * width - 0.5, y0 * height - 0.5), ((x1 - x0) * width, (y1 - y0) * height)
                axis.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=_FRAME, lw=1.6))
        figure.tight_layout()
        return png(figure)


def _cover(axis, drawn: Drawn, map_: np.ndarray, **how) -> None:
    """Lays a map over a picture, the weaker the more transparent. how: as the picture under it was shown."""
    unseen = ~np.isfinite(map_)
    colours = drawn.colours(map_)
    colours[..., 3] = np.where(unseen, 0, _COVER * (0.15 + 0.85 * drawn.strength(map_)))
    axis.imshow(colours, interpolation="nearest", **how)
    if unseen.any():
        axis.contourf(unseen.astype(float), levels=[0.5, 1.5], hatches=["////"], colors="none")


def slices(voxels: np.ndarray, maps: Sequence[Drawn], spacing: Sequence[float]) -> bytes:
    """Of a volume the three planes through the voxel that speaks most for the target, one row a map; the head is above
    and the patient's right on the left.

    voxels: uint8[D, H, W] on the canonical axes. spacing: mm along them.
    """
    with style(hatch__linewidth=0.4):
        figure, axes = subplots(len(maps), 3, figsize=(8.7, 3.1 * len(maps)), layout="constrained")
        for row, drawn in zip(axes, maps, strict=True):
            at = np.unravel_index(np.argmax(np.nan_to_num(drawn.map, nan=-np.inf)), drawn.map.shape)
            for dim, (axis, name) in enumerate(zip(row, ("axial", "coronal", "sagittal"), strict=True)):
                plane = tuple(at[d] if d == dim else slice(None) for d in range(3))
                high, wide = (spacing[d] for d in range(3) if d != dim)
                how = {"aspect": high / wide, "origin": "lower" if dim else "upper"}
                axis.imshow(voxels[plane], cmap="gray", vmin=0, vmax=255, **how)
                _cover(axis, drawn, drawn.map[plane], **how)
                axis.set(xticks=[], yticks=[], title=f"{name} {at[dim] + 1} of {drawn.map.shape[dim]}")
            row[0].set_ylabel(drawn.title)
            drawn.bar(figure, ax=list(row), location="right", fraction=0.05, pad=0.03)
        return png(figure)
