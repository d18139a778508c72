"""Precision and how blocks run: what towers are told, what a step multiplies in, and what a run may change."""

import functools
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from methods_batch import SPECS, make_batch

from medjax.bin.cli import load_config
from medjax.config import build
from medjax.data import Dataset
from medjax.errors import UserError
from medjax.methods import make_method
from medjax.models.resnet import ResNetConfig
from medjax.training.experiment import stages
from medjax.training.optimizer import OptimizerConfig, make_optimizer
from medjax.training.precision import BlockOptions, Precision, with_computation
from medjax.training.rundir import describe_run
from medjax.training.selection import path_name
from medjax.training.state import StateFactory
from medjax.training.step import make_train_step

BLOCKS = {"width": 8, "depth": 1, "heads": 2}
METHOD = {
    "name": "contrastive",
    "towers": {"image": {"name": "vit", "patch": 4, **BLOCKS}, "text": {"name": "bert", "positions": 8, **BLOCKS}},
    "embed_dim": 6,
    "objectives": {"info_nce": {"scale": 5.0}},
}
FAST = Precision(compute="bfloat16")


def test_what_a_tower_says_itself_comes_first_and_what_it_cannot_do_is_left_out():
    towers = {
        "image": {"name": "vit"},
        "text": {"name": "bert", "dtype": "float32", "remat": "dots", "lora": {"rank": 2}},
        "ecg": {"name": "resnet_ecg"},
        "labs": {"name": "mlp"},
        "volume": {"pretrained": "folder"},
    }
    method = {"name": "masked_autoencoder", "towers": towers, "decoder": {"width": 8}}
    blocks = BlockOptions(remat="full", remat_save=("out",), scan=True)
    got = with_computation(method, FAST, blocks)
    full = {"dtype": "bfloat16", "remat": "full", "remat_save": ("out",), "scan": True, "attention": "xla"}
    assert got["towers"]["image"] == {"name": "vit"} | full
    assert got["towers"]["text"] == full | towers["text"] | {"scan": False, "remat_save": ()}
    assert got["towers"]["ecg"] == {"name": "resnet_ecg", "dtype": "bfloat16", "remat": "full"}
    assert (got["towers"]["labs"], got["towers"]["volume"]) == (towers["labs"], towers["volume"])
    assert got["decoder"] == {"dtype": "bfloat16", "width": 8}
    assert with_computation(got, Precision(), BlockOptions()) == got
    assert with_computation(METHOD, FAST, BlockOptions(remat="dots"))["towers"]["image"]["remat"] == "dots"
    assert (
        build(ResNetConfig, with_computation(method, FAST, BlockOptions(remat="dots"))["towers"]["ecg"], "x").remat
        == "none"
    )


@functools.cache
def step_of(precision: Precision):
    """A training step, its state and its batch."""
    method = make_method(with_computation(METHOD, precision, BlockOptions()), SPECS)
    batch = make_batch(np.random.default_rng(0), items=1, modalities=("image", "text"))
    tx = make_optimizer(OptimizerConfig(lr=0.01), lambda step: 0.01)
    mesh = jax.make_mesh((1, 1, 1), ("replica", "fsdp", "tensor"), devices=jax.devices()[:1])
    factory = StateFactory(method, tx, mesh, batch, precision=precision)
    return make_train_step(method, tx, lambda step: 0.01, 0), factory, batch


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(eqn.params, is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr)):
            if isinstance(inner, core.Jaxpr | core.ClosedJaxpr):
                yield from equations(getattr(inner, "jaxpr", inner))


@functools.cache
def traced(precision: Precision):
    step, factory, batch = step_of(precision)
    with precision.products():
        return list(equations(step.trace(factory.abstract(), batch).jaxpr.jaxpr))


def in_half(eqn) -> bool:
    return any(getattr(x.aval, "dtype", None) == jnp.bfloat16 for x in eqn.invars)


