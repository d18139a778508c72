"""How well a predicted segmentation covers the true one, class by class."""

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt


def overlap(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice and IoU of two masks, bool of one shape; NaN where both are empty."""
    hits, either = np.count_nonzero(predicted & truth), np.count_nonzero(predicted | truth)
    if not either:
        return {"dice": float("nan"), "iou": float("nan")}
    return {"dice": 2 * hits / (either + hits), "iou": hits / either}


def hd95(predicted: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> float:
    """The 95th percentile of the distances from each surface to the other, the larger of both directions.

    predicted, truth: bool of one shape. spacing: of the pixels or voxels along its axes. The surface is the voxels of
    a mask that touch its outside by a face, or the border of the array. NaN where either mask is empty: a distance to
    nothing is no number.
    """
    if not predicted.any() or not truth.any():
        return float("nan")
    one, other = _surface(predicted), _surface(truth)
    there = distance_transform_edt(~other, spacing)[one]
    back = distance_transform_edt(~one, spacing)[other]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~binary_erosion(mask)
