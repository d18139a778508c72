"""Frozen features for segmentation: a head on tokens, its loss, and Dice on the grid of the original."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from medjax.errors import UserError
from medjax.evaluation.bootstrap import Interval, average, summarise
from medjax.evaluation.explain.geometry import Placement
from medjax.models.segmentation_head import SegmentationHead

IGNORED = -1


@dataclass(frozen=True)
class Studies:
    """n studies. pictures: float32[n, *S, C], as the encoder saw them. grids: float32[n, *G, D], their tokens. targets:
    int32[n, *S], classes on the encoder's grid, -1 where it saw padding. masks: of each its classes on the original
    grid. places: of each how the two grids lie. patients: int[n].
    """

    pictures: np.ndarray
    grids: np.ndarray
    targets: np.ndarray
    masks: Sequence[np.ndarray]
    places: Sequence[tuple[Placement, ...]]
    patients: np.ndarray

    def __len__(self) -> int:
        return len(self.patients)


def to_encoder(mask: np.ndarray, places: Sequence[Placement]) -> np.ndarray:
    """int32[*S]: the class at the middle of each pixel of what the encoder sees, -1 where that is padding."""
    out = mask.astype(np.int32)
    for dim, p in enumerate(places):
        at = np.floor((np.arange(p.size) + p.start + 0.5) * p.n / p.m).astype(np.intp)
        shape = [-1 if d == dim else 1 for d in range(out.ndim)]
        inside = ((at >= 0) & (at < p.n)).reshape(shape)
        out = np.where(inside, out.take(at.clip(0, p.n - 1), dim), IGNORED)
    return out.astype(np.int32)


def to_original(labels: np.ndarray, places: Sequence[Placement]) -> np.ndarray:
    """int32 of the original's shape: the class of the pixel in which the middle of each original one lies; 0,
    background, where the encoder saw nothing."""
    out = labels.astype(np.int32)
    for dim, p in enumerate(places):
        at = p.seen_at()
        seen = np.isfinite(at)
        out = out.take(np.where(seen, at, 0).astype(np.intp), dim)
        out = np.where(seen.reshape([-1 if d == dim else 1 for d in range(out.ndim)]), out, 0)
    return out


def raw_patches(pictures: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """float32[n, *G, P]: the intensities of each patch, in place of its token."""
    n, *size, channels = pictures.shape
    split = [k for s, g in zip(size, grid, strict=True) for k in (g, s // g)]
    dims = len(size)
    x = pictures.reshape(n, *split, channels)
    order = [0, *(1 + 2 * d for d in range(dims)), *(2 + 2 * d for d in range(dims)), 1 + 2 * dims]
    return x.transpose(order).reshape(n, *grid, -1)


def dice(predicted: Sequence[np.ndarray], masks: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """float64[n, classes - 1]: of every study and every class but the background, 2 |P and T| / (|P| + |T|); NaN where
    the class is in neither."""
    out = np.full((len(masks), classes - 1), np.nan)
    for i, (p, t) in enumerate(zip(predicted, masks, strict=True)):
        for k in range(1, classes):
            total = np.count_nonzero(p == k) + np.count_nonzero(t == k)
            if total:
                out[i, k - 1] = 2 * np.count_nonzero((p == k) & (t == k)) / total
    return out


def dice_intervals(values: np.ndarray, weights: np.ndarray) -> list[Interval]:
    """Of each class the mean over the studies that have it, and of these the mean over classes, last.

    values: float64[n, K], NaN where there is none. weights: float64[1 + r, n] (`patient_weights`).
    """
    known = np.isfinite(values)
    total, count = weights @ np.where(known, values, 0.0), weights @ known
    means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0).T
    return [summarise(m) for m in (*means, average(list(means)))]


def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """float32[]: cross entropy of the pixels plus one minus the soft Dice of the classes in the batch (V-Net, arXiv
    1606.04797, with sums in place of squares), mean over classes but the background. Targets of -1 do not count.

    logits: float32[b, *S, K]. targets: int32[b, *S].
    """
    known = (targets != IGNORED).astype(jnp.float32)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(targets, 0))
    p = jax.nn.softmax(logits) * known[..., None]
    t = jax.nn.one_hot(targets, logits.shape[-1])  # a row of zeros for -1
    over = tuple(range(p.ndim - 1))
    soft = (2 * (p * t).sum(over) + 1) / ((p + t).sum(over) + 1)
    return (entropy * known).sum() / jnp.maximum(known.sum(), 1) + 1 - soft[1:].mean()


@dataclass(frozen=True)
class Fitted:
    """A head and its parameters after the step that did best on the validation split."""

    head: SegmentationHead
    params: Any
    centre: np.ndarray
    scale: np.ndarray
    step: int
    validation: float

    def predict(self, studies: Studies) -> list[np.ndarray]:
        """Of each study the class with the highest logit, on the grid of its original."""
        out = []
        for i in range(len(studies)):
            grid = (studies.grids[i : i + 1] - self.centre) / self.scale
            found = np.asarray(_classes(self.head, self.params, grid, studies.pictures[i : i + 1]))[0]
            out.append(to_original(found, studies.places[i]))
        return out


@partial(jax.jit, static_argnums=0)
def _classes(head: SegmentationHead, params, grid, picture) -> jax.Array:
    return head.apply(params, grid, picture).argmax(-1)


def fit(
    train: Studies,
    validation: Studies,
    classes: int,
    kind: str,
    steps: int = 200,
    batch: int = 8,
    rate: float = 1e-2,
    width: int = 16,
    seed: int = 0,
    looks: int = 4,
) -> Fitted:
    """Trains a head by AdamW with a cosine schedule; of `looks` moments the one with the highest mean Dice on the
    validation split is kept. Features are centred and scaled by the training split's.

    Raises:
      UserError: a split is empty.
    """
    if not len(train) or not len(validation):
        raise UserError("the probe needs studies with masks in the training and in the validation split")
    over = tuple(range(train.grids.ndim - 1))
    centre, scale = train.grids.mean(over), train.grids.std(over) + 1e-6
    head = SegmentationHead(kind, classes, width)
    params = head.init(jax.random.key(seed), train.grids[:1], train.pictures[:1])
    optimizer = optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=1e-4)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, grid, picture, targets):
        grads = jax.grad(lambda p: loss(head.apply(p, grid, picture), targets))(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    rng, best = np.random.default_rng(seed), None
    for i in range(1, steps + 1):
        rows = rng.choice(len(train), min(batch, len(train)), replace=False)
        grid = (train.grids[rows] - centre) / scale
        params, state = step(params, state, grid, train.pictures[rows], train.targets[rows])
        if i % max(1, steps // looks) == 0 or i == steps:
            now = Fitted(head, params, centre, scale, i, 0.0)
            found = dice(now.predict(validation), validation.masks, classes)
            value = float(np.nanmean(found)) if np.isfinite(found).any() else 0.0
            if best is None or value > best.validation:
                best = Fitted(head, params, centre, scale, i, value)
    return best


def most_frequent(train: Studies, classes: int) -> np.ndarray:
    """int32[*S]: the class that most training studies have at each place; what can be had without looking."""
    counts = np.stack([(train.targets == k).sum(0) for k in range(classes)])
    return counts.argmax(0).astype(np.int32)
