"""Accumulated gradients: those of the whole batch, in less memory, with nothing moved between devices."""

import functools
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from methods_batch import BLOCKS, SPECS, make_batch
from toy_method import Toy, toy_batch

from medjax import losses
from medjax.data.batch import Items
from medjax.errors import UserError
from medjax.losses import Tokens
from medjax.methods import Encoded, make_method
from medjax.models.partitioning import axis_rules
from medjax.sharding import ACTIVATION_RULES, MeshConfig, make_mesh, to_global
from medjax.training.accumulate import encode_in_micro_batches, micro_batches
from medjax.training.selection import parameter_names
from medjax.training.state import StateFactory
from medjax.training.step import make_train_step

FLOAT32 = 2e-5  # sums of float32 in another order, relative to the largest
KEY = jax.random.key(3)
MLP = {"name": "mlp", "hidden": (8,), "dropout": 0.3}


def assert_close(actual, expected, tolerance=FLOAT32):
    """Leaf by leaf, relative to the largest of the tree."""
    actual, expected = (jax.tree.map(lambda x: np.asarray(x, np.float64), tree) for tree in (actual, expected))
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=tolerance * largest), actual, expected)


def table_batch(rng, modalities, rows: int, items: int = 2):
    """Tables of three numbers for every modality, with gaps, an invalid row and labels."""
    batch = make_batch(rng, rows, items, ("labs",))
    values = {m: rng.normal(size=(rows, items, 3)).astype(np.float32) for m in modalities}
    masks = {m: rng.random((rows, items)) < 0.7 for m in modalities}
    labels = {"labels": (rng.random((rows, 3)) < 0.5).astype(np.float32), "labels_mask": rng.random((rows, 3)) < 0.9}
    return replace(
        batch,
        items={m: Items({"value": values[m]}, masks[m]) for m in modalities},
        targets=labels,
        valid=np.arange(rows) != 2,
    )


def table_method(modalities, **options):
    """Small towers with dropout for every modality, modalities hidden at random."""
    options = {"objectives": {"info_nce": {}}, "towers": dict.fromkeys(modalities, MLP), **options}
    specs = {m: {"kind": "labs"} for m in modalities}
    return make_method({"name": "contrastive", "embed_dim": 6, "modality_dropout": 0.2, **options}, specs)


