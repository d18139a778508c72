"""An MLP on numbers with gaps: values and observed-indicators side by side, as Symile does for lab tests."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.base import Features
from medjax.models.layers import Dropout, dense


@dataclass(frozen=True)
class MlpConfig:
    """hidden: widths of the layers, each followed by an exact GELU; the last is the width of the features."""

    name: str = "mlp"
    hidden: tuple[int, ...] = (256, 256)
    dropout: float = 0.0


class TabularMlp(nn.Module):
    """value: `value` float32[b, F] (zero where missing) and `observed` float32[b, F]."""

    config: MlpConfig

    @nn.compact
    def __call__(self, value: dict, rows: jax.Array, train: bool) -> Features:
        x = jnp.concatenate([value["value"] * value["observed"], value["observed"]], axis=1)
        for i, width in enumerate(self.config.hidden):
            names = ("patch" if i == 0 else None, "embed")
            x = nn.gelu(dense(width, names, jnp.float32, f"layer_{i}")(x), approximate=False)
            x = Dropout(self.config.dropout)(x, rows, train)
        return Features(x, x[:, None], jnp.ones((x.shape[0], 1), bool))
