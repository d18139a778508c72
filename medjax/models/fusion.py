"""Several modalities into one state, some of them missing. Shapes: b rows, M modalities, D_m and S widths."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.errors import UserError, suggest
from medjax.models.layers import dense, embed_init, row_keys
from medjax.models.partitioning import named


class SequentialFusion(nn.Module):
    """Modality by modality `state <- encoder_m(state, x_m)`, from a learnt first state (MultiModN).

    A missing modality leaves the state of its row as it was. The released code skips a modality for the whole batch
    if one row lacks it; here each row is for itself. The encoders, an MLP with one GELU layer on state and features
    side by side, are ours.

    modalities: in this order. width: S. hidden: width of the GELU layer.
    """

    modalities: tuple[str, ...]
    width: int
    hidden: int

    @nn.compact
    def __call__(self, features: Mapping[str, jax.Array], present: Mapping[str, jax.Array]) -> jax.Array:
        """features: `{modality: [b, D_m]}`; present: `{modality: bool[b]}` of the same modalities. One that is left out
        is missing in every row.

        Returns:
          float32[b, M + 1, S], the first state and that after each modality: decoders may read any, the last is the
          whole.

        Raises:
          UserError: no features, or those of a modality that is not fused.
        """
        for m in features:
            if m not in self.modalities:
                raise UserError(f"the fusion has no modality {m!r}; {suggest(m, self.modalities)}")
        if not features:
            raise UserError(f"the fusion got no features; give at least one of {', '.join(self.modalities)}")
        b = next(iter(features.values())).shape[0]
        first = self.param("state", named(embed_init, "embed"), (self.width,))
        states = [jnp.broadcast_to(first, (b, self.width))]
        for m in self.modalities:
            state = states[-1]
            if m in features:
                there = present[m][:, None]
                x = jnp.where(there, features[m].astype(jnp.float32), 0)
                x = jnp.concatenate([state, x], axis=1)
                x = nn.gelu(dense(self.hidden, ("embed", "mlp"), jnp.float32, f"{m}_hidden")(x), approximate=False)
                state = jnp.where(there, dense(self.width, ("mlp", "embed"), jnp.float32, f"{m}_out")(x), state)
            states.append(state)
        return jnp.stack(states, axis=1)


def modality_dropout(
    key: jax.Array, rows: jax.Array, present: Mapping[str, jax.Array], rate: float
) -> dict[str, jax.Array]:
    """Hides modalities at random, of each row for itself and never its last one.

    Every modality is drawn with probability `rate`; of a row whose modalities all are, one stays. The draw depends on
    the global row and the names of the modalities, not on how the batch is cut.

    rows: int32[b], global. present: `{modality: bool[b]}`. Returns the same, with fewer true.
    """
    names = sorted(present)
    there = jnp.stack([present[m] for m in names], axis=1)
    drawn = jax.vmap(lambda k: jax.random.uniform(k, (len(names),)))(row_keys(key, rows))
    highest = jnp.max(jnp.where(there, drawn, -1.0), axis=1, keepdims=True)
    kept = there & ((drawn >= rate) | (drawn == highest))
    return {m: kept[:, names.index(m)] for m in present}