def test_products_of_towers_are_bfloat16_and_all_that_sums_is_float32():
    step = traced(FAST)
    products = [e for e in step if e.primitive.name == "dot_general"]
    towers = [e for e in products if "Transformer" in str(e.source_info.name_stack)]
    assert len(towers) > 40 and all(in_half(e) for e in towers)
    heads = [e for e in products if e not in towers]
    assert heads and not any(in_half(e) for e in heads)
    # The derivative of an activation function has an exponential of its own, which sums nothing; newer JAX has no name.
    summing = [e for e in step if (name := str(e.source_info.name_stack)) and "mlp" not in name]
    exact = [e for e in summing if e.primitive.name in ("exp", "log", "rsqrt", "sqrt", "reduce_max", "cumsum")]
    assert len(exact) > 10 and not any(in_half(e) for e in exact)
    forward = [e for e in step if e.primitive.name == "reduce_sum" and "transpose" not in str(e.source_info.name_stack)]
    assert len(forward) > 10 and not any(in_half(e) for e in forward)
    assert not any(in_half(e) for e in traced(Precision()))


def test_float32_products_are_exact_where_it_is_asked_for():
    highest = (jax.lax.Precision.HIGHEST,) * 2
    found = [e.params["precision"] for e in traced(Precision(matmul="highest")) if e.primitive.name == "dot_general"]
    assert len(found) > 40 and set(found) == {highest}


@pytest.mark.slow
def test_only_matrices_of_towers_are_kept_in_bfloat16_and_train():
    step, factory, batch = step_of(Precision(params="bfloat16"))
    state = factory.fresh(0)
    before = jax.tree.map(np.asarray, state.params)
    half = {path_name(p): x.ndim for p, x in jax.tree_util.tree_leaves_with_path(before) if x.dtype == jnp.bfloat16}
    assert half and all(name.startswith("towers/") and ndim >= 2 for name, ndim in half.items())
    state, metrics = step(state, batch)
    assert np.isfinite(float(metrics["train/loss"])) and int(state.skipped) == 0
    assert jax.tree.map(lambda x: x.dtype, state.params) == jax.tree.map(lambda x: x.dtype, before)
    assert {x.dtype for x in jax.tree.leaves(state.optimizer) if x.ndim} == {np.dtype(np.float32)}
    kernel = lambda params: np.asarray(params["towers"]["text"]["blocks"]["block_0"]["mlp"]["up"]["kernel"])  # noqa: E731
    assert (kernel(before) != kernel(state.params)).mean() > 0.9


def test_a_run_goes_on_in_another_precision_only_if_asked(phantom_dir, tmp_path):
    def experiment(**changes):
        config = load_config("configs/phantom.py:tiny,steps=4")
        config.data.dir = str(phantom_dir)
        for key, value in changes.items():
            config.update_from_flattened_dict({key.replace("__", "."): value})
        return stages(config)[0][1]

    plain, workdir = experiment(), tmp_path / "run"
    dataset = Dataset.open(plain.data)
    describe_run(plain, workdir, dataset)
    describe_run(experiment(blocks__remat="full", blocks__scan=True), workdir, dataset)  # the same to rounding
    fast = experiment(precision__compute="bfloat16")
    with pytest.raises(UserError, match=r"another method.towers.ecg.dtype, .*precision.compute"):
        describe_run(fast, workdir, dataset)
    describe_run(replace(fast, train=replace(fast.train, restore_cast=True)), workdir, dataset)

    # A run from before there were these options, whose configuration says nothing of them.
    old = json.loads((workdir / "config.json").read_text())
    for section, names in {"optimizer": ("mu_dtype", "schedules", "momentum"), "precision": (), "blocks": ()}.items():
        old[section] = {k: v for k, v in old[section].items() if k not in names} if names else None
    old = {k: v for k, v in old.items() if v is not None}
    for tower in old["method"]["towers"].values():
        for option in ("dtype", "remat", "remat_save", "scan", "attention"):
            tower.pop(option, None)
    (workdir / "config.json").write_text(json.dumps(old))
    describe_run(plain, workdir, dataset)
    with pytest.raises(UserError, match=r"another optimizer.b1, optimizer.b2, optimizer.eps, optimizer.name"):
        describe_run(experiment(optimizer__name="lion", optimizer__b1=0.95), workdir, dataset)
