"""Contrastive pre-training behind the contract of a method."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_batch import BLOCKS, SPECS, complete, cut, make_batch

from medjax import losses
from medjax.errors import UserError
from medjax.losses import Loss
from medjax.methods import make_method

TOWERS = {
    "image": {"name": "vit", "patch": 4, "dropout": 0.2, **BLOCKS},
    "labs": {"name": "mlp", "hidden": (8,)},
    "text": {"name": "bert", "positions": 8, "dropout": 0.2, **BLOCKS},
}
OPTIONS = {
    "name": "contrastive",
    "towers": TOWERS,
    "embed_dim": 6,
    "objectives": {"info_nce": {"weight": 0.5}, "joint": {"name": "symile", "weight": 2.0, "scale": 3.0}},
}
KEY = jax.random.key(9)
FLOAT32 = 1e-5  # unit embeddings through one block


@pytest.fixture
def batch(rng):
    return make_batch(rng)


@functools.cache
def default_method():
    return make_method(OPTIONS, SPECS)


@functools.cache
def compiled():
    """(parameters, encode(params, batch, key, train), value and gradient of a whole step), compiled once."""
    method = default_method()
    params, state = jax.jit(method.init)(jax.random.key(0), make_batch(np.random.default_rng(1)))
    encode = jax.jit(lambda p, b, key, train: method.encode(p, state, b, key, train), static_argnums=3)

    def loss(p, b):
        b = b.only_valid()
        return method.objective(method.encode(p, state, b, KEY, True), p, state, b, KEY)[0].mean()

    return params, encode, jax.jit(jax.value_and_grad(loss))


def close(a, b, tolerance=FLOAT32):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance), a, b)


def test_micro_batches_encode_as_the_whole_batch_with_dropout(batch):
    params, encode, _ = compiled()
    whole = encode(params, batch, KEY, True)
    parts = [encode(params, cut(batch, i, i + 3), KEY, True) for i in (0, 3)]
    close(jax.tree.map(lambda *x: np.concatenate(x), *parts), whole)
    quiet = encode(params, batch, KEY, False)
    assert np.abs(quiet.pooled["image"] - whole.pooled["image"]).max() > 1e-2  # there was dropout


def test_evaluation_needs_no_key_and_is_deterministic(batch):
    params, encode, _ = compiled()
    close(encode(params, batch, None, False), encode(params, batch, KEY, False), 0)


def test_embeddings_are_unit_means_over_present_items(batch):
    params, encode, _ = compiled()
    encoded = encode(params, batch, None, False)
    for m, pooled in encoded.pooled.items():
        mask = batch.items[m].mask
        np.testing.assert_array_equal(encoded.present[m], mask.any(axis=1))
        np.testing.assert_array_equal(encoded.item_mask[m], mask)
        np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), mask.any(axis=1), atol=FLOAT32)
        np.testing.assert_allclose(np.linalg.norm(encoded.items[m], axis=2), 1, atol=FLOAT32)
    one = mask.sum(axis=1) == 1
    assert one.any()
    np.testing.assert_allclose(encoded.pooled[m][one], encoded.items[m][mask & one[:, None]], atol=FLOAT32)


def test_content_of_absent_items_does_not_matter(batch):
    params, _, step = compiled()
    items = {}
    for m, x in batch.items.items():

        def blank(v, mask=x.mask):
            return np.where(mask.reshape(mask.shape + (1,) * (v.ndim - 2)), v, 1).astype(v.dtype)

        items[m] = replace(x, value=jax.tree.map(blank, x.value))
    close(step(params, replace(batch, items=items)), step(params, batch))


def test_invalid_rows_have_no_influence(batch):
    params, _, step = compiled()
    valid = np.array([True, True, False, True, False, True])
    batch = replace(complete(batch), valid=valid)
    other = make_batch(np.random.default_rng(5))

    def pick(x, y):
        return np.where(valid.reshape(-1, *(1,) * (x.ndim - 1)), x, y)

    changed = replace(batch, items=jax.tree.map(pick, batch.items, complete(other).items))
    close(step(params, changed), step(params, batch), FLOAT32)


def test_batch_without_valid_rows_has_zero_loss_and_gradient(batch):
    params, _, step = compiled()
    value, gradient = step(params, replace(batch, valid=np.zeros(6, bool)))
    assert value == 0.0
    assert not any(np.any(g) for g in jax.tree.leaves(gradient))


def test_every_parameter_of_a_step_gets_a_gradient(batch):
    params, _, step = compiled()
    _, gradient = step(params, complete(batch))
    zero = [jax.tree_util.keystr(p) for p, g in jax.tree_util.tree_leaves_with_path(gradient) if not np.any(g)]
    # A shift of all keys moves no softmax.
    assert all("'key']['bias']" in path for path in zero)


def test_loss_is_the_weighted_sum_of_its_objectives(batch):
    method, (params, encode, _) = default_method(), compiled()
    encoded = encode(params, batch, None, False)
    loss, state = method.objective(encoded, params, {}, batch, KEY)
    assert state == {}
    apart = []
    for i, (name, scale) in enumerate([("info_nce", 1 / 0.07), ("symile", 3.0)]):
        key = jax.random.fold_in(KEY, i)
        place = {"present": encoded.present, "ids": batch.ids, "key": key}
        apart.append(losses.get(name, same_group="mask")(encoded.pooled, logit_scale=scale, **place).mean())
    assert isinstance(loss, Loss)
    np.testing.assert_allclose(loss.mean(), 0.5 * apart[0] + 2.0 * apart[1], rtol=FLOAT32)
    np.testing.assert_allclose([loss.metrics()["info_nce"], loss.metrics()["joint"]], apart, rtol=FLOAT32)


def test_scorer_is_the_weighted_sum_of_the_terms_logits(batch):
    method, (params, encode, _) = default_method(), compiled()
    z = encode(params, complete(batch), None, False).pooled
    queries, present = {m: z[m] for m in ("image", "text")}, dict.fromkeys(("image", "text"), np.ones(6, bool))
    score = method.scorer(params)(queries, z["labs"], "labs", present)
    pair = (z["image"] @ z["labs"].T + z["text"] @ z["labs"].T) / 2 / 0.07
    whole = 3.0 * (z["image"] * z["text"]) @ z["labs"].T
    np.testing.assert_allclose(score, 0.5 * pair + 2.0 * whole, atol=1e-4)  # logits near 14


def test_scales_are_clamped_after_an_update():
    method, (params, *_) = default_method(), compiled()
    huge = {**params, "objectives": {k: {"log_scale": jnp.float32(50.0)} for k in params["objectives"]}}
    clamped, _ = method.after_update(huge, {})
    np.testing.assert_allclose(np.exp(clamped["objectives"]["info_nce"]["log_scale"]), 100, rtol=FLOAT32)
    assert clamped["objectives"]["joint"]["log_scale"] == 50.0  # Symile's is free
    close(clamped["towers"], params["towers"], 0)
    close(method.after_update(params, {})[0], params, 0)
    assert {x["log_scale"].dtype for x in params["objectives"].values()} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("limit", "expected"), [(20.0, 20.0), (0.0, np.exp(5.0))])
def test_limit_of_the_scale_can_be_set_or_lifted(limit, expected):
    objectives = {"info_nce": {"max_scale": limit, "scale": 2.0}}
    method = make_method({**OPTIONS, "objectives": objectives}, SPECS)
    clamped, _ = method.after_update({"objectives": {"info_nce": {"log_scale": jnp.float32(5.0)}}}, {})
    np.testing.assert_allclose(np.exp(clamped["objectives"]["info_nce"]["log_scale"]), expected, rtol=FLOAT32)


def test_fixed_scale_gets_no_gradient(batch):
    objectives = {"fixed": {"name": "info_nce", "learn_scale": False}, "free": {"name": "info_nce"}}
    method, (params, encode, _) = make_method({**OPTIONS, "objectives": objectives}, SPECS), compiled()
    encoded = encode(params, batch, None, False)
    scales = {k: {"log_scale": jnp.float32(2.0)} for k in objectives}

    def call(s):
        return method.objective(encoded, {"objectives": s}, {}, batch, KEY)[0].mean()

    gradient = jax.jit(jax.grad(call))(scales)
    assert gradient["fixed"]["log_scale"] == 0.0
    assert gradient["free"]["log_scale"] != 0.0


def test_centred_heads_start_with_a_mean_of_zero(batch):
    towers = {m: TOWERS[m] for m in ("image", "labs")}
    options = {
        **OPTIONS,
        "towers": towers,
        "objectives": {"info_nce": {}},
        "head": {"centre": True, "normalise": False},
    }
    method = make_method(options, SPECS)
    params, _ = jax.jit(method.init)(jax.random.key(0), batch)
    encoded = method.encode(params, {}, batch, None, False)
    for m in towers:
        mask = batch.items[m].mask
        there = np.asarray(encoded.items[m])[mask]
        assert np.abs(there.mean(axis=0)).max() < FLOAT32
        assert there.std() > 1e-2
        # Not normalised: a study is the plain mean of its items.
        total = (np.asarray(encoded.items[m]) * mask[..., None]).sum(axis=1)
        np.testing.assert_allclose(encoded.pooled[m], total / np.maximum(mask.sum(axis=1), 1)[:, None], atol=FLOAT32)


def test_only_the_modalities_of_the_batch_are_encoded(batch):
    params, encode, _ = compiled()
    encoded = encode(params, batch.select(["labs"]), None, False)
    assert set(encoded.pooled) == set(encoded.present) == set(encoded.items) == {"labs"}
    close(encoded.pooled["labs"], encode(params, batch, None, False).pooled["labs"])


def test_logical_axes_match_the_parameters(batch):
    params, *_ = compiled()
    specs = default_method().logical_axes(batch)

    def is_spec(x):
        return isinstance(x, jax.P)

    assert jax.tree.structure(specs, is_leaf=is_spec) == jax.tree.structure(params)
    for spec, leaf in zip(jax.tree.leaves(specs, is_leaf=is_spec), jax.tree.leaves(params), strict=True):
        assert len(spec) in (0, leaf.ndim)
    assert specs["towers"]["image"]["blocks"]["block_0"]["mlp"]["up"]["kernel"] == jax.P("embed", "mlp")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "contrastiv"}, ["contrastiv", "did you mean 'contrastive'"]),
        ({"towers": {}}, ["config.method.towers is empty"]),
        ({"towers": {"imgae": TOWERS["image"]}}, ["towers.imgae", "did you mean 'image'"]),
        ({"towers": {"image": {**TOWERS["image"], "name": "vti"}}}, ["vti", "did you mean 'vit'"]),
        ({"objectives": {}}, ["config.method.objectives is empty", "symile"]),
        ({"objectives": {"info_nec": {}}}, ["objectives.info_nec", "did you mean 'info_nce'"]),
        ({"objectives": {"x": {"name": "gram"}}}, ["config.method.objectives.x", "anchor="]),
        ({"objectives": {"info_nce": {"weigth": 1.0}}}, ["weigth", "weight"]),
        ({"objectives": {"info_nce": {"weight": "1"}}}, ["objectives.info_nce.weight must be float"]),
        (
            {"objectives": {"info_nce": {"modalities": ("image", "ecg")}}},
            ["no tower encodes 'ecg'", "image, labs, text"],
        ),
        ({"objectives": {"symile": {"modalities": ("image", "labs")}}}, ["objectives.symile", "three"]),
        ({"embed_dims": 3}, ["config.method.embed_dims", "did you mean 'embed_dim'"]),
        ({"head": {"normalize": True}}, ["config.method.head.normalize", "did you mean 'normalise'"]),
    ],
)
def test_wrong_configurations_are_named(change, named):
    with pytest.raises(UserError) as error:
        make_method({**OPTIONS, **change}, SPECS)
    assert "\n" not in str(error.value)
    for piece in named:
        assert piece in str(error.value)


def test_method_without_a_name_is_asked_for_one():
    with pytest.raises(UserError, match=r"config\.method\.name is required; valid: contrastive, masked_autoencoder"):
        make_method({}, SPECS)


def test_objective_under_a_mesh_equals_one_device(rng):
    from medjax.sharding import MeshConfig, batch_sharding, make_mesh

    method, (params, encode, _) = default_method(), compiled()
    batch = make_batch(rng, rows=8)
    encoded = encode(params, batch, None, False)

    def step(e, p):
        return method.objective(e, p, {}, batch, KEY)[0].mean()

    scales = {"objectives": params["objectives"]}
    expected = jax.jit(jax.value_and_grad(step, argnums=(0, 1), allow_int=True))(encoded, scales)
    mesh = make_mesh(MeshConfig(replica=2, fsdp=4))
    with jax.set_mesh(mesh):
        placed = jax.device_put(encoded, batch_sharding(mesh))
        actual = jax.jit(jax.value_and_grad(step, argnums=(0, 1), allow_int=True))(placed, scales)
    np.testing.assert_allclose(actual[0], expected[0], rtol=FLOAT32)
    close(actual[1][0].pooled, expected[1][0].pooled)
    close(actual[1][1], expected[1][1])
