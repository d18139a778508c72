"""One encoder for the patches of several modalities: who sees what, and what each modality alone makes of it."""

import functools
import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest
from methods_batch import BLOCKS, SPECS, complete, cut, make_batch

from medjax.errors import UserError
from medjax.methods import make_method
from medjax.methods.joint_towers import SHARED, split_visible
from medjax.methods.masked_autoencoder import JOINT

TOWERS = {"image": {"name": "vit", "patch": 2, **BLOCKS}, "ecg": {"name": "ecg_vit", "patch": 2, **BLOCKS}}
OPTIONS = {
    "name": "masked_autoencoder",
    "joint": True,
    "towers": TOWERS,
    "decoder": {"width": 8, "depth": 1, "heads": 2},
}
KEY = jax.random.key(9)
FLOAT32 = 1e-5  # unit-sized activations through two blocks


def batch_of(seed: int):
    return make_batch(np.random.default_rng(seed), rows=6, items=1, modalities=("ecg", "image"))


@pytest.fixture
def batch():
    return batch_of(0)


@functools.cache
def compiled():
    """(method, parameters, encode(batch, key), value and gradient of a step by parameters and pictures)."""
    method = make_method(OPTIONS, SPECS)
    params, _ = jax.jit(method.init)(jax.random.key(0), batch_of(1))
    encode = jax.jit(lambda b, key: method.encode(params, {}, b, key, True))

    def loss(p, image, b):
        b = replace(b, items={**b.items, "image": replace(b.items["image"], value=image)})
        return method.objective(method.encode(p, {}, b, KEY, True), p, {}, b, KEY)[0].mean()

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return method, params, encode, lambda b: step(params, b.items["image"].value, b)


@functools.cache
def split(lengths: tuple[int, ...], present: tuple[bool, ...], keep: int, rows: int = 2000) -> np.ndarray:
    """[rows, M]: how many tokens of each modality were visible; every token is drawn once at most."""
    there = np.broadcast_to(np.array(present), (rows, len(present)))
    visible = np.asarray(split_visible(KEY, np.arange(rows, dtype=np.int32), lengths, there, keep))
    assert visible.shape == (rows, keep) and np.all(np.diff(visible, axis=1) > 0)
    edges = np.cumsum([0, *lengths])
    return np.stack([((a <= visible) & (visible < b)).sum(axis=1) for a, b in itertools.pairwise(edges)], 1)


def test_the_number_of_visible_tokens_is_constant_and_their_shares_are_dirichlet():
    """With alpha = 1 a share of three is Beta(1, 2): its mean 1/3, its variance 1/18."""
    counts = split((60, 60, 60), (True, True, True), 60)
    assert np.all(counts.sum(axis=1) == 60)
    share = counts / 60
    np.testing.assert_allclose(share.mean(axis=0), 1 / 3, atol=5 * np.sqrt(1 / 18 / 2000))
    np.testing.assert_allclose(share.var(axis=0), 1 / 18, rtol=0.1)  # its own error is 3 %


def test_what_one_modality_cannot_take_goes_to_the_others_and_absent_ones_fill_up_last():
    assert split((4, 30), (True, True), 20)[:, 0].max() == 4
    np.testing.assert_array_equal(split((10, 10, 10), (True, False, False), 8), [[8, 0, 0]] * 2000)
    counts = split((4, 10, 10), (True, False, False), 8)
    np.testing.assert_array_equal(counts[:, 0], 4)


def test_hidden_patches_of_any_modality_change_no_token_and_visible_ones_of_the_other_do(batch):
    _, _, encode, _ = compiled()
    batch = complete(batch)
    encoded = encode(batch, KEY)
    visible = np.asarray(encoded.positions[JOINT])[:, 0]
    assert visible.shape == (6, 6)  # a quarter of 8 + 16, the modalities by name
    seen = np.stack([np.isin(np.arange(24), row) for row in visible])
    ecg = batch.items["ecg"].value
    windows = ecg.reshape(6, 1, 2, 8, 2)

    def turned(where):
        value = np.where(where[:, None, None, :, None], windows + 1, windows).reshape(ecg.shape)
        items = {**batch.items, "ecg": replace(batch.items["ecg"], value=value.astype(np.float32))}
        return np.asarray(encode(replace(batch, items=items), KEY).tokens[JOINT])[:, 0]

    before = np.asarray(encoded.tokens[JOINT])[:, 0]
    np.testing.assert_array_equal(turned(~seen[:, :8]), before)
    of_picture = visible >= 8
    both = of_picture.any(axis=1) & ~of_picture.all(axis=1)
    assert both.any()
    moved = np.abs(turned(seen[:, :8]) - before).max(axis=2) > FLOAT32
    assert moved[both][of_picture[both]].all()  # tokens of the picture have seen the ECG


