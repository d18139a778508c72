"""How well a map points at what was marked: pure functions of a map and the marked region.

A map is float[H, W], NaN where the encoder saw nothing; such pixels count neither as inside nor as outside. A region is
bool[H, W]. What cannot be computed (no pixel inside or none outside) is NaN.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

MIOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def region(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """bool[H, W]: pixels whose middle lies in any of the boxes, float[k, 4] as x0, y0, x1, y1 in [0, 1]."""
    y, x = ((np.arange(n) + 0.5) / n for n in shape)
    out = np.zeros(shape, bool)
    for x0, y0, x1, y1 in boxes:
        out |= ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None]
    return out


def contrast_to_noise(map_: np.ndarray, inside: np.ndarray) -> float:
    """`|mean_in - mean_out| / sqrt(var_in + var_out)`, variances of the population; NaN where both are 0.

    The form in which BioViL's phrase grounding is reported (arXiv 2204.09817). The bars make a map that points away
    from the region as good as one that points at it.
    """
    within, without = _parts(map_, inside)
    if not within.size or not without.size:
        return float("nan")
    spread = np.sqrt(within.var() + without.var())
    return float(abs(within.mean() - without.mean()) / spread) if spread > 0 else float("nan")


def overlaps(map_: np.ndarray, inside: np.ndarray, thresholds: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """IoU and Dice of `map > t` with the region, float64[k] each, one a threshold; NaN where nothing was marked."""
    within, without = (np.sort(x) for x in _parts(map_, inside))
    if not within.size:
        return np.full(len(thresholds), np.nan), np.full(len(thresholds), np.nan)
    hits = len(within) - np.searchsorted(within, thresholds, side="right")
    false = len(without) - np.searchsorted(without, thresholds, side="right")
    return hits / (len(within) + false), 2 * hits / (len(within) + hits + false)


def mean_iou(map_: np.ndarray, inside: np.ndarray) -> float:
    """The mean IoU over the thresholds .1 to .5 of the map as it is."""
    return float(overlaps(map_, inside, MIOU_THRESHOLDS)[0].mean())


def pointing(map_: np.ndarray, inside: np.ndarray) -> float:
    """Whether the highest pixel lies in the region, 1 or 0; of equal highest ones the share that does."""
    if not np.isfinite(map_).any():
        return float("nan")
    highest = map_ == np.nanmax(map_)
    return float(inside[highest].mean())


def pointing_chance(map_: np.ndarray, inside: np.ndarray) -> float:
    """The share of what the encoder saw that lies in the region: how often a random pixel hits it."""
    seen = np.isfinite(map_)
    return float(inside[seen].mean()) if seen.any() else float("nan")


def pixel_auroc(map_: np.ndarray, inside: np.ndarray) -> float:
    """Area under the ROC curve of the pixels, ties half: the chance that one inside is higher than one outside."""
    within, without = _parts(map_, inside)
    if not within.size or not without.size:
        return float("nan")
    ranks = rankdata(np.concatenate([within, without]))[: within.size]
    return float((ranks.sum() - within.size * (within.size + 1) / 2) / (within.size * without.size))


def scaled(map_: np.ndarray) -> np.ndarray:
    """The map from 0 to 1, for thresholds on maps without a scale of their own; a constant one becomes 0."""
    known = map_[np.isfinite(map_)]
    if not known.size or known.max() == known.min():
        return np.where(np.isfinite(map_), 0.0, np.nan)
    return (map_ - known.min()) / (known.max() - known.min())


def best_threshold(dice_nk: np.ndarray, thresholds: np.ndarray) -> float:
    """The threshold with the highest mean Dice over n maps, the lowest of equals. dice_nk: as `overlaps` gives it."""
    known = np.isfinite(dice_nk).all(axis=1)
    return float(thresholds[np.argmax(dice_nk[known].mean(axis=0))]) if known.any() else float("nan")


def centre_prior(shape: tuple[int, int]) -> np.ndarray:
    """float64[H, W]: a Gaussian in the middle, a quarter of each side wide, as a control that has seen nothing."""
    y, x = (((np.arange(n) + 0.5) / n - 0.5) / 0.25 for n in shape)
    return np.exp(-0.5 * (y[:, None] ** 2 + x[None] ** 2))


def _parts(map_: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seen = np.isfinite(map_)
    return map_[seen & inside].astype(np.float64), map_[seen & ~inside].astype(np.float64)
