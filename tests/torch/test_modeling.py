"""Every PyTorch module computes what its Flax module computes, on random weights, to float32 rounding."""

import jax
import numpy as np
import pytest

from medjax.convert.architecture import FORMAT, architecture, exported_tree
from medjax.convert.rules import to_torch
from medjax.convert.tables import encoder_rules
from medjax.data.batch import Batch, Items
from medjax.methods import make_method

# A folder of tests is named torch too, and would pass for the package where that is missing.
pytest.importorskip("torch.nn")
torch = pytest.importorskip("torch")
modeling = pytest.importorskip("medjax.torch.modeling")

SMALL = dict(width=16, depth=2, heads=4)
LEADS, TESTS, LENGTH, VOCABULARY = 3, 5, 7, 30
SPECS = {
    "image": {"kind": "image", "size": 8, "channels": 3},
    "ecg": {"kind": "ecg", "leads": list("abc"), "rate": 100.0},
    "labs": {"kind": "labs", "names": list("abcde")},
    "text": {"kind": "text", "vocab_size": VOCABULARY, "length": LENGTH},
}
# Both ways to pool, heads with and without a hidden layer, a bias and normalisation.
TOWERS = {
    "image": dict(name="vit", patch=4, pool="cls", **SMALL),
    "ecg": dict(name="ecg_vit", patch=5, pool="mean", mlp_ratio=2.5, **SMALL),
    "labs": dict(name="mlp", hidden=(12, 16)),
    "text": dict(name="bert", positions=9, pool="mean", **SMALL),
}
HEADS = {
    "image": dict(hidden=20, centre=True),
    "ecg": dict(),
    "labs": dict(centre=True, normalise=False),
    "text": dict(hidden=8),
}
POOLING = {"image": dict(name="attention", heads=2), "ecg": dict(name="gated", hidden=5)}
OPTIONS = dict(name="contrastive", towers=TOWERS, heads=HEADS, embed_dim=6, objectives=dict(info_nce={}, symile={}))
OPTIONS |= dict(pooling=POOLING)
TOLERANCE = 1e-5  # float32, features of unit size, two blocks


def _batch(rng, n=4, items=3):
    """Studies of one to three items in any place; the last study has none. Texts have one to LENGTH tokens."""
    values = {
        "image": rng.normal(size=(n, items, 8, 8, 3)).astype(np.float32),
        "ecg": rng.normal(size=(n, items, LEADS, 20)).astype(np.float32),
        "labs": {
            "value": rng.normal(size=(n, items, TESTS)).astype(np.float32),
            "observed": rng.integers(0, 2, (n, items, TESTS)).astype(np.float32),
        },
        "text": {
            "tokens": rng.integers(0, VOCABULARY, (n, items, LENGTH)).astype(np.int32),
            "lengths": rng.integers(1, LENGTH + 1, (n, items)).astype(np.int32),
        },
    }
    mask = rng.random((n, items)) < 0.6
    mask[0], mask[1], mask[-1] = True, [False, True, False], False
    filled = {m: Items(value, mask) for m, value in values.items()}
    return Batch(filled, {}, np.zeros(n, np.float32), np.ones(n, bool), {}, np.arange(n, dtype=np.int32))


def _random(shapes, rng):
    """No weight keeps an initial value, zeros and ones least of all."""
    return jax.tree.map(lambda x: np.asarray(0.2 * rng.normal(size=x.shape), np.float32), shapes)


def _pooled(method, params, batch):
    return jax.jit(lambda params, batch: method.encode(params, {}, batch, None, False).pooled)(params, batch)


def _both(options, rng, batch):
    """`(method, params, PyTorch encoder)` with the same random weights."""
    specs = {m: SPECS[m] for m in options["towers"]}
    method = make_method(options, specs)
    params = _random(jax.eval_shape(method.init, jax.random.key(0), batch)[0], rng)
    towers = {m: module.config for m, module in method.towers.modules.items()}
    heads = {m: method.config.heads[m] for m in params.get("heads", {})}
    pooling = {m: pool.config for m, pool in method.pooling.modules.items()} if "pooling" in params else {}
    tree = exported_tree(params, {})
    encoder = modeling.Encoder(architecture(towers, heads, pooling, tree, specs), specs)
    shapes = {k: tuple(v.shape) for k, v in encoder.state_dict().items()}
    state = to_torch(tree, encoder_rules({m: c.name for m, c in towers.items()}), shapes)
    encoder.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    return method, params, encoder.eval()


