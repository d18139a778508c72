"""Explanations equal their formulas in NumPy, finite differences, and what is planted in an encoder by hand."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_batch import SPECS, complete, make_batch

from medjax.evaluation.explain.gradient_attention import gradient_attention
from medjax.evaluation.explain.gradients import grad_cam, integrated_gradients
from medjax.evaluation.explain.inside import Inside, look, map_paths
from medjax.evaluation.explain.m2ib import m2ib
from medjax.evaluation.explain.rollout import rollout
from medjax.evaluation.explain.similarity_maps import similarity_map, smoothed, token_space
from medjax.methods import make_method

FLOAT32 = 1e-5
BLOCKS = {"width": 8, "depth": 2, "heads": 2}
TOWERS = {
    "image": {"name": "vit", "patch": 4, "pool": "mean", **BLOCKS},
    "ecg": {"name": "ecg_vit", "patch": 4, "registers": 1, **BLOCKS},
    "labs": {"name": "mlp", "hidden": (8, 8)},
    "text": {"name": "bert", "positions": 8, "pool": "eos", **BLOCKS},
}


def opened(towers, rng, **options):
    """(`{modality: Inside}`, params, batch of 3) of a contrastive method with weights away from their start."""
    specs = {m: SPECS[m] for m in towers}
    objectives = {"info_nce": {}} if len(towers) > 1 else {"info_nce": {"modalities": (*towers, *towers)}}
    method = make_method(
        {"name": "contrastive", "towers": towers, "embed_dim": 6, "objectives": objectives, **options}, specs
    )
    batch = complete(make_batch(rng, 3, 1, tuple(towers)))
    params, state = jax.jit(method.init)(jax.random.key(0), batch)
    params = jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype(np.float32), params)

    def encode(params, batch):
        return method.encode(*params, batch, None, False)

    return {m: Inside(encode, m, method.towers.modules[m].config) for m in towers}, (params, state), batch


@pytest.fixture(scope="module")
def four():
    return opened(TOWERS, np.random.default_rng(0))


@pytest.fixture
def target(rng):
    return rng.normal(size=(3, 6)).astype(np.float32)


def run(explain, inside, params, batch, target, **options) -> np.ndarray:
    """The explanation as one program."""
    return np.asarray(jax.jit(partial(explain, inside, **options))(params, batch, target))


def seen_in(inside, params, batch):
    """See `look`."""
    return jax.jit(partial(look, inside))(params, batch)


def test_looking_gives_the_embedding_of_the_method(four):
    insides, params, batch = four
    for m, inside in insides.items():
        expected = jax.jit(inside.encode)(params, batch.select([m])).pooled[m]
        np.testing.assert_allclose(seen_in(inside, params, batch).pooled, expected, atol=FLOAT32)


def test_rollout_is_the_product_of_averaged_maps(four, target):
    insides, params, batch = four
    for m, read in (("image", "mean"), ("ecg", "cls"), ("text", "eos")):
        seen = seen_in(insides[m], params, batch)
        found = run(rollout, insides[m], params, batch, target)
        for n in range(3):
            total = np.eye(seen.features.tokens.shape[1])
            for path in map_paths(insides[m]):
                total = (0.5 * np.asarray(seen.outputs[path], np.float64)[n].mean(0) + 0.5 * np.eye(len(total))) @ total
            length = int(batch.items["text"].value["lengths"][n, 0]) if m == "text" else len(total)
            row = {"mean": total.mean(0), "cls": total[0], "eos": total[length - 1]}[read]
            np.testing.assert_allclose(row.sum(), 1, atol=FLOAT32)
            expected = row[seen.features.prefix : length]
            np.testing.assert_allclose(found[n][: len(expected)], expected, atol=FLOAT32)
            assert np.isnan(found[n][len(expected) :]).all()


def test_gradient_attention_by_finite_differences(four, target):
    """Equations 5 and 6 in loops, the gradient of every entry of every map by moving it."""
    insides, params, batch = four
    inside, n, step = insides["ecg"], 0, 1e-2
    seen, paths = seen_in(inside, params, batch), map_paths(inside)
    shape = seen.outputs[paths[0]].shape[1:]

    @jax.jit
    def score(path_index, at, by):
        def move(path, x):
            if path not in paths:
                return x
            on = (path_index == paths.index(path)) * by
            return x.at[n].add(on * (jnp.arange(x[n].size) == at).reshape(x[n].shape))

        return look(inside, params, batch, move).pooled[n] @ target[n]

    total = np.eye(shape[-1])
    for i, path in enumerate(paths):
        every = jnp.arange(int(np.prod(shape)))
        up, down = (np.asarray(jax.vmap(lambda k, s=s, i=i: score(i, k, s))(every)) for s in (step, -step))
        gradient = ((up - down) / (2 * step)).reshape(shape)
        weighted = np.maximum(gradient * np.asarray(seen.outputs[path])[n], 0).mean(axis=0)
        total = total + weighted @ total
    expected = (total - np.eye(len(total)))[0, seen.features.prefix :]
    found = run(gradient_attention, inside, params, batch, target)[n]
    assert expected.max() > 1e-4
    np.testing.assert_allclose(found, expected, atol=0.02 * expected.max())


@pytest.mark.parametrize("explain", [rollout, gradient_attention, similarity_map])
def test_an_example_does_not_depend_on_its_batch(four, target, explain):
    insides, params, batch = four
    order = np.array([2, 0, 1])
    mixed = replace(jax.tree.map(lambda x: x[order], batch), row=np.arange(3, dtype=np.int32))
    for m in ("image", "text"):
        found = run(explain, insides[m], params, mixed, target[order])
        np.testing.assert_allclose(found, run(explain, insides[m], params, batch, target)[order], atol=FLOAT32)


def test_integrated_gradients_add_up_to_the_rise_over_zeros(four, target):
    insides, params, batch = four
    for m in ("image", "ecg", "labs"):
        value = batch.items[m].value
        zero = {**value, "value": 0 * value["value"]} if m == "labs" else 0 * value
        base = replace(batch, items={m: replace(batch.items[m], value=zero)})
        high, low = (seen_in(insides[m], params, x).pooled for x in (batch, base))
        rise = ((high - low) * target).sum(axis=1)
        found = run(integrated_gradients, insides[m], params, batch, target)
        assert found.shape == {"image": (3, 8, 8), "ecg": (3, 2, 16), "labs": (3, 3)}[m]
        # The middles of 32 steps: an error of the second order, the steeper the more the first steps turn.
        np.testing.assert_allclose(found.reshape(3, -1).sum(axis=1), rise, atol=0.03 * np.abs(target).max())


def test_integrated_gradients_of_texts_are_of_real_words_alone(four, target):
    insides, params, batch = four
    found = run(integrated_gradients, insides["text"], params, batch, target)
    lengths = batch.items["text"].value["lengths"]
    np.testing.assert_array_equal(np.isfinite(found), np.arange(5)[None] < lengths)


def test_similarity_is_the_cosine_of_each_token_through_the_head(four, target):
    insides, params, batch = four
    features = seen_in(insides["image"], params, batch).features
    tokens = np.asarray(features.patches, np.float64) @ np.asarray(params[0]["heads"]["image"]["out"]["kernel"])
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    found = run(similarity_map, insides["image"], params, batch, target)
    np.testing.assert_allclose(found, np.einsum("nle,ne->nl", tokens, target), atol=FLOAT32)
    assert "pooled" in token_space(insides["image"], params)


def test_tokens_that_an_objective_projects_are_taken_as_they_are(rng, target):
    towers = {m: TOWERS[m] for m in ("image", "text")}
    insides, params, batch = opened(towers, rng, objectives={"info_nce": {}, "gloria_local": {}})
    assert "objective" in token_space(insides["image"], params)
    tokens = np.asarray(insides["image"].encode(params, batch).tokens["image"])[:, 0]
    found = run(similarity_map, insides["image"], params, batch, target)
    np.testing.assert_allclose(found, np.einsum("nle,ne->nl", tokens, target), atol=FLOAT32)


def test_grad_cam_of_a_linear_reading_is_its_class_activation_map(rng, target):
    """With the mean over places and a linear head, not normalised, the gradient at a channel is `W target / L`."""
    towers = {"image": {"name": "resnet", "stem": 4, "block": "basic", "depths": (1, 1), "channels": 0}}
    towers |= {"text": TOWERS["text"]}
    insides, params, batch = opened(towers, rng, head={"normalise": False})
    wide = replace(batch, items={"image": replace(batch.items["image"], value=rng.normal(size=(3, 1, 32, 32, 1)))})
    maps = np.asarray(seen_in(insides["image"], params, wide).features.tokens)
    weight = target @ np.asarray(params[0]["heads"]["image"]["out"]["kernel"]).T / maps.shape[1]
    expected = np.maximum(np.einsum("nlc,nc->nl", maps, weight), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(run(grad_cam, insides["image"], params, wide, target), expected, rtol=1e-3, atol=FLOAT32)


def planted(rng):
    """A ViT whose blocks pass on what they get and whose head reads the mean as it is; pictures of two patches with a
    pattern each, at places 5 and 10, and faint noise."""
    vit = {"name": "vit", "patch": 2, "pool": "mean", "width": 8, "depth": 1, "heads": 1, "norm": "pooled"}
    insides, (params, state), batch = opened({"image": vit, "text": TOWERS["text"]}, rng)
    tower = jax.tree.map(jnp.zeros_like, params["towers"]["image"])
    tower["patch_embed"]["kernel"] = 3.0 * jnp.eye(4, 8)
    tower["norm"]["scale"] = jnp.ones(8)
    head = {"image": {"out": {"kernel": jnp.eye(8, 6)}}, "text": params["heads"]["text"]}
    patches = 0.05 * rng.normal(size=(3, 1, 16, 4))
    patches[:, :, 5], patches[:, :, 10] = (2, 0, 0, 0), (0, 2, 0, 0)
    value = patches.reshape(3, 1, 4, 4, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(3, 1, 8, 8, 1).astype(np.float32)
    shown = replace(batch, items={"image": replace(batch.items["image"], value=value)})
    params = {**params, "towers": {**params["towers"], "image": tower}, "heads": head}
    return insides["image"], (params, state), shown


def test_the_bottleneck_keeps_the_informative_patch_and_asks_what_it_is_asked(rng):
    inside, params, batch = planted(rng)
    explain = jax.jit(lambda t, seed: m2ib(inside, params, batch, t, seed=seed), static_argnums=1)
    for place, direction in ((5, 0), (10, 1)):
        target = np.broadcast_to(np.eye(6, dtype=np.float32)[direction], (3, 6))
        found = np.asarray(explain(target, 0))
        np.testing.assert_array_equal(found.argmax(axis=1), place)
        assert (found >= 0).all()
        np.testing.assert_array_equal(explain(target, 0), found)
        assert np.abs(np.asarray(explain(target, 1)) - found).max() > 1e-4


def test_the_noise_belongs_to_the_row_and_not_to_the_place_in_the_batch(rng):
    inside, params, batch = planted(rng)
    target = rng.normal(size=(3, 6)).astype(np.float32)
    whole = run(m2ib, inside, params, batch, target)
    one = jax.tree.map(lambda x: x[2:], batch)
    np.testing.assert_allclose(run(m2ib, inside, params, one, target[2:])[0], whole[2], atol=1e-4)


def test_similarity_finds_each_planted_patch(rng):
    inside, params, batch = planted(rng)
    for place, direction in ((5, 0), (10, 1)):
        target = np.broadcast_to(np.eye(6, dtype=np.float32)[direction], (3, 6))
        for explain in (similarity_map, integrated_gradients):
            found = run(explain, inside, params, batch, target)
            if found.ndim == 3:
                found = found.reshape(3, 4, 2, 4, 2).sum(axis=(2, 4)).reshape(3, 16)
            np.testing.assert_array_equal(found.argmax(axis=1), place)


def test_smoothing_keeps_constants_and_what_is_unknown():
    grid = np.full((5, 6), 0.7, np.float32)
    grid[0, 0] = np.nan
    found = smoothed(grid, 1.5)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(grid))
    np.testing.assert_allclose(found[~np.isnan(found)], 0.7, rtol=1e-6)
