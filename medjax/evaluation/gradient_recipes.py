"""Recipes of probes that are trained by stochastic gradient descent, all labels and all learning rates at once."""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from medjax.evaluation.choosing import Fitted, first_best, value

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
EPOCHS = 100
BATCH = 128
_SCORED = 8192  # rows


def sgd(
    x: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    exclusive: bool = False,
    *,
    hidden: int = 0,
    rates: Sequence[float] = RATES,
    epochs: int = EPOCHS,
    batch: int = BATCH,
    seed: int = 0,
) -> Fitted:
    """A linear layer, or with `hidden` units a perceptron of one layer, by SGD with momentum 0.9 and a learning rate
    that falls to 0 as a cosine (the linear evaluation of DINO, arXiv 2104.14294), the rate among `rates`.

    The loss is the mean cross entropy of the known labels: of sigmoids, or of a softmax over an exclusive group.
    Batches are of `batch` examples, drawn anew every epoch, the rest left out; seed: of order and initialisation.
    """
    y = jnp.asarray(labels["train"])
    inputs = jnp.asarray(x["train"], jnp.float32)
    fit = partial(_train, exclusive=exclusive, hidden=hidden, epochs=epochs, batch=min(batch, len(inputs)))
    params = jax.jit(jax.vmap(fit, (None, None, 0, None)))(inputs, y, jnp.asarray(rates, jnp.float32), seed)
    scored = {k: _scores(params, x[k]) for k in ("validation", "test")}
    truth = labels["validation"]

    def best(column: slice | int) -> int:
        return first_best(
            range(len(rates)), lambda i: value(scored["validation"][i][:, column], truth[:, column], exclusive)
        )

    picks = [best(slice(None))] if exclusive else [best(k) for k in range(y.shape[1])]
    at = picks * y.shape[1] if exclusive else picks
    scores = {k: np.stack([s[i][:, c] for c, i in enumerate(at)], axis=1) for k, s in scored.items()}
    return Fitted(scores, [{"learning_rate": rates[i]} for i in picks])


def mlp(x: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], exclusive: bool = False) -> Fitted:
    """A perceptron with one hidden layer of 128 units (ReLU) that all labels share, trained as `sgd`."""
    return sgd(x, labels, exclusive, hidden=128)


def _train(x, y, rate, seed, *, exclusive: bool, hidden: int, epochs: int, batch: int):
    """Parameters after all epochs. rate: float32[]."""
    n, key = len(x), jax.random.key(seed)
    params = _init(jax.random.fold_in(key, epochs), x.shape[1], hidden, y.shape[1])
    steps = epochs * (n // batch)
    tx = optax.sgd(lambda step: rate * 0.5 * (1 + jnp.cos(jnp.pi * step / steps)), momentum=0.9)
    known = ~jnp.isnan(y)
    target = jnp.where(known, y, 0.0)

    def loss(params, rows):
        logits, t, w = logits_of(params, x[rows]), target[rows], known[rows]
        if exclusive:
            w, each = w[:, :1], optax.softmax_cross_entropy(logits, t)[:, None]
        else:
            each = optax.sigmoid_binary_cross_entropy(logits, t)
        # By column, so that how many other labels there are does not change the steps of one.
        return jnp.sum(jnp.sum(each * w, axis=0) / jnp.maximum(jnp.sum(w, axis=0), 1))

    def step(carry, rows):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, rows), state)
        return (optax.apply_updates(params, updates), state), None

    orders = jax.vmap(lambda e: jax.random.permutation(jax.random.fold_in(key, e), n))(jnp.arange(epochs))
    orders = orders[:, : n // batch * batch].reshape(steps, batch)
    return jax.lax.scan(step, (params, tx.init(params)), orders)[0][0]


def _init(key: jax.Array, width: int, hidden: int, outputs: int):
    """Zeros for a linear layer; a hidden one is drawn as by He et al. (arXiv 1502.01852)."""
    if not hidden:
        return {"w": jnp.zeros((width, outputs)), "b": jnp.zeros(outputs)}
    first = jax.random.normal(key, (width, hidden)) * jnp.sqrt(2 / width)
    return {"w0": first, "b0": jnp.zeros(hidden), "w": jnp.zeros((hidden, outputs)), "b": jnp.zeros(outputs)}


def logits_of(params: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    """float32[n, K]."""
    if "w0" in params:
        x = jax.nn.relu(x @ params["w0"] + params["b0"][None])
    return x @ params["w"] + params["b"][None]


def _scores(params, x: np.ndarray) -> np.ndarray:
    """float32[rates, n, K]."""
    every = jax.vmap(logits_of, (0, None))
    parts = [np.asarray(every(params, jnp.asarray(x[i : i + _SCORED], jnp.float32))) for i in range(0, len(x), _SCORED)]
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(params["b"]), 0, params["b"].shape[1]))