@pytest.fixture(scope="module")
def full():
    """`(method, params, encoder, batch)` with all modalities."""
    rng = np.random.default_rng(1)
    batch = _batch(rng)
    return *_both(OPTIONS, rng, batch), batch


def _encode(encoder, batch, modality):
    items = batch.items[modality]
    return encoder.encode(modality, items.value, items.mask).detach().numpy()


def test_embeddings_of_several_items_equal_jax(full):
    method, params, encoder, batch = full
    pooled = _pooled(method, params, batch)
    for m in method.modalities:
        np.testing.assert_allclose(_encode(encoder, batch, m), pooled[m], atol=TOLERANCE, err_msg=m)


def test_masked_autoencoder_exports_pooled_features(rng):
    batch = _batch(rng)
    towers = {m: TOWERS[m] for m in ("image", "ecg")}
    method, params, encoder = _both(dict(name="masked_autoencoder", towers=towers), rng, batch)
    pooled = _pooled(method, params, batch)
    for m in towers:
        np.testing.assert_allclose(_encode(encoder, batch, m), pooled[m], atol=TOLERANCE, err_msg=m)


def test_padding_and_masked_items_change_nothing(full):
    *_, encoder, batch = full
    value, mask = batch.items["text"].value, batch.items["text"].mask
    padding = np.arange(LENGTH) >= value["lengths"][..., None]
    other = np.where(padding | ~mask[..., None], (value["tokens"] + 1) % VOCABULARY, value["tokens"])
    assert (other != value["tokens"]).any()
    before = encoder.encode("text", value, mask).detach().numpy()
    after = encoder.encode("text", {"tokens": other, "lengths": value["lengths"]}, mask).detach().numpy()
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_a_study_without_items_is_zero_and_others_are_unit(full):
    *_, encoder, batch = full
    found = np.linalg.norm(_encode(encoder, batch, "text"), axis=1)
    there = batch.items["text"].mask.any(1)
    np.testing.assert_allclose(found, there, atol=1e-5)


def test_one_item_needs_no_mask(full):
    *_, encoder, batch = full
    value = batch.items["image"].value
    alone = encoder.encode("image", value[:, 0]).detach().numpy()
    masked = encoder.encode("image", value[:, :1], np.ones((len(value), 1), bool)).detach().numpy()
    np.testing.assert_array_equal(alone, masked)


def test_logit_scales_are_exponentials_of_the_parameters(full):
    _, params, encoder, _ = full
    for term, scale in encoder.logit_scales.items():
        assert scale == pytest.approx(float(np.exp(params["objectives"][term]["log_scale"])), rel=1e-6)
    assert encoder.logit_scales.keys() == {"info_nce", "symile"}


def test_gradients_reach_every_weight_of_a_tower(full):
    *_, encoder, batch = full
    items = batch.items["text"]
    encoder.zero_grad(set_to_none=True)
    encoder.encode("text", items.value, items.mask)[:3, 0].sum().backward()
    grads = {k: p.grad for k, p in encoder.towers["text"].named_parameters()}
    # A bias of the keys shifts all logits of a row alike, which softmax does not see.
    assert all(g is not None and (g.abs().max() > 0 or ".key.bias" in k) for k, g in grads.items())
    assert all(p.grad is None for p in encoder.towers["image"].parameters())


def test_dropout_of_the_configuration_acts_in_training_only(rng):
    batch = _batch(rng)
    towers = {"text": {**TOWERS["text"], "dropout": 0.5}, "labs": TOWERS["labs"]}
    heads = {m: HEADS[m] for m in towers}
    options = dict(name="contrastive", towers=towers, heads=heads, embed_dim=6, objectives=dict(info_nce={}))
    _, _, encoder = _both(options, rng, batch)
    fixed = _encode(encoder, batch, "text")
    np.testing.assert_array_equal(_encode(encoder, batch, "text"), fixed)
    assert not np.allclose(_encode(encoder.train(), batch, "text"), fixed, atol=1e-3)


def test_unknown_modality_names_the_known_ones(full):
    encoder = full[2]
    with pytest.raises(ValueError, match=r"no modality 'mri'.*image"):
        encoder.encode("mri", np.zeros((1, 2)))


def test_both_sides_name_the_same_format():
    assert modeling.FORMAT == FORMAT
