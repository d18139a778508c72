"""The encoders of a method: made from configuration, initialised, and applied to the items of a batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from medjax.data.batch import Batch, Items
from medjax.errors import UserError, suggest
from medjax.models import Features, make_tower


@dataclass(frozen=True)
class Towers:
    """One Linen module a modality."""

    modules: Mapping[str, Any]

    @classmethod
    def create(cls, towers: Mapping[str, Mapping[str, Any]], specs: Mapping[str, Mapping[str, Any]]) -> "Towers":
        """From `config.method.towers` and the preprocessing of each modality.

        Raises:
          UserError: no tower, or a tower for a modality that the data section does not read.
        """
        if not towers:
            raise UserError("config.method.towers is empty; name an encoder for each modality")
        for name in towers:
            if name not in specs:
                raise UserError(
                    f"config.method.towers.{name}: config.data.modalities has no {name!r}; {suggest(name, specs)}"
                )
        return cls({m: make_tower(m, towers[m], specs[m]) for m in sorted(towers)})

    def init(self, key: jax.Array, batch: Batch) -> dict[str, Any]:
        """`{modality: parameters}`, with logical axis names."""
        out = {}
        for i, (m, module) in enumerate(self.modules.items()):
            value, rows = _flatten(batch.items[m], batch.row)
            out[m] = module.init(jax.random.fold_in(key, i), value, rows, False)["params"]
        return out

    def apply(self, params, modality: str, batch: Batch, key: jax.Array | None, train: bool, **options) -> Features:
        """Features of all items of a modality, `[B * N, ...]`; `unflatten` gives them their two axes back."""
        value, rows = _flatten(batch.items[modality], batch.row)
        rngs = {} if key is None or not train else {"dropout": key}
        return self.modules[modality].apply({"params": params[modality]}, value, rows, train, rngs=rngs, **options)


def _flatten(items: Items, row: jax.Array) -> tuple[Any, jax.Array]:
    """Items as rows `[B * N, ...]`, with a row number of their own that does not depend on how the batch is cut."""
    b, n = items.mask.shape
    value = jax.tree.map(lambda x: x.reshape(b * n, *x.shape[2:]), items.value)
    rows = (row[:, None] * n + jnp.arange(n)[None]).reshape(b * n)
    return value, rows


def unflatten(x: jax.Array, items: Items) -> jax.Array:
    """[B * N, ...] -> [B, N, ...]."""
    return x.reshape(*items.mask.shape, *x.shape[1:])
