"""One update, and one evaluation of the loss, as jitted functions of state and global batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from medjax.config import merge
from medjax.data.batch import Batch
from medjax.methods import Encoded, Method
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
) -> Callable:
    """`(state, batch) -> (state, metrics)`; all randomness comes from (seed, step, row).

    frozen: paths of parameters that stay as they are; the loss is not differentiated by them, and the optimizer does
    not know of them. augment: of a batch with a key, before anything is encoded.

    A step whose loss or gradient is not finite leaves parameters, optimizer and method state untouched and is counted.
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
            encoded = method.encode(params, state.method, batch, encode_key, True)
            loss, method_state = method.objective(encoded, params, state.method, batch, objective_key)
            return loss.mean(), (loss.metrics(), method_state)

        (loss, (metrics, method_state)), gradient = jax.value_and_grad(loss_of, has_aux=True)(free)
        norm = optax.global_norm(gradient)
        updates, optimizer = tx.update(gradient, state.optimizer, free)
        params = merge(state.params, optax.apply_updates(free, updates))
        params, method_state = method.after_update(params, method_state)

        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        keep = (params, method_state, optimizer), (state.params, state.method, state.optimizer)
        params, method_state, optimizer = jax.tree.map(lambda new, old: jnp.where(finite, new, old), *keep)
        new = TrainState(
            step=state.step + 1,
            params=params,
            method=method_state,
            optimizer=optimizer,
            bad_steps=jnp.where(finite, 0, state.bad_steps + 1),
            skipped=state.skipped + (1 - finite.astype(jnp.int32)),
        )
        metrics = {f"train/{k}": v for k, v in metrics.items()} | {
            "train/loss": loss,
            "train/gradient_norm": norm,
            "train/learning_rate": schedule(state.step),
            "train/valid_fraction": batch.valid.mean(),
            "train/bad_steps": new.bad_steps,
            "train/skipped_steps": new.skipped,
        }
        return new, metrics

    return jax.jit(train_step, donate_argnums=0)


def make_validation_step(method: Method, seed: int) -> Callable:
    """`(params, method_state, batch) -> (Encoded, {metric: value})` without dropout; masks are drawn from `seed`."""

    def validation_step(params, method_state, batch: Batch) -> tuple[Encoded, dict[str, jax.Array]]:
        batch = batch.only_valid()
        encode_key, objective_key = jax.random.split(jax.random.key(seed))
        encoded = method.encode(params, method_state, batch, encode_key, False)
        loss, _ = method.objective(encoded, params, method_state, batch, objective_key)
        return encoded, loss.metrics() | {"loss": loss.mean()}

    return jax.jit(validation_step)
