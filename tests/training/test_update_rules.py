"""Every optimizer: where its state lies on a mesh, what it keeps of frozen parameters and on disk, and its updates."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from medjax.checkpoints import CheckpointStore
from medjax.errors import UserError
from medjax.sharding import MeshConfig, make_mesh
from medjax.training.optimizer import OptimizerConfig, decays, make_optimizer
from medjax.training.optimizer_state import optimizer_shardings
from medjax.training.selection import parameter_names, trained
from medjax.training.update_rules import OPTIONS

ROWS, COLUMNS, OUT = 64, 128, 8
LAYER = "blocks/block_0/mlp/up"


def tree(block, bias, head, locked):
    """A tower of one layer, its head, and a locked tower."""
    up = {"blocks": {"block_0": {"mlp": {"up": {"kernel": block, "bias": bias}}}}}
    return {"towers": {"labs": up, "locked": {"kernel": locked}}, "heads": {"labs": {"out": {"kernel": head}}}}


SPECS = tree(P("fsdp", "tensor"), P("tensor"), P("fsdp", None), P("fsdp", "tensor"))
FROZEN = frozenset({"towers/locked/kernel"})


def numbers(seed: int):
    rng = np.random.default_rng(seed)
    shapes = ((ROWS, COLUMNS), (COLUMNS,), (ROWS, OUT), (ROWS, COLUMNS))
    return tree(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


@dataclass(frozen=True)
class OnMesh:
    """The parameters that are trained on so many devices, and the optimizer's shardings."""

    params: dict
    shardings: object
    update: object

    @classmethod
    def of(cls, config: OptimizerConfig, devices: int) -> "OnMesh":
        mesh = make_mesh(MeshConfig(fsdp=devices // 2 or 1, tensor=min(devices, 2)), jax.devices()[:devices])
        places = trained(jax.tree.map(lambda spec: jax.NamedSharding(mesh, spec), SPECS), FROZEN)
        params = jax.device_put(trained(numbers(0), FROZEN), places)
        tx = make_optimizer(config, lambda step: 0.1)
        state = jax.eval_shape(tx.init, params)
        shardings = optimizer_shardings(state, params, places, jax.NamedSharding(mesh, P()))

        def two_updates(first, second, params):
            _, state = tx.update(first, tx.init(params), params)
            return tx.update(second, state, params)

        return cls(params, shardings, jax.jit(two_updates, out_shardings=(places, shardings)))

    def updated(self):
        """Updates and state after two gradients that have nothing to do with the parameters."""
        return self.update(*(trained(numbers(seed), FROZEN) for seed in (1, 2)), self.params)


def bytes_of_one_device(state) -> int:
    """Of all but counters, and the single numbers that Adafactor puts in the place of what it does not keep."""
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state) if x.shape not in ((), (1,), (3,)))


def expected_bytes(name: str) -> int:
    """On four devices along fsdp and two along tensor, counted by hand."""
    block, bias, head = ROWS * COLUMNS // 8, COLUMNS // 2, ROWS * OUT // 4
    rows_and_columns = ROWS // 4 + COLUMNS // 2
    moments = {
        "lion": block + bias + head,
        "sgd": block + bias + head,
        "muon": block + 2 * (bias + head),
        "adafactor": block + rows_and_columns + 2 * (bias + head),  # a head of 8 columns is not worth factoring
    }
    return 4 * moments.get(name, 2 * (block + bias + head))


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in sorted(OPTIONS) if name != "adafactor"]


@pytest.mark.parametrize("name", ["adafactor", *OTHERS])
def test_the_state_lies_beside_its_parameters_and_survives_a_checkpoint(name, tmp_path):
    config = OptimizerConfig(name=name, weight_decay=0.5, clip_ratio=0.5)
    mesh = OnMesh.of(config, 8)
    alone, (updates, state) = OnMesh.of(config, 1).updated(), mesh.updated()
    # Muon's products of 64 x 128 matrices in another order, five times over.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), alone, (updates, state))
    assert bytes_of_one_device(state) == expected_bytes(name)
    assert parameter_names(state) and not [n for n in parameter_names(state) if "locked" in n]

    store = CheckpointStore(tmp_path)
    store.save(1, mesh.params, {"optimizer": state}, {})
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, mesh.shardings)
    restored = store.restore(1, mesh.params, {"optimizer": abstract})[1]["optimizer"]
    store.close()
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for was, now in zip(jax.tree.leaves(state), jax.tree.leaves(restored), strict=True):
        np.testing.assert_array_equal(was, now)
        assert was.sharding.is_equivalent_to(now.sharding, was.ndim)


def one_update(tx, gradient, params):
    return jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])(gradient, params)


