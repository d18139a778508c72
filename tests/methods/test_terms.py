"""What objectives learn beside the encoders: biases, prototypes, heads for tokens."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_batch import BLOCKS, SPECS, complete, make_batch

from medjax import losses
from medjax.convert import rules
from medjax.convert.architecture import architecture, exported_tree
from medjax.convert.tables import encoder_rules
from medjax.data.batch import Items
from medjax.errors import UserError
from medjax.losses import Tokens
from medjax.methods import make_method
from medjax.methods.item_ids import content_ids

TOWERS = {
    "image": {"name": "vit", "patch": 4, **BLOCKS},
    "text": {"name": "bert", "positions": 8, **BLOCKS},
}
KEY = jax.random.key(3)


def method_of(**objectives):
    options = {"name": "contrastive", "towers": TOWERS, "embed_dim": 6, "objectives": objectives}
    return make_method(options, SPECS)


@pytest.fixture
def batch(rng):
    return make_batch(rng, modalities=("image", "text"))


def test_bias_starts_where_it_is_told_and_reaches_the_loss(batch):
    method = method_of(sigmoid={"bias": -2.0})
    params, _ = jax.jit(method.init)(KEY, batch)
    assert params["objectives"]["sigmoid"]["bias"] == -2.0
    encoded = method.encode(params, {}, batch, None, False)
    loss = method.objective(encoded, params, {}, batch, KEY)[0].mean()
    expected = losses.get("sigmoid")(encoded.pooled, logit_scale=10.0, logit_bias=-2.0, present=encoded.present).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_bias_and_scale_travel_with_an_export(batch):
    method = method_of(sigmoid={}, info_nce={})
    params, _ = jax.jit(method.init)(KEY, batch)
    configs = {m: module.config for m, module in method.towers.modules.items()}
    config = architecture(configs, {}, {}, exported_tree(params, {}), SPECS)
    assert config["biases"] == ["sigmoid"] and config["log_scales"] == ["info_nce", "sigmoid"]
    learnt = {"objectives": params["objectives"]}
    names = {"biases.sigmoid": (), "log_scales.info_nce": (), "log_scales.sigmoid": ()}
    state = rules.to_torch(learnt, encoder_rules({}), names)
    assert state["biases.sigmoid"] == -10.0


def test_published_temperatures_stay_fixed_unless_told_otherwise(batch):
    def gradient(**options):
        method = method_of(convirt=options)
        params, _ = jax.jit(method.init)(KEY, batch)
        encoded = method.encode(params, {}, batch, None, False)

        def value(learnt):
            return method.objective(encoded, {"objectives": learnt}, {}, batch, KEY)[0].mean()

        return jax.grad(value)(params["objectives"])["convirt"]["log_scale"]

    assert gradient() == 0 and gradient(learn_scale=True) != 0


def test_tokens_are_projected_for_the_objectives_that_compare_them(batch):
    batch = complete(batch)
    method = method_of(gloria_local={}, info_nce={})
    params, _ = jax.jit(method.init)(KEY, batch)
    assert set(params["token_heads"]) == {"image", "text"}
    encoded = method.encode(params, {}, batch, None, False)
    assert encoded.tokens["text"].shape == (6, 2, 5, 6)
    np.testing.assert_allclose(np.linalg.norm(encoded.tokens["image"], axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(
        np.asarray(encoded.token_mask["text"]).sum(axis=2), batch.items["text"].value["lengths"]
    )
    loss, _ = method.objective(encoded, params, {}, batch, KEY)
    tokens = {
        m: Tokens(jnp.reshape(x, (6, -1, 6)), jnp.reshape(encoded.token_mask[m], (6, -1)))
        for m, x in encoded.tokens.items()
    }
    expected = losses.get("gloria_local")(tokens, logit_scale=10.0).mean()
    np.testing.assert_allclose(loss.metrics()["gloria_local"], expected, rtol=1e-5)


def test_an_encoder_without_token_heads_still_embeds(batch):
    method = method_of(gloria_local={}, info_nce={})
    params, _ = jax.jit(method.init)(KEY, batch)
    whole = method.encode(params, {}, batch, None, False)
    exported = method.encode({k: v for k, v in params.items() if k != "token_heads"}, {}, batch, None, False)
    np.testing.assert_array_equal(exported.pooled["image"], whole.pooled["image"])
    assert not exported.tokens


def test_items_are_the_parts_where_that_is_asked_for(batch):
    method = method_of(mil_nce={"parts": {"image": "items", "text": "items"}}, info_nce={})
    params, _ = jax.jit(method.init)(KEY, batch)
    assert "token_heads" not in params
    encoded = method.encode(params, {}, batch, None, False)
    loss, _ = method.objective(encoded, params, {}, batch, KEY)
    items = {m: Tokens(encoded.items[m], encoded.item_mask[m], pooled=encoded.pooled[m]) for m in encoded.items}
    expected = losses.get("mil_nce")(items, logit_scale=10.0, present=encoded.present).mean()
    np.testing.assert_allclose(loss.metrics()["mil_nce"], expected, rtol=1e-5)


def test_equal_items_have_equal_ids_and_no_others(batch):
    batch = complete(batch)
    text = batch.items["text"]
    tokens, lengths, mask = (np.array(x) for x in (text.value["tokens"], text.value["lengths"], text.mask))
    tokens[4, 1], lengths[4, 1], mask[5, 0] = tokens[0, 0], lengths[0, 0], False
    ids = np.asarray(content_ids(Items({"tokens": tokens, "lengths": lengths}, mask)))
    assert not ids[5, 0].any()
    real = np.concatenate([tokens, lengths[..., None]], axis=2)[mask]
    same = (real[:, None] == real[None]).all(axis=2)
    assert same.sum() > len(real)  # the planted pair
    np.testing.assert_array_equal((ids[mask][:, None] == ids[mask][None]).all(axis=2), same)
    pictures = content_ids(batch.items["image"])
    assert len(np.unique(pictures.reshape(-1, 2), axis=0)) == 12


def test_patches_meet_sentences_which_are_known_by_their_content(batch):
    batch = complete(batch)
    method = method_of(mp_nce={"parts": {"text": "items"}, "same_sentence": "mask"}, info_nce={})
    params, _ = jax.jit(method.init)(KEY, batch)
    assert set(params["token_heads"]) == {"image"}
    text = batch.items["text"]
    twice = jax.tree.map(lambda x: x.at[3, 1].set(x[1, 0]), jax.tree.map(jnp.asarray, text.value))
    batch = replace(batch, items={**batch.items, "text": replace(text, value=twice)})
    encoded = method.encode(params, {}, batch, None, False)
    loss, _ = method.objective(encoded, params, {}, batch, KEY)
    number = jnp.arange(1, 13, dtype=jnp.uint32).reshape(6, 2).at[3, 1].set(3)
    group = jnp.stack([number, number], axis=2)
    tokens = {
        "image": Tokens(
            *(x.reshape(6, -1, *x.shape[3:]) for x in (encoded.tokens["image"], encoded.token_mask["image"]))
        ),
        "text": Tokens(encoded.items["text"], encoded.item_mask["text"], group=group),
    }
    call = losses.get("mp_nce", same_sentence="mask")
    np.testing.assert_allclose(loss.metrics()["mp_nce"], call(tokens, logit_scale=1 / 0.07).mean(), rtol=1e-5)
    without = losses.get("mp_nce")(tokens, logit_scale=1 / 0.07).mean()
    assert abs(loss.metrics()["mp_nce"] - without) > 1e-4


def test_examples_of_one_scan_are_no_negatives_unless_asked_for(batch):
    batch = replace(complete(batch), ids={k: x.copy() for k, x in batch.ids.items()})
    batch.ids["group"][3] = batch.ids["group"][1]
    terms = {"info_nce": {}, "plain": {"name": "info_nce", "same_group": "ignore"}}
    method = method_of(**terms, mgca_prototype={"prototypes": 3})
    params, _ = jax.jit(method.init)(KEY, batch)
    encoded = method.encode(params, {}, batch, None, False)
    found = method.objective(encoded, params, {}, batch, KEY)[0].metrics()
    for name, policy in (("info_nce", "mask"), ("plain", "ignore")):
        call = losses.get("info_nce", same_group=policy)
        expected = call(encoded.pooled, logit_scale=1 / 0.07, ids=batch.ids).mean()
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)
    assert found["info_nce"] < found["plain"] - 1e-3


def test_prototypes_are_unit_vectors_with_a_gradient(batch):
    method = method_of(mgca_prototype={"prototypes": 5})
    params, _ = jax.jit(method.init)(KEY, batch)
    assert params["prototypes"]["mgca_prototype"].shape == (5, 6)
    encoded = method.encode(params, {}, batch, None, False)

    def value(prototypes):
        learnt = {**params, "prototypes": {"mgca_prototype": prototypes}}
        return method.objective(encoded, learnt, {}, batch, KEY)[0].mean()

    prototypes = params["prototypes"]["mgca_prototype"]
    np.testing.assert_allclose(value(3 * prototypes), value(prototypes), rtol=1e-5)
    assert np.any(jax.grad(value)(prototypes))


@pytest.mark.parametrize(
    ("objectives", "named"),
    [
        ({"mgca_prototype": {}}, r"objectives\.mgca_prototype\.prototypes="),
        ({"gloria_local": {"parts": {"text": "words"}}}, "words"),
        ({"gloria_local": {"parts": {"ecg": "items"}}}, "does not take"),
    ],
)
def test_wrong_terms_are_named(objectives, named):
    with pytest.raises(UserError, match=named):
        method_of(**objectives)
