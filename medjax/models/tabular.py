"""Encoders of tables of numbers with gaps. Shapes: b rows, F numbers, D width."""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.base import Features
from medjax.models.layers import Dropout, default_rows, dense
from medjax.models.partitioning import named
from medjax.models.trunk import Trunk, TrunkConfig


@dataclass(frozen=True)
class MlpConfig:
    """hidden: widths of the layers, each followed by an exact GELU; the last is the width of the features. variant:
    "symile" for the encoder of lab tests of arXiv 2411.01053 up to its projection, which goes with
    scaling="percentile" of the data and a head of its own.
    """

    name: str = "mlp"
    variant: str = ""
    hidden: tuple[int, ...] = (256, 256)
    dropout: float = 0.0


class TabularMlp(nn.Module):
    """An MLP on values and observed-indicators side by side. value: float32[b, F]."""

    config: MlpConfig

    @nn.compact
    def __call__(self, value: jax.Array, rows=None, train: bool = False, observed: jax.Array | None = None) -> Features:
        """observed: float32[b, F], 1 where there is a value; default all."""
        rows = default_rows(rows, value.shape[0])
        observed = jnp.ones_like(value) if observed is None else observed
        x = jnp.concatenate([value * observed, observed], axis=1)
        for i, width in enumerate(self.config.hidden):
            names = ("patch" if i == 0 else None, "embed")
            x = nn.gelu(dense(width, names, jnp.float32, f"layer_{i}")(x), approximate=False)
            x = Dropout(self.config.dropout)(x, rows, train)
        return Features(x, x[:, None], jnp.ones((x.shape[0], 1), bool))


@dataclass(frozen=True)
class LabsTransformerConfig(TrunkConfig):
    """missing: numbers without a value are "masked", left out of the attention, or a learnt "token" of their own, so
    that their absence speaks. variant: "default" for the sizes of the paper.
    """

    name: str = "labs_transformer"
    variant: str = ""
    missing: Literal["masked", "token"] = "masked"
    width: int = 192
    depth: int = 3
    heads: int = 8


class LabsTransformer(Trunk):
    """A transformer whose tokens are numbers, `x_j * W_j + b_j` (FT-Transformer, arXiv 2106.11959, section 3.3).

    Other than there, the class token stands first, the first block keeps its norm, and features are its last norm's
    output. value: float32[b, F].
    """

    config: LabsTransformerConfig

    @nn.compact
    def __call__(self, value: jax.Array, rows=None, train: bool = False, observed: jax.Array | None = None) -> Features:
        """observed: float32[b, F], 1 where there is a value; default all."""
        c, (b, numbers) = self.config, value.shape
        there = jnp.ones(value.shape, bool) if observed is None else observed > 0

        names = ("weight", "bias", "missing") if c.missing == "token" else ("weight", "bias")
        init, shape = named(_uniform, None, "tokens", "embed"), (1, numbers, c.width)
        tables = {name: self.param(f"number_{name}", init, shape) for name in names}
        x = jnp.where(there, value, 0)[..., None] * tables["weight"] + tables["bias"]
        if c.missing == "masked":
            return self.run(x, default_rows(rows, b), train, keep=there)
        x = jnp.where(there[..., None], x, tables["missing"])
        return self.run(x, default_rows(rows, b), train)


def _uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Between -1 and 1 over the root of the width, as the released FT-Transformer starts."""
    return jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0) * shape[-1] ** -0.5
