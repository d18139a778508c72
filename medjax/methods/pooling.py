"""How many items of a study become one, and how modalities are hidden in training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax

from medjax.data.batch import Batch
from medjax.errors import UserError, suggest
from medjax.methods.base import Params
from medjax.models.aggregation import Pool, PoolConfig
from medjax.models.fusion import modality_dropout


@dataclass(frozen=True)
class Pooling:
    """Modules that pool the features of a modality before its projection; without one, projections are averaged."""

    modules: Mapping[str, Pool]

    @classmethod
    def create(cls, pooling: Mapping[str, PoolConfig], modalities: tuple[str, ...]) -> "Pooling":
        """From `config.method.pooling` and the modalities that have a tower.

        Raises:
          UserError: a modality without a tower.
        """
        for m in pooling:
            if m not in modalities:
                raise UserError(f"config.method.pooling.{m}: no tower encodes {m!r}; {suggest(m, modalities)}")
        return cls({m: Pool(c) for m, c in sorted(pooling.items()) if c.name != "mean"})

    def init(self, key: jax.Array, modality: str, x_bnd: jax.Array, mask_bn: jax.Array) -> Params:
        """Fresh parameters of one modality, with logical axis names."""
        return self.modules[modality].init(key, x_bnd, mask_bn)["params"]

    def apply(self, params: Params, modality: str, x_bnd: jax.Array, mask_bn: jax.Array) -> jax.Array:
        """[b, N, D] -> float32[b, D]; zeros where there is no item."""
        return self.modules[modality].apply({"params": params[modality]}, x_bnd, mask_bn)


def hide_modalities(batch: Batch, modalities: tuple[str, ...], key: jax.Array, rate: float) -> Batch:
    """The batch with modalities marked absent at random, by `modality_dropout`."""
    present = {m: batch.items[m].present for m in modalities if m in batch.items}
    kept = modality_dropout(key, batch.row, present, rate)
    hidden = {m: replace(batch.items[m], mask=batch.items[m].mask & kept[m][:, None]) for m in kept}
    return replace(batch, items={**batch.items, **hidden})
