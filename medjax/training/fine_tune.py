"""Fine-tuning for labels: a linear layer on the embeddings, trained together with the towers that make them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from medjax.config import merge
from medjax.data.batch import Batch
from medjax.evaluation.choosing import value
from medjax.methods.encoder import Encoder
from medjax.methods.masked_autoencoder import MaskedAutoencoder
from medjax.training.optimizer import Optimizer, OptimizerConfig
from medjax.training.selection import parameter_names

HEAD = "probe"
_TRAINED = ("towers", "lora")


@dataclass(frozen=True)
class FineTuneConfig:
    """epochs: of `steps` updates each. lr: of the towers' AdamW, falling to 0 as a cosine after a tenth of warm-up;
    head_factor: times that of the linear layer. layer_decay: see `OptimizerConfig`."""

    steps: int
    epochs: int = 10
    lr: float = 3e-4
    head_factor: float = 10.0
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class FineTuned:
    """encoder: with the towers of the best epoch, the first of the best on validation. epoch: which, 0 is before
    training. validation: mean AUROC after each epoch. loss: mean training loss of each epoch. logits: of batches."""

    encoder: Encoder
    epoch: int
    validation: tuple[float, ...]
    loss: tuple[float, ...]
    logits: Callable[[Iterable[Batch]], tuple[np.ndarray, np.ndarray]]


def fine_tune(
    encoder: Encoder,
    modalities: Sequence[str],
    columns: Sequence[int],
    train: Iterator[Batch],
    validation: Callable[[], Iterable[Batch]],
    scale: tuple[np.ndarray, np.ndarray],
    config: FineTuneConfig,
) -> FineTuned:
    """Trains towers (and what LoRA adds to them) of these modalities and a linear layer on their embeddings, which
    starts at zero; all else of the method stays as it is. The loss is the sum over labels of the mean cross entropy.

    columns: of the labels. train: endless batches. scale: mean and spread of the joined embeddings before training,
    float32[D], which the linear layer goes on standardising by. A masked autoencoder is given its whole input.
    """
    model = _Model(encoder, tuple(modalities), tuple(columns), *(jnp.asarray(s, jnp.float32) for s in scale))
    head = {"w": jnp.zeros((len(scale[0]), len(columns))), "b": jnp.zeros(len(columns))}
    other = set(encoder.modalities) - set(modalities)  # what towers share is trained with them
    free = {k: {m: x for m, x in encoder.params[k].items() if m not in other} for k in model.roots}
    free = jax.tree.map(jnp.asarray, free | {HEAD: head})
    total = config.steps * config.epochs
    options = OptimizerConfig(
        lr=config.lr,
        weight_decay=config.weight_decay,
        layer_decay=config.layer_decay,
        lr_multipliers=((f"{HEAD}/.*", config.head_factor),),
    )
    tx = Optimizer.create(options, {"total": total, "warmup": total // 10}, lambda: parameter_names(free)).tx
    step = jax.jit(partial(_step, model, tx))
    logits = jax.jit(model.logits)
    carry, best = (free, encoder.state, tx.init(free)), (0.0, 0, free, encoder.state)
    scores, losses = [], []
    for epoch in range(1, config.epochs + 1):
        found = []
        for i in range((epoch - 1) * config.steps, epoch * config.steps):
            key = jax.random.fold_in(jax.random.key(config.seed), i)
            carry, loss = step(carry, next(train).select(modalities), key)
            found.append(loss)
        losses.append(float(np.mean(jax.device_get(found))))
        scores.append(_mean_auroc(*_collect(logits, model, carry[0], carry[1], validation())))
        if scores[-1] > best[0]:
            best = scores[-1], epoch, carry[0], carry[1]
    _, epoch, free, state = best
    tuned = replace(encoder, params=merge(encoder.params, {k: free[k] for k in model.roots}), state=state)
    return FineTuned(tuned, epoch, tuple(scores), tuple(losses), partial(_collect, logits, model, free, state))


@dataclass(frozen=True, eq=False)
class _Model:
    encoder: Encoder
    modalities: tuple[str, ...]
    columns: tuple[int, ...]
    mean: jax.Array
    std: jax.Array

    @property
    def roots(self) -> list[str]:
        return [k for k in _TRAINED if k in self.encoder.params]

    def encode(self, free, state, batch: Batch, key: jax.Array | None, train: bool):
        """Logits float32[B, K], and the method's state after them."""
        params = merge(self.encoder.params, {k: free[k] for k in self.roots})
        encoded = self.encoder.method.encode(params, state, batch.only_valid(), key, train)
        if encoded.updates:
            state = {**state, "batch_stats": {**state["batch_stats"], **encoded.updates}}
        there = [encoded.present[m][:, None].astype(jnp.float32) for m in self.modalities]
        parts = [encoded.pooled[m].astype(jnp.float32) * p for m, p in zip(self.modalities, there, strict=True)]
        x = (jnp.concatenate([*parts, *there], axis=1) - self.mean[None]) / self.std[None]
        return x @ free[HEAD]["w"] + free[HEAD]["b"][None], state

    def logits(self, free, state, batch: Batch) -> jax.Array:
        return self.encode(free, state, batch, None, False)[0]

    def targets(self, batch: Batch):
        """Labels float32[B, K], and bool[B, K] where they are known."""
        at = np.asarray(self.columns)
        return batch.targets["labels"][:, at], batch.targets["labels_mask"][:, at] & batch.valid[:, None]


def _step(model: _Model, tx: optax.GradientTransformation, carry, batch: Batch, key: jax.Array):
    free, state, optimizer = carry
    whole = isinstance(model.encoder.method, MaskedAutoencoder)  # with a key it would hide most of its input

    def loss_of(free):
        logits, new = model.encode(free, state, batch, None if whole else key, not whole)
        target, known = model.targets(batch)
        return cross_entropy(logits, target, known), new

    (loss, state), gradient = jax.value_and_grad(loss_of, has_aux=True)(free)
    updates, optimizer = tx.update(gradient, optimizer, free)
    return (optax.apply_updates(free, updates), state, optimizer), loss


def cross_entropy(logits: jax.Array, target: jax.Array, known: jax.Array) -> jax.Array:
    """float32[]: the sum over labels of the mean over the examples where they are known. All are [B, K]."""
    each = optax.sigmoid_binary_cross_entropy(logits, jnp.where(known, target, 0.0)) * known
    return jnp.sum(each.sum(axis=0) / jnp.maximum(known.sum(axis=0), 1))


def _collect(logits, model: _Model, free, state, batches: Iterable[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of the valid examples, float32[n, K] each, labels NaN where unknown."""
    rows = []
    for batch in batches:
        found = np.asarray(logits(free, state, batch.select(model.modalities)))
        target, known = model.targets(batch)
        rows.append((found[batch.valid], np.where(known, target, np.nan)[batch.valid]))
    return tuple(np.concatenate(x) for x in zip(*rows, strict=True))


def _mean_auroc(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([value(logits[:, k], labels[:, k], False) for k in range(labels.shape[1])]))
