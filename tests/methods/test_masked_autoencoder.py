"""Masked autoencoding behind the contract of a method."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from methods_batch import BLOCKS, SPECS, complete, cut, make_batch

from medjax.data.batch import Items
from medjax.errors import UserError
from medjax.methods import make_method
from medjax.models.vit import VisionTransformer, VitConfig

OPTIONS = {
    "name": "masked_autoencoder",
    "towers": {"image": {"name": "vit", "patch": 2, **BLOCKS}, "ecg": {"name": "ecg_vit", "patch": 2, **BLOCKS}},
    "decoder": {"width": 8, "depth": 1, "heads": 2},
}
KEY = jax.random.key(9)
FLOAT32 = 1e-5  # unit-sized activations through two blocks
LENGTH = {"image": 16, "ecg": 8}


@pytest.fixture
def batch(rng):
    return make_batch(rng, modalities=("image", "ecg"))


@functools.cache
def compiled():
    """(method, parameters, encode(params, batch, key), value and gradient of a step by parameters and batch)."""
    method = make_method(OPTIONS, SPECS)
    first = make_batch(np.random.default_rng(1), modalities=("image", "ecg"))
    params, state = jax.jit(method.init)(jax.random.key(0), first)
    encode = jax.jit(lambda p, b, key: method.encode(p, state, b, key, True))

    def loss(p, image, b):
        items = {**b.items, "image": replace(b.items["image"], value=image)}
        b = replace(b, items=items).only_valid()
        return method.objective(method.encode(p, state, b, KEY, True), p, state, b, KEY)[0].mean()

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return method, params, encode, lambda p, b: step(p, b.items["image"].value, b)


@functools.cache
def compiled_objective():
    """The value by the targets alone: the encoding is given."""
    method = compiled()[0]
    return jax.jit(lambda encoded, p, b: method.objective(encoded, p, {}, b, KEY)[0].mean())


def close(a, b, tolerance=FLOAT32):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance), a, b)


def test_share_of_hidden_patches_is_the_mask_ratio(batch):
    _, params, encode, _ = compiled()
    encoded = encode(params, batch, KEY)
    for m, length in LENGTH.items():
        visible = np.asarray(encoded.positions[m])
        assert visible.shape == (6, 2, length // 4)
        assert encoded.tokens[m].shape[:3] == visible.shape
        assert np.all(np.diff(visible, axis=2) > 0)  # in order, and each patch once
        assert visible.min() >= 0
        assert visible.max() < length


def test_masks_differ_from_item_to_item_and_key_to_key(batch):
    _, params, encode, _ = compiled()
    first = np.asarray(encode(params, batch, KEY).positions["image"]).reshape(12, -1)
    assert len(np.unique(first, axis=0)) > 8  # 12 draws of 1820 sets
    other = np.asarray(encode(params, batch, jax.random.key(1)).positions["image"]).reshape(12, -1)
    assert np.mean(np.all(first == other, axis=1)) < 0.3


def test_every_patch_is_hidden_equally_often(batch):
    _, params, encode, _ = compiled()
    keys = jax.random.split(jax.random.key(3), 60)
    visible = np.concatenate([np.asarray(encode(params, batch, k).positions["ecg"]).ravel() for k in keys])
    counts = np.bincount(visible, minlength=8)
    assert np.abs(counts - 180).max() < 5 * np.sqrt(180)  # 60 keys x 12 items x 2 of 8 patches


def test_micro_batches_encode_as_the_whole_batch(batch):
    _, params, encode, _ = compiled()
    parts = [encode(params, cut(batch, i, i + 3), KEY) for i in (0, 3)]
    close(jax.tree.map(lambda *x: np.concatenate(x), *parts), encode(params, batch, KEY))


SEEN = {
    "image": ({"name": "vit", "patch": 2, **BLOCKS}, (8, 8, 1)),
    "volume": ({"name": "vit", "patch": 2, "frames": 2, "positions": "sincos", **BLOCKS}, (4, 8, 4, 1)),
    "ecg": ({"name": "ecg_vit", "patch": 2, "tokens": "lead_time", **BLOCKS}, (2, 16)),
}


@pytest.mark.parametrize("modality", SEEN)
def test_the_encoder_sees_the_visible_patches_and_no_other(rng, modality):
    """With hidden pixels replaced its tokens are the same, bit for bit, and every visible patch has a part in them."""
    tower, shape = SEEN[modality]
    method = make_method({**OPTIONS, "towers": {modality: tower}}, {modality: {"kind": modality}})
    batch = make_batch(rng, 3, 1, ("ecg",))
    first, other = (Items(rng.normal(size=(3, 1, *shape)).astype(np.float32), np.ones((3, 1), bool)) for _ in range(2))
    batch = replace(batch, items={modality: first})
    params, _ = jax.jit(method.init)(jax.random.key(0), batch)
    patches = method.towers.modules[modality].patchify

    @jax.jit
    def encode(value):
        items = {modality: replace(first, value=value)}
        encoded = method.encode(params, {}, replace(batch, items=items), KEY, True)
        return encoded.tokens[modality], encoded.positions[modality]

    tokens, visible = encode(first.value)
    length = patches(first.value[:, 0]).shape[1]
    assert tokens.shape == (3, 1, length // 4, 8)
    shown = np.zeros((3, length), bool)
    shown[np.arange(3)[:, None], visible[:, 0]] = True
    _, back = jax.vjp(patches, first.value[:, 0])  # patches are the values in another order, and so is the way back
    (pixels,) = back(np.broadcast_to(shown[..., None], patches(first.value[:, 0]).shape).astype(np.float32))
    blank = np.where(np.asarray(pixels)[:, None] > 0, first.value, other.value)
    assert np.mean(blank != first.value) == 0.75
    np.testing.assert_array_equal(encode(blank)[0], tokens)
    slope = jax.grad(lambda x: encode(x)[0][..., 0].sum())(first.value)[:, 0]
    np.testing.assert_array_equal(np.any(np.asarray(patches(slope)), axis=-1), shown)


def test_without_a_key_every_patch_is_encoded(batch):
    _, params, encode, _ = compiled()
    encoded = encode(params, batch, None)
    for m, length in LENGTH.items():
        assert encoded.tokens[m].shape[:3] == (6, 2, length)
        np.testing.assert_array_equal(encoded.positions[m], np.broadcast_to(np.arange(length), (6, 2, length)))
        assert not np.any(np.asarray(encoded.pooled[m])[~batch.items[m].present])


def test_targets_of_visible_patches_do_not_matter_and_those_of_hidden_ones_do(batch):
    _, params, encode, _ = compiled()
    batch = complete(batch)
    encoded = encode(params, batch, KEY)
    visible = np.asarray(encoded.positions["image"]).reshape(12, -1)
    hidden = np.ones((12, 16), bool)
    hidden[np.arange(12)[:, None], visible] = False

    def value(where):
        """The loss when the patches in `where` are turned upside down, the encoding being what it was."""
        x = batch.items["image"].value
        patches = np.array(VisionTransformer(VitConfig(patch=2)).patchify(x.reshape(12, 8, 8, 1)))
        patches[where] = patches[where][:, ::-1]
        turned = patches.reshape(12, 4, 4, 2, 2, 1).transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)
        items = {**batch.items, "image": replace(batch.items["image"], value=turned)}
        return compiled_objective()(encoded, params, replace(batch, items=items))

    assert value(np.zeros_like(hidden)) == value(~hidden)
    assert abs(value(hidden) - value(~hidden)) > 1e-3


def test_loss_is_the_mean_squared_error_of_hidden_normalised_patches(batch):
    """With a decoder that answers zero the error of a patch of unit spread is one."""
    _, params, encode, _ = compiled()
    zero = jax.tree.map(np.zeros_like, params["decoders"])
    value = compiled_objective()(encode(params, batch, KEY), {**params, "decoders": zero}, batch)
    np.testing.assert_allclose(value, 1.0, rtol=1e-3)  # the floor 1e-6 under the variance of a flat patch


def test_invalid_and_absent_items_have_no_influence(batch):
    _, params, _, step = compiled()
    valid = np.array([True, True, False, True, False, True])
    batch = replace(batch, valid=valid)
    there = batch.items["image"].mask & valid[:, None]
    value, (gradient, d_image) = step(params, batch)
    assert not np.any(np.asarray(d_image)[~there])
    assert np.any(np.asarray(d_image)[there].reshape(there.sum(), -1), axis=1).all()
    blank = np.where(there[..., None, None, None], batch.items["image"].value, 3.0).astype(np.float32)
    items = {**batch.items, "image": replace(batch.items["image"], value=blank)}
    value_blank, (gradient_blank, _) = step(params, replace(batch, items=items))
    close((value_blank, gradient_blank), (value, gradient))


def test_batch_without_valid_rows_has_zero_loss_and_gradient(batch):
    _, params, _, step = compiled()
    value, gradient = step(params, replace(batch, valid=np.zeros(6, bool)))
    assert value == 0.0
    assert not any(np.any(g) for g in jax.tree.leaves(gradient))


def test_after_update_changes_nothing_and_there_is_no_scorer():
    method, params, *_ = compiled()
    assert method.after_update(params, {}) == (params, {})
    assert method.scorer(params) is None


def test_logical_axes_match_the_parameters(batch):
    method, params, *_ = compiled()
    specs = method.logical_axes(batch)
    assert jax.tree.structure(specs, is_leaf=lambda x: isinstance(x, jax.P)) == jax.tree.structure(params)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mask_ratio": 1.0}, ["mask_ratio must be in (0, 1)", "1.0"]),
        ({"mask_ratoi": 0.5}, ["config.method.mask_ratoi", "did you mean 'mask_ratio'"]),
        ({"towers": {"labs": {"name": "mlp"}}}, ["towers.labs", "encoder of patches"]),
        ({"towers": {"volume": {"name": "vit"}}}, ["towers.volume", "config.data.modalities has no 'volume'"]),
        ({"decoder": {"widht": 3}}, ["config.method.decoder.widht", "did you mean 'width'"]),
    ],
)
def test_wrong_configurations_are_named(change, named):
    with pytest.raises(UserError) as error:
        make_method({**OPTIONS, **change}, SPECS)
    for piece in named:
        assert piece in str(error.value)


def test_a_modality_may_bring_more_than_its_values(batch):
    """Such as the leads that were recorded."""
    method, items = compiled()[0], batch.items["ecg"]
    leads = np.ones((*items.mask.shape, items.value.shape[2]), bool)
    told = replace(items, value={"value": items.value, "leads": leads})
    np.testing.assert_array_equal(method._patches("ecg", told), method._patches("ecg", items))
