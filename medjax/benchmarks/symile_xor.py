"""The exclusive-or experiment of Symile (arXiv 2411.01053): linear encoders, Symile against pairwise InfoNCE."""

from dataclasses import dataclass
from functools import partial, reduce
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from matplotlib.figure import Figure

from medjax import losses
from medjax.errors import UserError

OBJECTIVES = ("symile", "pairwise")
_NAMES = "abcdefgh"


@dataclass(frozen=True)
class Experiment:
    """What `configs/symile_xor.py` sets, and explains.

    test_sets: how many fresh test sets of `test_rows` the accuracy is averaged over. keep: which parameters are tested,
    those of the epoch with the best validation loss or the last.
    """

    seed: int
    variant: Literal["mixture", "eight", "missing"]
    bits: int
    embed_dim: int
    train_rows: int
    validation_rows: int
    test_rows: int
    test_sets: int
    batch_size: int
    epochs: int
    lr: float
    weight_decay: float
    log_scale: float
    negatives: str
    missingness: float
    keep: Literal["best", "last"]

    def __post_init__(self):
        if self.epochs < 1 or not 0 < self.batch_size <= self.train_rows:
            raise UserError(f"config needs epochs >= 1 and batch_size <= train_rows, got {self.epochs} epochs")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The variables of one sample."""
        return tuple(_NAMES if self.variant == "eight" else _NAMES[:3])

    @property
    def target(self) -> str:
        """The variable that is sought, given all others."""
        return "b" if self.variant == "mixture" else "a"

    def optimum(self, p: float) -> float:
        """The accuracy of the best predictor: certain where c differs from a, a guess in the rest."""
        return p + (1 - p) / 2**self.bits

    def objective(self, name: str) -> losses.Objective:
        """ "symile", or "pairwise": the sum of InfoNCE over all pairs, as in the authors' baseline."""
        if name == "symile":
            return losses.get("symile", modalities=self.modalities, negatives=self.negatives)
        return losses.get("info_nce", modalities=self.modalities, reduction="sum")


class Result(NamedTuple):
    """accuracy, spread: mean and standard deviation over the test sets. loss: of the best epoch on validation.

    scale: the learnt logit scale.
    """

    accuracy: jax.Array
    spread: jax.Array
    loss: jax.Array
    scale: jax.Array


def plot(path: str, shares, optima, symile: list[Result], pairwise: list[Result]) -> None:
    """Writes the curve of accuracies over p as a picture."""
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.plot(shares, optima, color="#9a9a9a", ls=":", label="best possible")
    for name, color, results in (("Symile", "#1f5fa8", symile), ("pairwise InfoNCE", "#b5402f", pairwise)):
        axis.errorbar(
            shares,
            [r.accuracy for r in results],
            [r.spread for r in results],
            color=color,
            marker="o",
            ms=3,
            label=name,
        )
    axis.set(xlabel="p", ylabel="accuracy", ylim=(0, 1.02))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


@partial(jax.jit, static_argnums=(0, 1))
def run(experiment: Experiment, objective: str, p: jax.Array) -> Result:
    """Trains and tests one objective (of `OBJECTIVES`) at the share p of samples that follow the exclusive-or."""
    e, loss_of = experiment, experiment.objective(objective)
    keys = jax.random.split(jax.random.key(e.seed), 5)
    train, validation = (
        draw(e, k, n, p, e.missingness) for k, n in ((keys[0], e.train_rows), (keys[1], e.validation_rows))
    )
    params = _initial(e, keys[2])
    optimizer = optax.adamw(e.lr, weight_decay=e.weight_decay)

    def loss(params, batch, key):
        return loss_of(_encode(params, batch), logit_scale=jnp.exp(params["log_scale"]), key=key).mean()

    def step(carry, given):
        params, state = carry
        rows, key = given
        gradient = jax.grad(loss)(params, {m: x[rows] for m, x in train.items()}, key)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry, key):
        params, state, best, lowest = carry
        shuffle, negatives, check = jax.random.split(key, 3)
        steps = e.train_rows // e.batch_size
        rows = jax.random.permutation(shuffle, e.train_rows)[: steps * e.batch_size].reshape(steps, -1)
        (params, state), _ = jax.lax.scan(step, (params, state), (rows, jax.random.split(negatives, steps)))
        value = loss(params, validation, check)
        best = jax.tree.map(lambda new, old: jnp.where(value < lowest, new, old), params, best)
        return (params, state, best, jnp.minimum(value, lowest)), None

    start = (params, optimizer.init(params), params, jnp.float32(jnp.inf))
    (last, _, best, lowest), _ = jax.lax.scan(epoch, start, jax.random.split(keys[3], e.epochs))
    params = best if e.keep == "best" else last
    found = jax.lax.map(partial(_accuracy, e, loss_of, params, p), jax.random.split(keys[4], e.test_sets))
    return Result(found.mean(), found.std(), lowest, jnp.exp(params["log_scale"]))


