"""What every objective promises at the edge: empty batches, single rows, identical and huge vectors."""

import jax
import jax.numpy as jnp
import numpy as np

from medjax import losses


def assert_limits(name: str, options: dict, embeddings: dict, *, logit_scale: float = 5.0, **batch) -> None:
    """Nothing present: zero value and gradient. One row, rows alike, vectors of length 1000: finite.

    embeddings: `{modality: float32[b, E]}`; batch: keywords of the objective. Tiles are smaller than the batch.
    """
    objective = losses.get(name, impl="gather", block=3, **options)

    @jax.jit
    def run(z, scale, present):
        def call(z, scale):
            return objective(z, logit_scale=scale, present=present, **batch).mean()

        return jax.value_and_grad(call, argnums=(0, 1))(z, scale)

    z, scale = jax.tree.map(jnp.asarray, embeddings), jnp.float32(logit_scale)
    rows = len(next(iter(z.values())))
    full, nothing = ({m: np.full(rows, here) for m in z} for here in (True, False))
    value, gradient = run(z, scale, nothing)
    assert value == 0.0
    assert not any(np.any(g) for g in jax.tree.leaves(gradient))
    cases = {
        "one row": (z, {m: np.arange(rows) == rows - 1 for m in z}),
        "rows alike": ({m: jnp.broadcast_to(x[:1], x.shape) for m, x in z.items()}, full),
        "all alike": ({m: jnp.ones_like(x) for m, x in z.items()}, full),
        "zeros": ({m: jnp.zeros_like(x) for m, x in z.items()}, full),
        "huge": ({m: 1e3 * x for m, x in z.items()}, full),
    }
    for case, (vectors, present) in cases.items():
        for leaf in jax.tree.leaves(run(vectors, scale, present)):
            assert np.isfinite(leaf).all(), case
