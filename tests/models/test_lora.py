"""LoRA: nothing at the start, the same merged, off at evaluation, drawn by global row."""

import functools

import jax
import numpy as np
import pytest
from methods_batch import BLOCKS, SPECS, cut, make_batch

from medjax.errors import UserError
from medjax.methods.towers import Towers
from medjax.models.lora import merge_lora, peft_state
from medjax.models.partitioning import logical_specs, unbox

KEY = jax.random.key(9)
BERT = {"name": "bert", "positions": 8, **BLOCKS}
LORA = {"rank": 2, "alpha": 3.0, "dropout": 0.4, "targets": r"blocks/block_\d+/(attention/(query|value)|mlp/up)"}
LAYERS = ("attention/query", "attention/value", "mlp/up")
FLOAT32 = 1e-5  # features of size one through one block, kernels summed in another order


def make_towers(lora, **options) -> Towers:
    return Towers.create({"text": BERT | options | {"lora": lora}}, SPECS)


@functools.cache
def batch():
    return make_batch(np.random.default_rng(0), modalities=("text",))


def boxed_params(towers: Towers):
    base, _ = jax.jit(towers.init)(KEY, batch())
    return {"towers": base, **towers.init_lora(KEY, batch(), base)}


def make_params(towers: Towers):
    return unbox(jax.jit(lambda: boxed_params(towers))())


@functools.cache
def compiled(remat="none"):
    """(parameters with a b that is not zero, tokens(params, batch, train)), compiled once."""
    towers = make_towers(LORA, remat=remat)
    params = make_params(towers)
    leaves, structure = jax.tree.flatten(params["lora"])
    rng = np.random.default_rng(2)
    lora = jax.tree.unflatten(structure, [rng.normal(size=x.shape).astype(np.float32) for x in leaves])
    apply = jax.jit(lambda p, b, train: towers.apply(p, {}, "text", b, KEY, train)[0].tokens, static_argnums=2)
    return params | {"lora": lora}, apply


def test_fresh_lora_is_the_base_bit_for_bit_and_leaves_its_parameters_as_they_are():
    params = make_params(make_towers(LORA))
    plain = make_params(make_towers(None))
    assert set(plain) == {"towers"}
    jax.tree.map(np.testing.assert_array_equal, params["towers"], plain["towers"])
    _, apply = compiled()
    np.testing.assert_array_equal(apply(params, batch(), False), apply(plain, batch(), False))
    np.testing.assert_array_equal(apply(params, batch(), True), apply(plain, batch(), True))


def test_there_is_an_a_and_a_b_for_every_target_and_they_lie_as_the_kernel_does():
    lora = jax.jit(lambda: boxed_params(make_towers(LORA)))()["lora"]["text"]["blocks"]
    block, names = unbox(lora)["block_0"], logical_specs(lora)["block_0"]
    assert list(unbox(lora)) == ["block_0"] and sorted(block) == ["attention", "mlp"]
    assert sorted(block["attention"]) == ["query", "value"] and sorted(block["mlp"]) == ["up"]
    assert block["mlp"]["up"]["a"].shape == (8, 2) and block["mlp"]["up"]["b"].shape == (2, 32)
    assert names["mlp"]["up"] == {"a": jax.P("embed", None), "b": jax.P(None, "mlp")}
    a = np.asarray(block["mlp"]["up"]["a"])
    assert 0 < np.abs(a).max() <= 1 / np.sqrt(8) and not np.any(block["mlp"]["up"]["b"])
    assert np.any(a != block["attention"]["query"]["a"])


def test_merged_equals_separate():
    params, apply = compiled()
    merged = make_towers(LORA).merged(params)
    assert set(merged) == {"towers"}
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x.shape, y.shape), merged["towers"], params["towers"])
    separate = apply(params, batch(), False)
    np.testing.assert_allclose(apply(merged, batch(), False), separate, atol=FLOAT32)
    assert np.abs(separate - apply({"towers": params["towers"]}, batch(), False)).max() > 0.1


def test_merging_adds_alpha_over_rank_times_the_product():
    params, _ = compiled()
    config = make_towers(LORA).lora["text"]
    with jax.set_mesh(jax.make_mesh((8,), ("fsdp",))):  # of which the parameters of a loaded run know nothing
        block = merge_lora(params["towers"]["text"], params["lora"]["text"], config)["blocks"]["block_0"]
    old, low = params["towers"]["text"]["blocks"]["block_0"], params["lora"]["text"]["blocks"]["block_0"]
    a, b = (np.asarray(low["mlp"]["up"][k], np.float64) for k in "ab")
    np.testing.assert_allclose(block["mlp"]["up"]["kernel"], old["mlp"]["up"]["kernel"] + 1.5 * a @ b, atol=1e-6)
    np.testing.assert_array_equal(block["mlp"]["down"]["kernel"], old["mlp"]["down"]["kernel"])


def test_dropout_is_of_training_only_and_does_not_depend_on_how_the_batch_is_cut():
    params, apply = compiled()
    whole = apply(params, batch(), True)
    assert np.abs(whole - apply(params, batch(), False)).max() > 0.1
    parts = [apply(params, cut(batch(), i, i + 3), True) for i in (0, 3)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=FLOAT32)
    plain = {"towers": params["towers"]}
    np.testing.assert_array_equal(apply(plain, batch(), True), apply(plain, batch(), False))  # of the low path only


def test_recomputed_blocks_draw_the_same_dropout():
    params, apply = compiled()
    _, again = compiled("full")

    def gradient(f):
        return jax.grad(lambda lora: (f(params | {"lora": lora}, batch(), True) ** 2).mean())(params["lora"])

    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), *map(gradient, (apply, again)))


def test_pefts_names_and_shapes():
    params, _ = compiled()
    state = peft_state(params["lora"]["text"], lambda path: path.replace("/", "."))
    prefix = "base_model.model.blocks.block_0."
    assert set(state) == {f"{prefix}{n.replace('/', '.')}.lora_{m}.weight" for n in LAYERS for m in "AB"}
    low = params["lora"]["text"]["blocks"]["block_0"]["mlp"]["up"]
    np.testing.assert_array_equal(state[f"{prefix}mlp.up.lora_A.weight"], low["a"].T)
    np.testing.assert_array_equal(state[f"{prefix}mlp.up.lora_B.weight"], low["b"].T)


def test_targets_that_match_no_linear_layer_are_an_error_that_lists_them():
    towers = make_towers({"targets": "words"})  # a table is no linear layer
    with pytest.raises(UserError, match=r"text.lora.targets='words'.*blocks/block_N/attention/query") as error:
        make_params(towers)
    assert "norm" not in str(error.value)


@pytest.mark.parametrize(
    ("lora", "options", "word"),
    [
        ({"ranks": 3}, {}, "ranks; did you mean 'rank'"),
        ({"rank": 0}, {}, "rank=0"),
        ({"dropout": 1.0}, {}, "dropout=1.0"),
        ({"targets": "(query"}, {}, "not a regular expression"),
        ({"rank": 2}, {"scan": True}, "scan=False"),
    ],
)
def test_wrong_options_are_named(lora, options, word):
    with pytest.raises(UserError, match=word):
        make_towers(lora, **options)
