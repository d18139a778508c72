"""Whether an encoder answers the same to everything: the dimensions that its features fill."""

import logging
from collections.abc import Mapping

import numpy as np

from medjax.evaluation.geometry import effective_rank as rank_of

log = logging.getLogger("medjax")

LIMIT = 1024  # examples; more change the rank of a few hundred dimensions little
COLLAPSED = 1.5  # features along one line have rank 1, evenly along two 2
_NOISE = 1e-3  # of the features' size: what rounding in bfloat16 leaves of features that are all the same


def effective_rank(features: np.ndarray) -> np.float32:
    """How many directions the features vary in, from 1 for none or one to min(n - 1, D).

    The exponential of the entropy of the singular values' shares (Roy and Vetterli 2007), of centred features: a mean
    that all share, however long, hides nothing and adds nothing. Differences below a thousandth of the features' size
    are rounding, whose rank would be full, and count as none.

    features: float[n, D], of n examples; NaN for fewer than two, and where any is not finite.
    """
    x = np.asarray(features, np.float64)
    if len(x) < 2 or not np.isfinite(x).all():
        return np.float32(np.nan)
    centred = x - x.mean(axis=0)
    if np.linalg.norm(centred) <= _NOISE * np.linalg.norm(x):
        return np.float32(1.0)
    return np.float32(rank_of(centred))


def ranks(features: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`{"effective_rank": the least, "effective_rank/<modality>": ...}` of features float[n, D] by modality, those of
    several modalities by name; modalities of fewer than two examples are left out. A collapse is warned of in the log.
    """
    found = {m: float(effective_rank(x)) for m, x in features.items() if len(x) > 1}
    for m, rank in found.items():
        if rank < COLLAPSED:
            log.warning(
                "collapse: the %s encoder tells validation examples apart along %.2f directions only; lower the "
                "learning rate, or look at its inputs",
                m,
                rank,
            )
    each = {f"effective_rank/{m}": rank for m, rank in found.items()} if len(found) > 1 else {}
    return {"effective_rank": min(found.values()), **each} if found else {}
