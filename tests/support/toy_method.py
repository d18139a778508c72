"""The least contrastive method there is: two linear towers with dropout, one objective, a running sum as state."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from medjax import losses
from medjax.data.batch import Batch, Items
from medjax.methods.base import Encoded
from medjax.sharding import current_batch_axes

MODALITIES = ("a", "b")


@jax.custom_vjp
def times_in_gradient(x, factor):
    """`x`, whose gradient is multiplied by `factor`."""
    return x


times_in_gradient.defvjp(lambda x, factor: (x, factor), lambda factor, ct: (ct * factor, jnp.zeros_like(factor)))


@dataclass(frozen=True)
class Toy:
    """Of a batch of `toy_batch`: targets["gradient"], float32[B], multiplies the gradient of each row's embedding of
    "a", and targets["statistic"], float32[B], is added to the state.
    """

    loss: losses.Objective
    dropout: float = 0.3
    modalities: tuple[str, ...] = MODALITIES

    def init(self, key, batch):
        towers = {m: {"kernel": x, "bias": jnp.zeros(4)} for m, x in zip("ab", _kernels(key), strict=True)}
        return {"towers": towers, "objectives": {"log_scale": jnp.float32(1.0)}}, {"sum": jnp.float32(0)}

    def logical_axes(self, batch):
        return jax.tree.map(lambda x: jax.P(*[None] * x.ndim), jax.eval_shape(self.init, jax.random.key(0), batch)[0])

    def encode(self, params, state, batch, key, train):
        pooled = {}
        for i, m in enumerate(MODALITIES):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, i), batch.row)
            kept = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - self.dropout, (3,)))(keys)
            x = jnp.where(batch.items[m].present[:, None] & kept, batch.items[m].value[:, 0], 0)
            pooled[m] = jnp.tanh(x @ params["towers"][m]["kernel"] + params["towers"][m]["bias"][None])
        pooled["a"] = times_in_gradient(pooled["a"], batch.targets["gradient"][:, None])
        return Encoded(pooled, {m: batch.items[m].present for m in MODALITIES})

    def objective(self, encoded, params, state, batch, key):
        scale = jnp.exp(params["objectives"]["log_scale"])
        axes = current_batch_axes()
        loss = self.loss(encoded.pooled, logit_scale=scale, present=encoded.present, batch_axes=axes)
        return loss, {"sum": state["sum"] + batch.targets["statistic"].sum()}

    def after_update(self, params, state):
        return params, {"sum": state["sum"] * 1}


def _kernels(key):
    return jax.random.normal(key, (2, 3, 4))


def toy_batch(rng, rows: int = 8) -> Batch:
    """Three numbers for each modality, some absent, and an invalid row."""
    items = {m: Items(rng.normal(size=(rows, 1, 3)).astype(np.float32), rng.random((rows, 1)) < 0.8) for m in "ab"}
    targets = {"gradient": np.ones(rows, np.float32), "statistic": np.ones(rows, np.float32)}
    row = np.arange(rows, dtype=np.int32)
    return Batch(items, {}, np.zeros(rows, np.float32), row != 2, targets, row)