def compile_step(method, batch, micro_batch: int, devices: int = 1, freeze: str = ""):
    """`(compiled step, fresh state, global batch)`; gradients can be told from a step of plain SGD."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    with jax.set_mesh(mesh), axis_rules(ACTIVATION_RULES):
        batch, tx = to_global(batch, mesh), optax.sgd(1.0)
        names = parameter_names(jax.eval_shape(method.init, KEY, batch)[0])
        frozen = frozenset(n for n in names if freeze and re.fullmatch(freeze, n))
        state = StateFactory(method, tx, mesh, batch, frozen, averages=True).fresh(0)
        schedule = optax.constant_schedule(1.0)
        step = make_train_step(method, tx, schedule, 0, frozen, micro_batch=micro_batch, ema_decay=0.5)
        return step.lower(state, batch).compile(), state, batch


def assert_same_step(method, batch, micro_batch: int, devices: int, freeze: str = "") -> tuple[str, str]:
    """The step of the whole batch and the accumulated one end alike; what both compiled to."""
    ends, programs = [], []
    for micro in (0, micro_batch):
        step, state, placed = compile_step(method, batch, micro, devices, freeze)
        before = jax.tree.map(np.asarray, state.params)
        programs.append(step.as_text())
        state, metrics = step(state, placed)
        moved = jax.tree.map(lambda new, old: np.asarray(new) - old, state.params, before)
        ends.append((moved, jax.tree.map(np.asarray, (state.method, state.ema)), metrics))
    for whole, accumulated in zip(*ends, strict=True):
        assert_close(accumulated, whole)
    assert all(any(np.any(x) for x in jax.tree.leaves(part)) for part in ends[0][0].values())
    return tuple(programs)


def test_on_eight_devices_a_step_is_that_of_the_whole_batch_and_moves_no_example():
    method = Toy(losses.get("info_nce", impl="gather"))
    programs = assert_same_step(method, toy_batch(np.random.default_rng(0), 32), 1, 8, "towers/b/bias")
    kinds = [set(re.findall(r" (all-[\w-]+?|reduce-scatter|collective-\w+)(?:-start)?\(", p)) for p in programs]
    assert {"all-gather", "all-reduce"} <= kinds[1] <= kinds[0] <= {"all-gather", "all-reduce", "reduce-scatter"}
    whole, accumulated = (re.findall(r"= (\S+) all-gather(?:-start)?\(", p) for p in programs)
    assert sorted(whole) == sorted(accumulated)  # embeddings and masks of the objective, and nothing else


def test_memory_falls_with_the_micro_batch():
    batch = jax.eval_shape(lambda: toy_batch(np.random.default_rng(0), 512))

    def deep(kernels, rows):
        x = jnp.tile(rows.items["a"].value[:, 0], (1, 16))
        for kernel in kernels:
            x = jnp.tanh(x @ kernel)
        return Encoded({"a": x[:, :4]}, {"a": rows.items["a"].present})

    def bytes_of(micro_batch):
        def loss(kernels, batch):
            encoded = encode_in_micro_batches(lambda rows: deep(kernels, rows), batch, micro_batch)
            return jnp.sum(jax.nn.logsumexp(encoded.pooled["a"], axis=0))

        kernels = [jax.ShapeDtypeStruct((48, 48), jnp.float32)] * 4
        return jax.jit(jax.grad(loss)).lower(kernels, batch).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(32) < bytes_of(0) / 4


def test_micro_batches_must_divide_the_rows_of_a_device():
    assert [micro_batches(96, 8, m) for m in (0, 1, 4, 12)] == [1, 12, 3, 1]
    with pytest.raises(UserError, match=r"micro_batch=5 does not divide the 12 examples .* use 4 or 6, or 0"):
        micro_batches(96, 8, 5)
    with pytest.raises(UserError, match="use 12, or 0"):
        micro_batches(96, 8, 13)
    with pytest.raises(UserError, match="use 1, or 0"):
        micro_batches(96, 8, -2)


@pytest.mark.parametrize("frozen", [False, True])
def test_batch_norms_are_refused_unless_their_statistics_are_frozen(rng, frozen):
    resnet = {
        "name": "resnet",
        "stem": 4,
        "depths": (1,),
        "widths": (8,),
        "block": "basic",
        "frozen_statistics": frozen,
    }
    options = {"towers": {"image": resnet, "labs": MLP}, "objectives": {"info_nce": {}}}
    method = make_method({"name": "contrastive", **options}, SPECS)
    batch = make_batch(rng, rows=4, modalities=("image", "labs"))
    params, state = jax.eval_shape(method.init, KEY, batch)

    def encode(params, state, batch):
        return encode_in_micro_batches(lambda rows: method.encode(params, state, rows, KEY, True), batch, 2)

    if frozen:
        assert jax.eval_shape(encode, params, state, batch).pooled["image"].shape == (4, 128)
        return
    with pytest.raises(UserError, match=r"towers.image take moments over the whole batch.*norm='group' or frozen_stat"):
        jax.eval_shape(encode, params, state, batch)


@pytest.mark.slow
def test_transformers_with_dropout_lora_and_a_locked_tower_step_as_with_the_whole_batch(rng):
    towers = {
        "image": {"name": "vit", "patch": 4, "dropout": 0.2, "drop_path": 0.2, **BLOCKS},
        "text": {
            "name": "bert",
            "positions": 8,
            "dropout": 0.2,
            **BLOCKS,
            "lora": {"targets": r".*attention/(query|value)", "rank": 2, "dropout": 0.2},
        },
    }
    objectives = {"info_nce": {}, "gloria_local": {"weight": 0.5}}
    options = {"name": "contrastive", "embed_dim": 6, "towers": towers, "objectives": objectives}
    pooling = {"image": {"name": "attention"}}
    method = make_method({**options, "modality_dropout": 0.2, "pooling": pooling}, SPECS)
    batch = make_batch(rng, 8, 2, ("image", "text"))
    assert_same_step(method, batch, 1, 2, r"towers/text/.*")


@pytest.mark.slow
def test_a_masked_autoencoder_steps_as_with_the_whole_batch(rng):
    towers = {"image": {"name": "vit", "patch": 2, "dropout": 0.2, **BLOCKS}}
    options = {"towers": towers, "decoder": {"width": 8, "depth": 1, "heads": 2}}
    method = make_method({"name": "masked_autoencoder", **options}, SPECS)
    assert_same_step(method, make_batch(rng, 4, 2, ("image",)), 2, 1)


# What an objective cannot do without.
OPTIONS = {"gram": {"anchor": "text"}, "similarity_distillation": {"teacher": "image"}}
MODALITIES = ("image", "labs", "text")


@functools.cache
def every_objective():
    """(names, `{micro: (gradients [n, ...], losses [n])}`) of one batch in micro-batches of 0 (all), 1 and 4 rows."""
    names, batch = sorted(losses.OBJECTIVES), table_batch(np.random.default_rng(1), MODALITIES, 8)
    method, sizes = table_method(MODALITIES), (0, 1, 4)
    params, state = jax.jit(method.init)(KEY, batch)
    own = {"scale": jnp.full(len(names), 5.0), "bias": jnp.full(len(names), -2.0), "prototypes": jnp.eye(3, 6) + 0.1}

    def measure(learnt, which):
        params, own = learnt
        encoded = jax.lax.switch(
            which,
            [
                lambda m=m: encode_in_micro_batches(lambda b: method.encode(params, state, b, KEY, True), batch, m)
                for m in sizes
            ],
        )
        values = jnp.stack([_loss(name, i, encoded, batch, own) for i, name in enumerate(names)])
        return values, values

    measured = jax.jit(jax.jacrev(measure, has_aux=True))
    return names, {m: jax.tree.map(np.asarray, measured((params, own), i)) for i, m in enumerate(sizes)}


def _loss(name, i, encoded, batch, own):
    modalities = MODALITIES if name in ("gram", "more", "symile") else ("image", "text")
    objective = losses.get(name, modalities=modalities, impl="dense", **OPTIONS.get(name, {}))
    embeddings = {m: encoded.pooled[m] for m in modalities}
    if objective.takes == "tokens":
        group = np.arange(1, 33, dtype=np.uint32).reshape(8, 2, 2)
        embeddings = {
            m: Tokens(encoded.items[m], encoded.item_mask[m], group=group, pooled=x) for m, x in embeddings.items()
        }
    found = batch.targets["labels"]
    return objective(
        embeddings,
        logit_scale=own["scale"][i],
        logit_bias=own["bias"][i],
        prototypes=own["prototypes"] if "prototypes" in objective.needs else None,
        present={m: encoded.present[m] for m in modalities},
        ids=batch.ids,
        targets=found[:, 0].astype(np.int32) if name == "sepclr" else found,
        key=KEY,
    ).mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(losses.OBJECTIVES))
@pytest.mark.parametrize("micro_batch", [1, 4])
def test_the_gradient_of_every_objective_is_that_of_the_whole_batch(name, micro_batch):
    names, found = every_objective()
    at = names.index(name)
    (whole, value), (accumulated, again) = (jax.tree.map(lambda x: x[at], found[m]) for m in (0, micro_batch))
    assert np.abs(np.concatenate([x.ravel() for x in jax.tree.leaves(whole)])).max() > 1e-4
    np.testing.assert_allclose(again, value, rtol=FLOAT32, atol=FLOAT32)
    assert_close(accumulated, whole)
