"""Transformers over electrocardiograms."""

from dataclasses import dataclass
from typing import Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.errors import UserError
from medjax.models.base import Features
from medjax.models.layers import default_rows, dense, position_init
from medjax.models.partitioning import named
from medjax.models.positions import resize_positions
from medjax.models.trunk import Trunk, TrunkConfig


@dataclass(frozen=True)
class EcgVitConfig(TrunkConfig):
    """variant: a size by its published name (`medjax.models.sizes`), further options change it. patch: samples.

    tokens: "time", windows of all leads together; "lead_time", windows of each lead for itself, with positions of lead
    and of time added, so that absent leads are absent from attention; "conv", windows of five samples seen by two
    convolutions of kernel 5, as MoRE's code does: 1000 samples become 196 tokens (patch has no part in it). Records of
    another length take the positions of time interpolated.
    """

    name: str = "ecg_vit"
    variant: str = ""
    patch: int = 16
    tokens: Literal["time", "lead_time", "conv"] = "time"


class EcgTransformer(Trunk):
    """value: [b, C, T], leads and samples."""

    config: EcgVitConfig

    def patchify(self, value: jax.Array) -> jax.Array:
        """[b, L, P]: windows; of all leads together leads, then time, or of one lead after the other.

        Raises:
          UserError: the samples do not divide into patches, or tokens="conv", which overlap.
        """
        c = self.config
        if c.tokens == "conv":
            raise UserError("an ecg_vit with tokens='conv' has no patches to restore; use 'time' or 'lead_time'")
        if value.shape[2] % c.patch:
            raise UserError(
                f"an ECG of {value.shape[2]} samples does not divide into patches of {c.patch}; change samples or patch"
            )
        how = "b c (l p) -> b l (c p)" if c.tokens == "time" else "b c (l p) -> b (c l) p"
        return einops.rearrange(value, how, p=c.patch)

    @nn.compact
    def __call__(
        self,
        value: jax.Array,
        rows=None,
        train: bool = False,
        leads: jax.Array | None = None,
        visible: jax.Array | None = None,
        embedded: bool = False,
    ) -> Features | tuple[jax.Array, jax.Array | None]:
        """leads: bool[b, C], those that were recorded; default all. visible: int32[b, K], the patches to encode.
        embedded: stop at the patches with their positions, [b, L, D], and which of them exist, bool[b, L] or None."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        if leads is not None:
            value = jnp.where(leads[..., None], value, 0.0)
        keep = None
        if c.tokens == "conv":
            x = self._convolve(value.astype(dtype))
        else:
            x = dense(c.width, ("patch", "embed"), dtype, "patch_embed")(self.patchify(value).astype(dtype))
        channels = value.shape[1] if c.tokens == "lead_time" else 1
        steps = x.shape[1] // channels
        table = self.table("positions", steps)[0]
        positions = resize_positions(table, table.shape[:1], (steps,))[None]
        if c.tokens == "lead_time":
            init = named(position_init, None, "tokens", "embed")
            positions = positions + self.param("lead_positions", init, (1, channels, c.width))[0, :, None]
            keep = None if leads is None else jnp.repeat(leads, steps, axis=1)
        x = x + positions.reshape(1, -1, c.width).astype(dtype)
        if embedded:
            return x, keep
        return self.run(x, default_rows(rows, x.shape[0]), train, keep, visible)

    def _convolve(self, x_bct: jax.Array) -> jax.Array:
        """[b, L, D] of [b, C, T]: two convolutions of kernel 5, strides 5 and 1, as in MoRE's released code, whose
        batch norms are layer norms here."""
        x = x_bct.transpose(0, 2, 1)
        for i, (features, stride) in enumerate(((256, 5), (self.config.width, 1))):
            x = nn.Conv(features, (5,), (stride,), padding="VALID", dtype=x_bct.dtype, name=f"conv_{i}")(x)
            x = nn.relu(nn.LayerNorm(name=f"norm_conv_{i}", use_fast_variance=False)(x)).astype(x_bct.dtype)
        return x
