"""Augmentation of pictures on the device: MixUp, CutMix, CutOut, YOCO, CropMix and AugMix as pure functions of a batch.

The operators that MediAug compares (arXiv 2504.18983), from their own papers; SnapMix is not among them, for it needs
class activation maps. MixUp and CutMix mix neighbours of the batch and their labels; the pairs of a contrastive
objective cannot follow, so there use the others, which keep the label.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import jax
import jax.numpy as jnp

from medjax.data.batch import Batch, Items
from medjax.errors import UserError

_CHAINS, _DEPTH = 3, 3


@dataclass(frozen=True)
class DeviceConfig:
    """Of one modality of pictures; 0 leaves an operator out. mixup, cutmix: alpha of the Beta distribution of the
    share that a picture keeps; with both, each row draws one of them. cutout: side of the square that is set to 0, as
    a share of the picture's. yoco, cropmix, augmix: probability of each. strength: of the changes in YOCO and AugMix,
    as a share of the spread of pixels and of the side.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    cutout: float = 0.0
    yoco: float = 0.0
    cropmix: float = 0.0
    augmix: float = 0.0
    strength: float = 0.2

    def __post_init__(self):
        for f in fields(self):
            value = getattr(self, f.name)
            if value < 0 or (value > 1 and f.name not in ("mixup", "cutmix")):
                raise UserError(f"config.data.device: {f.name}={value} must be at least 0, and shares at most 1")

    @property
    def mixes(self) -> bool:
        """Whether rows and their labels are mixed."""
        return bool(self.mixup or self.cutmix)


def augment(batch: Batch, configs: Mapping[str, DeviceConfig], key: jax.Array) -> Batch:
    """The batch with pictures float[B, N, H, W, C] of the modalities in `configs` augmented, and mixed labels.

    Every row draws from (key, its row in the global batch), so the number of devices changes nothing. A row is mixed
    with the one a common random number of places on, if both have the modality; a label is known if both are.

    Raises:
      UserError: a modality that is no picture, or two that are mixed.
    """
    if sum(c.mixes for c in configs.values()) > 1:
        raise UserError(
            "config.data.device mixes two modalities, and labels can follow one; leave mixup and cutmix to one"
        )
    for m in configs:
        if m in batch.items and getattr(batch.items[m].value, "ndim", 0) != 5:
            raise UserError(f"config.data.device.{m}: these operators are for pictures, and {m} is none")
    shift_key, row_key = jax.random.split(key)
    keys = jax.vmap(lambda row: jax.random.fold_in(row_key, row))(batch.row)
    shift = jax.random.randint(shift_key, (), 1, max(batch.size, 2))
    for m, c in configs.items():
        if m not in batch.items or not batch.items[m].mask.shape[1]:
            continue
        x, mask = batch.items[m].value, batch.items[m].mask
        keys, own = jax.vmap(lambda k: tuple(jax.random.split(k)))(keys)
        x = jax.vmap(lambda x, k, c=c: _alone(x, c, k))(x, own)
        if c.mixes:
            keys, own = jax.vmap(lambda k: tuple(jax.random.split(k)))(keys)
            other = jnp.roll(x, -shift, 0)
            both = mask & jnp.roll(mask, -shift, 0)
            x, kept = jax.vmap(lambda x, o, b, k, c=c: _mixed(x, o, b.all(), c, k))(x, other, both, own)
            batch = _mix_labels(batch, kept, shift)
        x = jnp.where(mask[..., None, None, None], x, 0)
        batch = replace(batch, items={**batch.items, m: Items(x, mask)})
    return batch


def _mix_labels(batch: Batch, kept_b: jax.Array, shift: jax.Array) -> Batch:
    targets = dict(batch.targets)
    if "labels" in targets:
        known, kept = targets["labels_mask"], kept_b[:, None]
        targets["labels"] = kept * targets["labels"] + (1 - kept) * jnp.roll(targets["labels"], -shift, 0)
        targets["labels_mask"] = known & (jnp.roll(known, -shift, 0) | (kept == 1))
        targets["labels"] = jnp.where(targets["labels_mask"], targets["labels"], 0)
    return replace(batch, targets=targets)


def _alone(x: jax.Array, c: DeviceConfig, key: jax.Array) -> jax.Array:
    """What needs no other row: float[N, H, W, C], all items alike."""
    for i, (probability, operator) in enumerate(((c.yoco, yoco), (c.cropmix, cropmix), (c.augmix, augmix))):
        if probability:
            apply, draw = jax.random.split(jax.random.fold_in(key, i))
            x = jnp.where(jax.random.bernoulli(apply, probability), operator(x, c.strength, draw), x)
    return cutout(x, c.cutout, jax.random.fold_in(key, 3)) if c.cutout else x


def _mixed(x: jax.Array, other: jax.Array, both: jax.Array, c: DeviceConfig, key: jax.Array):
    """Picture and the share of it that was kept, by MixUp (arXiv 1710.09412) or CutMix (arXiv 1905.04899)."""
    which, draw, place = jax.random.split(key, 3)
    cut = jax.random.bernoulli(which) if c.mixup and c.cutmix else jnp.bool_(bool(c.cutmix))
    kept = jnp.where(cut, _beta(draw, c.cutmix or 1.0), _beta(draw, c.mixup or 1.0))
    kept = jnp.where(both, kept, 1.0)
    inside = box(place, jnp.sqrt(1 - kept), x.shape[1:3])
    blended = kept * x + (1 - kept) * other
    pasted = jnp.where(inside[None, :, :, None], other, x)
    share = jnp.where(cut, 1 - inside.mean(), kept)  # the area that lies within the picture
    return jnp.where(both, jnp.where(cut, pasted, blended), x), jnp.where(both, share, 1.0)