def test_absent_modalities_have_no_influence_and_all_that_is_there_has(batch):
    _, _, _, step = compiled()
    there = batch.items["image"].mask[:, 0]
    assert there.any() and not there.all()
    value, (gradient, d_image) = step(batch)
    assert not np.any(np.asarray(d_image)[~there])
    assert np.any(np.asarray(d_image)[there].reshape(there.sum(), -1), axis=1).all()
    image = np.where(there[:, None, None, None, None], batch.items["image"].value, 3.0).astype(np.float32)
    items = {**batch.items, "image": replace(batch.items["image"], value=image)}
    value_blank, (gradient_blank, _) = step(replace(batch, items=items))
    for a, b in zip(*map(jax.tree.leaves, ((value, gradient), (value_blank, gradient_blank))), strict=True):
        np.testing.assert_allclose(a, b, atol=FLOAT32)
    still = [k for k, g in jax.tree_util.tree_leaves_with_path(gradient) if not np.any(g)]
    assert all("cls" not in str(k) and "patch_embed" not in str(k) for k in still)


def test_micro_batches_encode_as_the_whole_batch(batch):
    _, _, encode, _ = compiled()
    parts = [encode(cut(batch, i, i + 3), KEY) for i in (0, 3)]
    whole = jax.tree.leaves(encode(batch, KEY))
    for a, b in zip(whole, jax.tree.leaves(jax.tree.map(lambda *x: np.concatenate(x), *parts)), strict=True):
        np.testing.assert_allclose(a, b, atol=FLOAT32)


def test_any_subset_is_encoded_by_the_same_parameters_as_if_the_rest_were_absent(batch):
    """Tokens of what is missing have no part, whether they are masked or not there at all; of one modality alone it is
    the plain tower that `merged` makes."""
    method, params, _, _ = compiled()
    batch = complete(batch)
    encode = jax.jit(lambda b: method.towers.together(params, b, None, False))
    absent = replace(batch.items["ecg"], mask=np.zeros((6, 1), bool))
    masked, alone = encode(replace(batch, items={**batch.items, "ecg": absent})), encode(batch.select(["image"]))
    np.testing.assert_allclose(masked.pooled, alone.pooled, atol=FLOAT32)
    assert np.abs(encode(batch).pooled - alone.pooled).max() > 1e-3
    pooled = method.encode(params, {}, batch, None, False).pooled
    np.testing.assert_allclose(pooled["image"], alone.pooled, atol=FLOAT32)
    plain = make_method({**OPTIONS, "joint": False}, SPECS)
    found = plain.encode(method.towers.merged(params), {}, batch, None, False).pooled
    for m in TOWERS:
        np.testing.assert_allclose(found[m], pooled[m], atol=FLOAT32)
    assert set(params["towers"]) == {"image", "ecg", SHARED} and set(params["decoders"]) == {JOINT}


@pytest.mark.parametrize(
    ("towers", "named"),
    [
        ({"image": TOWERS["image"]}, "two modalities or more"),
        ({**TOWERS, "ecg": {**TOWERS["ecg"], "depth": 2}}, "depth of image differ from those of ecg"),
        ({**TOWERS, "ecg": {**TOWERS["ecg"], "lora": {"rank": 2}}}, "takes no LoRA"),
    ],
)
def test_towers_that_cannot_be_one_are_named(towers, named):
    with pytest.raises(UserError, match=named):
        make_method({**OPTIONS, "towers": towers}, SPECS)
