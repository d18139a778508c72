"""One update, and one evaluation of the loss, as jitted functions of state and global batch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medjax.config import merge
from medjax.data.batch import Batch
from medjax.methods import Encoded, Method
from medjax.training import ema
from medjax.training.accumulate import encode_in_micro_batches
from medjax.training.selection import trained
from medjax.training.state import TrainState

_AUGMENT = 7000  # folded into the key of a step; others come from splitting it


def make_train_step(
    method: Method,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    seed: int,
    frozen: frozenset[str] = frozenset(),
    augment: Callable[[Batch, jax.Array], Batch] | None = None,
    micro_batch: int = 0,
    ema_decay: float = 0.0,
    schedules: Mapping[str, optax.Schedule] = MappingProxyType({}),
) -> Callable:
    """`(state, batch) -> (state, metrics)`; all randomness comes from (seed, step, row).

    frozen: paths of parameters that stay as they are; the loss is not differentiated by them, and the optimizer does
    not know of them. augment: of a batch with a key, before anything is encoded. micro_batch: examples that a device
    encodes at once, 0 for all (`medjax.training.accumulate`). ema_decay: of the moving average of the weights, 0 for
    none (`medjax.training.ema`). schedules: of parameters that do not follow `schedule`, by pattern, for the metrics.

    A step whose loss, gradient, update or new method state is not finite leaves parameters, their average, optimizer
    and method state untouched and is counted.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        batch = batch.only_valid()
        step_key = jax.random.fold_in(jax.random.key(seed), state.step)
        encode_key, objective_key = jax.random.split(step_key)
        if augment is not None:
            batch = augment(batch, jax.random.fold_in(step_key, _AUGMENT))
        free = trained(state.params, frozen)

        def loss_of(free):
            params = merge(state.params, free)
            with jax.named_scope("encode"):  # what traces show
                encoded = encode_in_micro_batches(
                    lambda rows: method.encode(params, state.method, rows, encode_key, True), batch, micro_batch
                )
            with jax.named_scope("objective"):
                loss, method_state = method.objective(encoded, params, state.method, batch, objective_key)
            return loss.mean(), (loss.metrics(), method_state)

        (loss, (metrics, method_state)), gradient = jax.value_and_grad(loss_of, has_aux=True)(free)
        with jax.named_scope("update"):
            updates, optimizer = tx.update(gradient, state.optimizer, free)
            params = merge(state.params, optax.apply_updates(free, updates))
            params, method_state = method.after_update(params, method_state)
        applied = state.step - state.skipped  # updates before this one, which is what the optimizer counts
        average = ema.update(state.ema, trained(params, frozen), applied, ema_decay)

        norms = _norms(gradient) | {
            "parameter_norm": optax.global_norm(free),
            "update_norm": optax.global_norm(updates),
        }
        finite = _all_finite((loss, norms["gradient_norm"], norms["update_norm"], method_state))
        new = _next(state, finite, params=params, method=method_state, optimizer=optimizer, ema=average)
        rates = {f"learning_rate/{pattern}": own(applied) for pattern, own in schedules.items()}
        metrics = {f"train/{k}": v for k, v in (metrics | norms | rates).items()} | {
            "train/loss": loss,
            "train/learning_rate": schedule(applied),
            "train/valid_fraction": batch.valid.mean(),
            "train/bad_steps": new.bad_steps,
            "train/skipped_steps": new.skipped,
        }
        return new, metrics

    return jax.jit(train_step, donate_argnums=0)


def _next(state: TrainState, finite: jax.Array, **updated: Any) -> TrainState:
    """The state of the next step: fields in `updated` where all is finite, as they were where it is not."""
    kept = {name: getattr(state, name) for name in updated}
    return replace(
        state,
        step=state.step + 1,
        bad_steps=jnp.where(finite, 0, state.bad_steps + 1),
        skipped=state.skipped + (1 - finite.astype(jnp.int32)),
        **jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, kept),
    )


def _norms(gradient: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Of the whole gradient, and of that of each tower with what adapts it."""
    roots = [gradient[name] for name in ("towers", "lora") if name in gradient]
    norms = {"gradient_norm": optax.global_norm(gradient)}
    for modality in sorted({m for root in roots for m in root}):
        norms[f"gradient_norm/{modality}"] = optax.global_norm([root.get(modality) for root in roots])
    return norms


def _all_finite(tree: Any) -> jax.Array:
    """bool[]; of what is no float all is finite."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()


def make_validation_step(method: Method, seed: int, micro_batch: int = 0) -> Callable:
    """`(params, method_state, batch) -> (Encoded, {metric: value})` without dropout; masks are drawn from `seed`."""

    def validation_step(params, method_state, batch: Batch) -> tuple[Encoded, dict[str, jax.Array]]:
        batch = batch.only_valid()
        encode_key, objective_key = jax.random.split(jax.random.key(seed))
        encoded = encode_in_micro_batches(
            lambda rows: method.encode(params, method_state, rows, encode_key, False), batch, micro_batch
        )
        loss, _ = method.objective(encoded, params, method_state, batch, objective_key)
        return encoded, loss.metrics() | {"loss": loss.mean()}

    return jax.jit(validation_step)


def make_pooled_step(method: Method, micro_batch: int = 0) -> Callable:
    """`(params, method_state, batch) -> (pooled, present)` of the whole input, by modality: nothing is masked."""

    def pooled_step(params, method_state, batch: Batch) -> tuple[Mapping[str, jax.Array], Mapping[str, jax.Array]]:
        encoded = encode_in_micro_batches(
            lambda rows: method.encode(params, method_state, rows, None, False), batch.only_valid(), micro_batch
        )
        return encoded.pooled, encoded.present

    return jax.jit(pooled_step)
