"""Residual networks of pictures and ECGs (arXiv 1512.03385). b rows, C channels or leads, T samples, D width."""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.models.base import Features
from medjax.models.batch_norm import BatchNorm
from medjax.models.partitioning import constrain, named

_REDUCTION = 4  # of a bottleneck
_EPSILON = 1e-5
_kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclass(frozen=True)
class ResNetConfig:
    """variant: a size by its published name (`medjax.models.sizes`), further options change it. block: two convolutions
    or a bottleneck of three. depths: how many blocks each stage has.

    channels: of the first convolution, 0 for those of the data; data of one channel are repeated to fill them. So
    weights for RGB take grey pictures. stem: width of the first convolution. widths: of the stages; by default
    `stem * 2**i`, in bottlenecks four times that. D is the last. downsample_in_bottleneck: the stride of a stage lies
    in its first 1x1 convolution, as in the paper; otherwise in the 3x3 one, as in torchvision ("v1.5"). norm: "batch"
    couples the rows of a training batch, "group" (arXiv 1803.08494) does not. groups: of "group". frozen_statistics:
    batch norms take their running statistics in training too, and leave them, which a locked tower wants. remat: "full"
    recomputes blocks in the backward pass. dtype: of the computation; parameters and norms are float32.
    """

    name: str = "resnet"
    variant: str = ""
    block: Literal["basic", "bottleneck"] = "bottleneck"
    depths: tuple[int, ...] = (3, 4, 6, 3)
    channels: int = 0
    stem: int = 64
    widths: tuple[int, ...] = ()
    downsample_in_bottleneck: bool = False
    norm: Literal["batch", "group"] = "batch"
    groups: int = 32
    frozen_statistics: bool = False
    remat: Literal["none", "full"] = "none"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        if self.widths and len(self.widths) != len(self.depths):
            raise UserError(f"a resnet needs as many widths as depths, got {len(self.widths)} and {len(self.depths)}")
        inner = tuple(w // _REDUCTION for w in self.stage_widths) if self.bottleneck else ()
        if self.bottleneck and (wrong := [w for w in self.stage_widths if w % _REDUCTION]):
            raise UserError(f"a resnet's widths of bottlenecks must divide by {_REDUCTION}, got {wrong[0]}")
        normed = (self.stem, *inner, *self.stage_widths)
        if self.norm == "group" and (wrong := [w for w in normed if w % self.groups]):
            raise UserError(f"a resnet's groups={self.groups} must divide all its widths, and {wrong[0]} is one")

    @property
    def bottleneck(self) -> bool:
        """Whether blocks are bottlenecks."""
        return self.block == "bottleneck"

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """The channels that leave each stage."""
        factor = _REDUCTION if self.bottleneck else 1
        return self.widths or tuple(self.stem * 2**i * factor for i in range(len(self.depths)))


class ConvNorm(nn.Module):
    """A convolution along all axes between the first and the last, padded as in PyTorch, and a norm."""

    config: ResNetConfig
    features: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, present: jax.Array | None, train: bool) -> jax.Array:
        c, axes = self.config, x.ndim - 2
        x = nn.Conv(
            self.features,
            (self.kernel,) * axes,
            self.stride,
            [(self.kernel // 2, self.kernel // 2)] * axes,
            use_bias=False,
            dtype=jnp.dtype(c.dtype),
            kernel_init=named(_kernel_init, *(None,) * x.ndim),
            name="conv",
        )(x)
        if c.norm == "batch":
            x = BatchNorm(_EPSILON, name="norm")(x, present, train and not c.frozen_statistics)
        else:
            x = nn.GroupNorm(c.groups, epsilon=_EPSILON, use_fast_variance=False, name="norm")(x)
        return x.astype(c.dtype)


class Block(nn.Module):
    """Two or three convolutions with a residual, which is projected where its shape changes."""

    config: ResNetConfig
    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, present: jax.Array | None, train: bool) -> jax.Array:
        c, inner = self.config, self.width // _REDUCTION
        if c.bottleneck:
            first, second = (self.stride, 1) if c.downsample_in_bottleneck else (1, self.stride)
            layers = ((inner, 1, first), (inner, 3, second), (self.width, 1, 1))
        else:
            layers = ((self.width, 3, self.stride), (self.width, 3, 1))
        y = x
        for i, layer in enumerate(layers):
            y = ConvNorm(c, *layer, name=f"layer_{i}")(nn.relu(y) if i else y, present, train)
        if x.shape[-1] != self.width or self.stride != 1:
            x = ConvNorm(c, self.width, 1, self.stride, name="shortcut")(x, present, train)
        return nn.relu(x + y)


class Stage(nn.Module):
    """Blocks of one width; the first takes the stride."""

    config: ResNetConfig
    width: int
    depth: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, present: jax.Array | None, train: bool) -> jax.Array:
        block = Block if self.config.remat == "none" else nn.remat(Block, static_argnums=(3,))
        for i in range(self.depth):
            x = block(self.config, self.width, self.stride if i == 0 else 1, name=f"block_{i}")(x, present, train)
        return constrain(x, "batch", *(None,) * (x.ndim - 1))