def test_adamw_is_that_of_optax_bit_for_bit_with_the_same_state():
    """Runs from before there were other optimizers go on."""
    config, params = OptimizerConfig(weight_decay=0.1), numbers(0)
    ours = make_optimizer(config, lambda step: 0.1)
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(lambda step: 0.1, 0.9, 0.98, 1e-8, weight_decay=0.1, mask=lambda p: decays(config, p)),
    )
    assert jax.tree.structure(ours.init(params)) == jax.tree.structure(theirs.init(params))
    jax.tree.map(np.testing.assert_array_equal, *(one_update(tx, numbers(1), params) for tx in (ours, theirs)))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("lion", lambda **decay: optax.lion(0.1, 0.9, 0.99, **decay)),
        ("lamb", lambda **decay: optax.lamb(0.1, 0.9, 0.999, 1e-6, **decay)),
    ],
)
def test_lion_and_lamb_are_those_of_optax(name, theirs):
    config, params = OptimizerConfig(name=name, weight_decay=0.1, clip_norm=0.0), numbers(0)
    ours = one_update(make_optimizer(config, lambda step: 0.1), numbers(1), params)
    want = one_update(theirs(weight_decay=0.1, mask=lambda p: decays(config, p)), numbers(1), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), ours, want)


def test_muon_is_for_matrices_inside_blocks_and_adamw_for_the_rest():
    options = dict(weight_decay=0.0, clip_norm=0.0)
    muon, adamw = (
        one_update(make_optimizer(OptimizerConfig(name=n, **options), lambda step: 0.1), numbers(1), numbers(0))
        for n in ("muon", "adamw")
    )
    step = np.asarray(muon["towers"]["labs"]["blocks"]["block_0"]["mlp"]["up"].pop("kernel"))
    adamw["towers"]["labs"]["blocks"]["block_0"]["mlp"]["up"].pop("kernel")
    jax.tree.map(np.testing.assert_array_equal, muon, adamw)
    # Newton-Schulz brings singular values near 1, up to about 0.7 and 1.2; times 0.1 * 0.2 * sqrt(128).
    singular = np.linalg.svd(step, compute_uv=False) / (0.1 * 0.2 * COLUMNS**0.5)
    assert singular.min() > 0.5 and singular.max() < 1.3
    assert np.linalg.cond(numbers(1)["towers"]["labs"]["blocks"]["block_0"]["mlp"]["up"]["kernel"]) > 4
    with pytest.raises(UserError, match="muon' is for matrices inside the blocks"):
        make_optimizer(OptimizerConfig(name="muon"), lambda step: 0.1).init({"heads": np.ones((4, 4))})


def test_the_first_step_of_adafactor_is_the_one_of_the_paper():
    config = OptimizerConfig(name="adafactor", weight_decay=0.0, clip_norm=0.0, momentum=0.0, clip_update_rms=0.5)
    params, gradient = (
        {"w": np.ones((ROWS, COLUMNS), np.float32)},
        {"w": np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32)},
    )
    got = one_update(make_optimizer(config, lambda step: 0.1), gradient, params)["w"]
    square = gradient["w"].astype(np.float64) ** 2
    second = square.mean(axis=1, keepdims=True) * square.mean(axis=0, keepdims=True) / square.mean()
    want = gradient["w"] / np.sqrt(second)
    want /= max(1.0, np.sqrt((want**2).mean()) / 0.5)
    np.testing.assert_allclose(got, -0.1 * want, rtol=1e-4, atol=1e-6)


def test_moments_of_bfloat16_parameters_are_float32_and_move():
    params = {"w": jnp.ones((4, 4), jnp.bfloat16)}
    tx = make_optimizer(OptimizerConfig(clip_norm=0.0, b2=0.999), lambda step: 0.1)
    state, gradient = tx.init(params), {"w": jnp.ones((4, 4), jnp.bfloat16)}
    for _ in range(2):
        _, state = tx.update(gradient, state, params)
    np.testing.assert_allclose(state[0].nu["w"], 1 - 0.999**2, rtol=1e-3)
    half = make_optimizer(OptimizerConfig(mu_dtype="bfloat16", clip_norm=0.0), lambda step: 0.1).init(params)
    assert (half[0].mu["w"].dtype, half[0].nu["w"].dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize(
    ("options", "norm"),
    [
        ({"clip_value": 0.5}, lambda g, p: np.abs(g).max() / 0.5),
        ({"clip_ratio": 0.01}, lambda g, p: (np.linalg.norm(g, axis=0) / np.linalg.norm(p, axis=0)).max() / 0.01),
        ({"clip_norm": 2.0}, lambda g, p: np.linalg.norm(g) / 2.0),
        ({"clip_update_rms": 0.1}, lambda g, p: np.sqrt((g**2).mean()) / 0.1),
    ],
)
def test_clipping_holds_what_it_names_at_its_limit_and_leaves_what_is_below(options, norm):
    rng = np.random.default_rng(0)
    gradient, params = ({"w": rng.normal(size=(8, 6)).astype(np.float32)} for _ in range(2))
    sgd = dict(name="sgd", momentum=0.0, weight_decay=0.0)
    tx = make_optimizer(OptimizerConfig(**sgd, **{"clip_norm": 0.0} | options), lambda step: 1.0)
    clipped = -np.asarray(tx.update(gradient, tx.init(params), params)[0]["w"])
    assert norm(gradient["w"], params["w"]) > 1 and norm(clipped, params["w"]) == pytest.approx(1.0, rel=1e-4)
    small = {"w": gradient["w"] * 1e-4}
    np.testing.assert_allclose(-tx.update(small, tx.init(params), params)[0]["w"], small["w"], rtol=1e-6)