def _beta(key: jax.Array, alpha: float) -> jax.Array:
    """From Beta(alpha, alpha); for 1 it is uniform, and quicker to compile and to draw."""
    return jax.random.uniform(key) if alpha == 1 else jax.random.beta(key, alpha, alpha)


def box(key: jax.Array, side: jax.Array | float, shape: tuple[int, int]) -> jax.Array:
    """bool[H, W]: a box with sides of this share, about a random place; what is beyond the border is cut off."""
    inside = []
    for n, k in zip(shape, jax.random.split(key), strict=True):
        centre = jax.random.uniform(k, maxval=n)
        inside.append(jnp.abs(jnp.arange(n) + 0.5 - centre) < side * n / 2)
    return inside[0][:, None] & inside[1][None, :]


def cutout(x: jax.Array, side: float, key: jax.Array) -> jax.Array:
    """A square of a picture is 0, the mean of normalised pixels (arXiv 1708.04552). x: float[N, H, W, C]."""
    return jnp.where(box(key, side, x.shape[1:3])[None, :, :, None], 0, x)


def yoco(x: jax.Array, strength: float, key: jax.Array) -> jax.Array:
    """You only cut once (arXiv 2201.12078): the halves of a picture, upper and lower or left and right, change in
    contrast and brightness by themselves. x: float[N, H, W, C]."""
    across, first, second = jax.random.split(key, 3)
    _, h, w, _ = x.shape
    upper = jnp.arange(h)[:, None] < h // 2
    left = jnp.arange(w)[None, :] < w // 2
    half = jnp.where(jax.random.bernoulli(across), upper, left)[None, :, :, None]
    return jnp.where(half, _intensity(x, strength, first), _intensity(x, strength, second))


def cropmix(x: jax.Array, strength: float, key: jax.Array) -> jax.Array:
    """The mean, with Dirichlet(1) weights, of a picture and two random crops of at least half its side, brought to its
    size (after CropMix, arXiv 2205.15955). x: float[N, H, W, C]."""
    weights, crops = jax.random.split(key)
    pictures = jnp.concatenate([x[None], jax.vmap(lambda k: _crop(x, k))(jax.random.split(crops))])
    return jnp.tensordot(_shares(weights, 3), pictures, 1)


def _shares(key: jax.Array, n: int) -> jax.Array:
    """float[n] from Dirichlet(1)."""
    parts = jax.random.exponential(key, (n,))
    return parts / parts.sum()


def _crop(x: jax.Array, key: jax.Array) -> jax.Array:
    size, place = jax.random.split(key)
    scale = 1 / jax.random.uniform(size, minval=0.5)
    shape = jnp.array(x.shape[1:3], x.dtype)
    offset = -jax.random.uniform(place, (2,)) * (scale - 1) * shape
    return jax.image.scale_and_translate(x, x.shape, (1, 2), jnp.full(2, scale), offset, "linear", antialias=False)


def augmix(x: jax.Array, strength: float, key: jax.Array) -> jax.Array:
    """AugMix (arXiv 1912.02781) without its consistency loss: three chains of one to three changes (contrast and
    brightness, shift, blur), mixed by Dirichlet(1), and that with the picture by Beta(1, 1). x: float[N, H, W, C]."""
    weights, skip, chains = jax.random.split(key, 3)
    changed = jax.vmap(lambda k: _chain(x, strength, k))(jax.random.split(chains, _CHAINS))
    kept = jax.random.uniform(skip)
    return kept * x + (1 - kept) * jnp.tensordot(_shares(weights, _CHAINS), changed, 1)


def _chain(x: jax.Array, strength: float, key: jax.Array) -> jax.Array:
    depth_key, key = jax.random.split(key)
    depth = jax.random.randint(depth_key, (), 1, _DEPTH + 1)
    changes = [lambda x, k: _intensity(x, strength, k), lambda x, k: _shift(x, strength, k), lambda x, _: _blur(x)]

    def change(x, at):
        i, key = at
        which, draw = jax.random.split(key)
        changed = jax.lax.switch(jax.random.randint(which, (), 0, len(changes)), changes, x, draw)
        return jnp.where(i < depth, changed, x), None

    return jax.lax.scan(change, x, (jnp.arange(_DEPTH), jax.random.split(key, _DEPTH)))[0]


def _intensity(x: jax.Array, strength: float, key: jax.Array) -> jax.Array:
    gain, offset = jax.random.uniform(key, (2,), minval=-strength, maxval=strength)
    return x * (1 + gain) + offset


def _shift(x: jax.Array, strength: float, key: jax.Array) -> jax.Array:
    """Along both sides by whole pixels; what comes in is 0."""
    for axis, k in zip((1, 2), jax.random.split(key), strict=True):
        n = x.shape[axis]
        by = jnp.round(jax.random.uniform(k, minval=-strength, maxval=strength) * n).astype(int)
        at = jnp.arange(n) - by
        there = ((at >= 0) & (at < n)).reshape([n if a == axis else 1 for a in range(4)])
        x = jnp.where(there, jnp.roll(x, by, axis), 0)
    return x


def _blur(x: jax.Array) -> jax.Array:
    """The mean of 3 x 3 pixels, those beyond the border repeated."""
    for axis in (1, 2):
        pad = [(1, 1) if a == axis else (0, 0) for a in range(4)]
        p, n = jnp.pad(x, pad, "edge"), x.shape[axis]
        x = sum(jax.lax.slice_in_dim(p, i, i + n, axis=axis) for i in range(3)) / 3
    return x