def draw(experiment: Experiment, key: jax.Array, rows: int, p: jax.Array, missingness: float) -> dict[str, jax.Array]:
    """`{variable: float32[rows, bits]}` in 0 and 1; the last is the exclusive-or of the others in a share p, else a.

    The variant with missing modalities has an indicator in a further column, and 0.5 where it is one.
    """
    names, keys = experiment.modalities, jax.random.split(key, 3)
    free = jax.random.bernoulli(keys[0], 0.5, (len(names) - 1, rows, experiment.bits))
    follows = jax.random.bernoulli(keys[1], p, (rows, 1))
    last = jnp.where(follows, reduce(jnp.logical_xor, list(free)), free[0])
    data = dict(zip(names, [*free, last], strict=True))
    data = {m: x.astype(jnp.float32) for m, x in data.items()}
    if experiment.variant != "missing":
        return data
    absent = jax.random.bernoulli(keys[2], missingness, (len(names), rows, 1))
    return {
        m: jnp.concatenate([jnp.where(gone, 0.5, x), gone.astype(jnp.float32)], axis=1)
        for (m, x), gone in zip(data.items(), absent, strict=True)
    }


def _candidates(experiment: Experiment) -> jax.Array:
    """Every value of the target, in the order of its bits read as a number."""
    every = (jnp.arange(2**experiment.bits)[:, None] >> jnp.arange(experiment.bits)[None, :]) & 1
    indicator = jnp.zeros((len(every), int(experiment.variant == "missing")))
    return jnp.concatenate([every.astype(jnp.float32), indicator], axis=1)


def _initial(experiment: Experiment, key: jax.Array) -> dict:
    """Linear maps as PyTorch draws them: uniform within one over the root of the inputs."""
    inputs = experiment.bits + (experiment.variant == "missing")
    shape = (inputs + 1, experiment.embed_dim)  # the last row is the bias
    keys = jax.random.split(key, len(experiment.modalities))
    params = {
        m: jax.random.uniform(k, shape, minval=-1, maxval=1) * inputs**-0.5
        for m, k in zip(experiment.modalities, keys, strict=True)
    }
    return params | {"log_scale": jnp.float32(experiment.log_scale)}


def _encode(params: dict, data: dict[str, jax.Array]) -> dict[str, jax.Array]:
    def encode(kernel, x):
        z = x @ kernel[:-1] + kernel[-1:]
        return z / jnp.maximum(jnp.linalg.norm(z, axis=1, keepdims=True), 1e-12)

    return {m: encode(params[m], x) for m, x in data.items()}


def _accuracy(experiment: Experiment, objective: losses.Objective, params: dict, p: jax.Array, key: jax.Array):
    """The share of complete, fresh samples whose target scores highest among all candidates."""
    target = experiment.target
    data = draw(experiment, key, experiment.test_rows, p, missingness=0.0)
    queries = _encode(params, {m: x for m, x in data.items() if m != target})
    candidates = _encode(params, {target: _candidates(experiment)})[target]
    found = jnp.argmax(objective.score(queries, candidates, target), axis=1)
    answer = data[target][:, : experiment.bits] @ 2.0 ** jnp.arange(experiment.bits)
    return jnp.mean(found == answer.astype(jnp.int32))