class ResNet(nn.Module):
    """value: pictures [b, H, W, C]. Tokens are the places of the last feature map, row by row, a 32nd of each side;
    pooled is their mean.
    """

    config: ResNetConfig

    @nn.compact
    def __call__(
        self,
        value: jax.Array,
        rows: jax.Array | None = None,
        train: bool = False,
        present: jax.Array | None = None,
    ) -> Features:
        """present: bool[b], the rows that count in the statistics of batch norms; None: all. There is no randomness,
        so `rows` has no effect.
        """
        c, axes = self.config, value.ndim - 2
        x = ConvNorm(c, c.stem, 7, 2, name="stem")(_filled(value, c.channels).astype(c.dtype), present, train)
        x = nn.max_pool(nn.relu(x), (3,) * axes, (2,) * axes, [(1, 1)] * axes)
        for i, (width, depth) in enumerate(zip(c.stage_widths, c.depths, strict=True)):
            x = Stage(c, width, depth, 1 if i == 0 else 2, name=f"stage_{i}")(x, present, train)
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        return Features(tokens.mean(axis=1), tokens, jnp.ones(tokens.shape[:2], bool))


class EcgResNet(ResNet):
    """value: ECGs [b, C, T], convolved along time; tokens are windows of 32 samples."""

    def __call__(
        self,
        value: jax.Array,
        rows: jax.Array | None = None,
        train: bool = False,
        leads: jax.Array | None = None,
        present: jax.Array | None = None,
    ) -> Features:
        """leads: bool[b, C]; the others are read as zeros. See `ResNet` for the rest."""
        return super().__call__(self.laid_out(_only(leads, value)), rows, train, present)

    def laid_out(self, value_bct: jax.Array) -> jax.Array:
        """[b, T, C]: what is convolved."""
        return value_bct.swapaxes(1, 2)


class EcgImageResNet(EcgResNet):
    """value: ECGs [b, C, T] as pictures of one channel, T high and C wide, as Symile-MIMIC encodes them."""

    def laid_out(self, value_bct: jax.Array) -> jax.Array:
        """[b, T, C, 1]"""
        return value_bct.swapaxes(1, 2)[..., None]


def _only(leads: jax.Array | None, value_bct: jax.Array) -> jax.Array:
    return value_bct if leads is None else jnp.where(leads[..., None], value_bct, 0)


def _filled(x: jax.Array, channels: int) -> jax.Array:
    """Data of one channel repeated.

    Raises:
      UserError: data of another number of channels than the weights.
    """
    if channels and x.shape[-1] not in (1, channels):
        raise UserError(f"the resnet has weights for {channels} channels, and the data have {x.shape[-1]}")
    return jnp.broadcast_to(x, (*x.shape[:-1], channels or x.shape[-1]))
