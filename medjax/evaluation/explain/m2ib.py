"""The multi-modal information bottleneck (M2IB, arXiv 2312.17174): how much of each token a score needs."""

import jax
import jax.numpy as jnp
import optax

from medjax.data.batch import Batch
from medjax.evaluation.explain.inside import Inside, look, of_patches

STEPS, COPIES, START, RATE = 10, 10, 5.0, 1.0


def m2ib(inside: Inside, params, batch: Batch, target: jax.Array, seed: int = 0, beta: float = 1.0) -> jax.Array:
    """float32[n, L - prefix]: nats that a token may keep, not negative.

    At one layer x becomes `l x + (1 - l) e` with `l = sigmoid(a)` of every token and channel and `e` normal noise; a,
    which starts at 5, minimises `beta * mean KL(N(l x, (1 - l)^2) || N(0, 1)) - cos(pooled, target)` by ten steps of
    Adam at rate 1 with ten copies of the noise each. The map is the sum of the KL over channels. As in the released
    code, and other than in Schulz et al. (arXiv 2001.00396), the noise is not scaled to the layer's features, so the
    map depends on their size. The layer is three quarters up (the 9th of 12), of residual networks the last stage.

    The noise of an example comes from (seed, its row) and not from its place in the batch.
    """
    path = f"blocks/block_{inside.blocks * 3 // 4}" if inside.blocks else f"stage_{inside.stages - 1}"
    seen = look(inside, params, batch)
    x = seen.outputs[path].astype(jnp.float32)
    target = target / (jnp.linalg.norm(target, axis=1, keepdims=True) + 1e-12)

    def loss(a, step):
        share = jax.nn.sigmoid(a)
        keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), row), step))(batch.row)
        noise = jax.vmap(lambda key: jax.random.normal(key, (COPIES, *x.shape[1:])), out_axes=1)(keys)

        def cosine(e):
            mixed = share * x + (1 - share) * e
            pooled = look(inside, params, batch, lambda p, y: mixed.astype(y.dtype) if p == path else y).pooled
            return jnp.sum(pooled * target, axis=1) / (jnp.linalg.norm(pooled, axis=1) + 1e-12)

        information = _kl(a, x).reshape(x.shape[0], -1).mean(axis=1)
        return jnp.sum(beta * information - jax.vmap(cosine)(noise).mean(axis=0))

    adam = optax.adam(RATE)  # elementwise, so that examples do not touch each other

    def update(carry, step):
        a, state = carry
        changes, state = adam.update(jax.grad(loss)(a, step), state)
        return (a + changes, state), None

    a = jnp.full(x.shape, START)
    a = jax.lax.scan(update, (a, adam.init(a)), jnp.arange(STEPS))[0][0]
    nats = _kl(a, x).sum(axis=-1).reshape(x.shape[0], -1)
    return of_patches(inside, seen, nats)


def _kl(a: jax.Array, x: jax.Array) -> jax.Array:
    """KL(N(l x, (1 - l)^2) || N(0, 1)) with l = sigmoid(a), elementwise; log(1 - l) without cancellation."""
    share = jax.nn.sigmoid(a)
    return 0.5 * ((share * x) ** 2 + (1 - share) ** 2 - 1) - jax.nn.log_sigmoid(-a)
