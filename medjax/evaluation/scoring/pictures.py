"""How like generated pictures are to the real ones: pair by pair, and as sets of embeddings."""

import numpy as np
from scipy.ndimage import gaussian_filter

from medjax.errors import UserError

_SIGMA, _RADIUS = 1.5, 5
_K1, _K2 = 0.01, 0.03


def psnr(one: np.ndarray, other: np.ndarray, span: float = 255.0) -> float:
    """The peak signal-to-noise ratio in dB, `10 log10(span^2 / MSE)`; infinite for equal pictures.

    one, other: [H, W] or [H, W, C] of one shape. span: from the lowest to the highest value that a pixel can have.
    """
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(span**2 / error))


def ssim(one: np.ndarray, other: np.ndarray, span: float = 255.0) -> float:
    """The mean structural similarity (Wang et al., IEEE TIP 2004): Gaussian windows of 11 x 11 pixels with a deviation
    of 1.5, K1 = .01, K2 = .03, moments of the population, and the mean over windows that lie within the picture; of
    colours the mean over channels.

    one, other: [H, W] or [H, W, C] of one shape. span: as `psnr` takes it.

    Raises:
      UserError: a side is shorter than a window.
    """
    if min(one.shape[:2]) <= 2 * _RADIUS:
        raise UserError(f"SSIM needs pictures of at least 11 x 11 pixels, got {one.shape[0]} x {one.shape[1]}")
    if one.ndim == 3:
        return float(np.mean([ssim(one[..., c], other[..., c], span) for c in range(one.shape[-1])]))
    x, y = one.astype(np.float64), other.astype(np.float64)
    c1, c2 = (_K1 * span) ** 2, (_K2 * span) ** 2
    mean_x, mean_y = _window(x), _window(y)
    var_x, var_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    both = _window(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return float(np.mean(top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))


def _window(x: np.ndarray) -> np.ndarray:
    inside = slice(_RADIUS, -_RADIUS)
    return gaussian_filter(x, _SIGMA, radius=_RADIUS)[inside, inside]


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """The Fréchet distance of two sets of embeddings taken as Gaussians (Heusel et al., arXiv 1706.08500):
    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2)`, with unbiased covariances.

    one: float[n, E]. other: float[m, E]. It falls with the number of examples and compares only at equal numbers.

    Raises:
      UserError: a set has fewer than two examples.
    """
    if min(len(one), len(other)) < 2:
        raise UserError(f"a Frechet distance needs two examples of each kind, got {len(one)} and {len(other)}")
    x, y = one.astype(np.float64), other.astype(np.float64)
    a, b = ((v - v.mean(0)) / np.sqrt(len(v) - 1) for v in (x, y))
    # tr (C1 C2)^1/2 is the sum of the singular values of b a', since C1 = a'a and C2 = b'b.
    shared = np.linalg.svd(b @ a.T, compute_uv=False).sum()
    distance = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.sum(a**2) + np.sum(b**2) - 2 * shared
    return float(max(distance, 0.0))


def frechet_of_halves(x: np.ndarray, draws: int = 10, seed: int = 0) -> float:
    """What the distance is between two halves of one set, the mean of random divisions: what it cannot fall below.

    x: float[n, E] with n of at least 4.
    """
    rng = np.random.default_rng(seed)
    halves = (np.array_split(rng.permutation(len(x)), 2) for _ in range(draws))
    return float(np.mean([frechet(x[one], x[other]) for one, other in halves]))
