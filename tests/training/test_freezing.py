"""Frozen parameters stay as they are, cost the optimizer nothing, and a locked tower has no backward pass."""

import functools
from dataclasses import dataclass
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from methods_batch import SPECS, make_batch

from medjax.checkpoints import CheckpointStore
from medjax.errors import UserError
from medjax.losses import Loss, Term
from medjax.methods import Encoded, make_method
from medjax.training.optimizer import OptimizerConfig, make_optimizer
from medjax.training.selection import frozen_names, parameter_names, path_name, trained
from medjax.training.state import StateFactory, TrainState
from medjax.training.step import make_train_step

TOWERS = {
    "labs": {"name": "mlp", "hidden": (8,)},
    "text": {"name": "bert", "positions": 8, "width": 8, "depth": 1, "heads": 2},
}
LORA = {"rank": 2, "dropout": 0.1, "targets": r"blocks/block_0/attention/query"}
CONFIG = OptimizerConfig(lr=0.01, weight_decay=0.5, clip_norm=1e-3)
LOCKED = ("towers/text/.*",)
ALL_BUT_BIASES = (r"towers/text/(?!.*bias$).*",)


@functools.cache
def run(freeze: tuple[str, ...], lora: bool = False) -> SimpleNamespace:
    """Two steps with heavy decay; the state before as NumPy arrays."""
    towers = TOWERS | {"text": TOWERS["text"] | ({"lora": LORA} if lora else {})}
    objectives = {"info_nce": {"scale": 5.0}}
    method = make_method({"name": "contrastive", "towers": towers, "embed_dim": 6, "objectives": objectives}, SPECS)
    batch = make_batch(np.random.default_rng(0), items=1, modalities=("labs", "text"))
    names = parameter_names(jax.eval_shape(method.init, jax.random.key(0), batch)[0])
    frozen = frozen_names(freeze, names)
    tx = make_optimizer(CONFIG, lambda step: 0.01)
    mesh = jax.make_mesh((1, 1, 1), ("replica", "fsdp", "tensor"), devices=jax.devices()[:1])
    factory = StateFactory(method, tx, mesh, batch, frozen)
    step = make_train_step(method, tx, lambda step: 0.01, 0, frozen)
    state = factory.fresh(0)
    before = jax.tree.map(np.asarray, state)
    compiled = step.lower(state, batch).compile()
    state, metrics = compiled(state, batch)
    state, _ = compiled(state, batch)
    return SimpleNamespace(
        frozen=frozen,
        factory=factory,
        before=before,
        after=state,
        metrics=metrics,
        program=compiled.as_text(),
    )


def moved(r: SimpleNamespace) -> set[str]:
    """The paths of the parameters that are not what they were, bit for bit."""
    same = jax.tree.map(
        lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), r.before.params, r.after.params
    )
    return {path_name(path) for path, equal in jax.tree_util.tree_leaves_with_path(same) if not equal}


def names_of(r: SimpleNamespace) -> set[str]:
    return set(parameter_names(r.before.params))


def matrix_products(r: SimpleNamespace, tower: str) -> tuple[int, int]:
    """How many of the compiled program belong to a tower's forward and to its backward pass."""
    of_tower = [line for line in r.program.splitlines() if " dot(" in line and tower in line]
    backward = sum("transpose(jvp(" in line for line in of_tower)
    return len(of_tower) - backward, backward


@pytest.mark.parametrize(("freeze", "lora"), [(LOCKED, False), (ALL_BUT_BIASES, True)])
def test_what_is_frozen_stays_bit_for_bit_and_the_rest_moves(freeze, lora):
    r = run(freeze, lora)
    assert r.frozen and moved(r) == names_of(r) - r.frozen
    text = {n for n in names_of(r) if n.startswith("towers/text/")}
    assert r.frozen == (text if freeze == LOCKED else {n for n in text if not n.endswith("bias")})
    assert any(n.startswith("lora/text/") for n in names_of(r)) == lora


def test_the_optimizer_keeps_nothing_of_what_is_frozen():
    r = run(LOCKED)
    kept = parameter_names(r.after.optimizer)
    assert not any("towers/text" in n for n in kept) and any("towers/labs" in n for n in kept)
    free = trained(r.before.params, r.frozen)
    moments = sum(x.size for x in jax.tree.leaves(r.after.optimizer) if x.ndim)
    assert moments == 2 * sum(x.size for x in jax.tree.leaves(free) if x.ndim)


def test_a_locked_tower_has_no_backward_pass_in_the_compiled_program():
    partly, locked = run(ALL_BUT_BIASES, True), run(LOCKED)
    forward, backward = matrix_products(partly, "TextTransformer")
    assert backward > 0
    assert matrix_products(locked, "TextTransformer") == (forward - 2, 0)  # without the two of the low-rank path
    assert matrix_products(locked, "TabularMlp") == matrix_products(partly, "TabularMlp")
    assert matrix_products(locked, "TabularMlp")[1] > 0


@dataclass(frozen=True)
class Sum:
    """A loss whose gradient is 3 by one parameter and 4 by the other."""

    modalities: tuple[str, ...] = ("labs",)

    def encode(self, params, state, batch, key, train):
        return Encoded(pooled={}, present={})

    def objective(self, encoded, params, state, batch, key):
        return Loss.of("sum", {"x": Term(3.0 * params["a"] + 4.0 * params["b"], jnp.float32(1.0))}), state

    def after_update(self, params, state):
        return params, state


@pytest.mark.parametrize(("frozen", "norm"), [((), 5.0), (("b",), 3.0)])
def test_the_gradient_that_is_clipped_is_that_of_the_trained(frozen, norm):
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))
    params = {"a": jnp.array(0.0), "b": jnp.array(0.0)}
    numbers = [jnp.array(0, jnp.int32) for _ in range(3)]
    state = TrainState(numbers[0], params, {}, tx.init(trained(params, frozenset(frozen))), *numbers[1:])
    batch = make_batch(np.random.default_rng(0), modalities=("labs",))
    state, metrics = make_train_step(Sum(), tx, lambda step: 1.0, 0, frozenset(frozen))(state, batch)
    assert float(metrics["train/gradient_norm"]) == pytest.approx(norm)
    assert float(state.params["a"]) == pytest.approx(-3.0 / norm)


def test_a_state_with_frozen_parameters_is_saved_and_restored(tmp_path):
    r = run(ALL_BUT_BIASES, True)
    abstract = r.factory.abstract()
    store = CheckpointStore(tmp_path)
    store.save(2, r.after.params, r.after.without_params(), {})
    params, rest, _ = store.restore(2, abstract.params, abstract.without_params())
    store.close()
    jax.tree.map(np.testing.assert_array_equal, (params, rest), (r.after.params, r.after.without_params()))


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("towers/txt/.*", r"'towers/txt/.\*' matches no parameter in full; there are .*towers/text \(3\)"),
        ("towers", "matches no parameter in full"),
        ("towers/(", "not a regular expression"),
        (".*", "leave some to train"),
    ],
)
def test_wrong_patterns_are_named(pattern, word):
    names = [*(f"towers/text/{n}" for n in "abc"), "heads/text/out"]
    with pytest.raises(UserError, match=word):
        frozen_names((pattern,), names)
