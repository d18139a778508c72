"""Every PyTorch tower gives the tokens and pooled features of its Flax tower, on random weights."""

import dataclasses

import jax
import numpy as np
import pytest

from medjax.convert.architecture import architecture
from medjax.convert.rules import flatten, to_torch, unflatten
from medjax.convert.tables import TOWERS
from medjax.models import TOWERS as MODELS
from medjax.models import make_tower
from medjax.models.partitioning import unbox

# A folder of tests is named torch too, and would pass for the package where that is missing.
pytest.importorskip("torch.nn")
torch = pytest.importorskip("torch")
modeling = pytest.importorskip("medjax.torch.modeling")

TOLERANCE = 2e-5  # float32, features of unit size, one or two blocks
SMALL = dict(width=8, depth=1, heads=2)
NUMBERS = np.random.default_rng(7)
PICTURE, WIDE = (NUMBERS.normal(size=(2, *size, 3)).astype(np.float32) for size in ((8, 8), (8, 12)))
VOLUME = NUMBERS.normal(size=(2, 4, 8, 8, 1)).astype(np.float32)
ECG = NUMBERS.normal(size=(2, 3, 20)).astype(np.float32)
LEADS = np.array([[True, False, True], [True, True, True]])
TEXT = {"tokens": NUMBERS.integers(0, 30, (3, 7)).astype(np.int32), "lengths": np.array([7, 3, 1], np.int32)}
LABS = {
    "value": NUMBERS.normal(size=(3, 5)).astype(np.float32),
    "observed": np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]], np.float32),
}
RESNET = dict(block="basic", depths=(1, 1), stem=4)
# Between them they have every option that changes what is computed. (options, input, input that it is initialised with)
CASES = {
    "vit of class token and position": (dict(name="vit", patch=4, cls_position=True, depth=2), PICTURE, None),
    "vit of means": (dict(name="vit", patch=4, pool="mean", registers=2, cls=True, pooler=True), PICTURE, None),
    "vit as dinov2": (
        dict(name="vit", patch=4, layer_scale=0.1, swiglu=True, registers=1, mask_token=True),
        WIDE,
        None,
    ),
    "vit as clip": (
        dict(name="vit", patch=4, norm_before=True, norm="pooled", patch_bias=False, activation="quick_gelu"),
        PICTURE,
        None,
    ),
    "vit as siglip": (dict(name="vit", patch=4, pool="attention", activation="gelu_tanh"), PICTURE, None),
    "vit of other norms": (dict(name="vit", patch=4, qk_norm=True, qkv_bias=False, activation="relu"), PICTURE, None),
    "vit interpolated": (dict(name="vit", patch=4, pool="mean"), WIDE, PICTURE),
    "vit interpolated without aliases": (dict(name="vit", patch=4, pool="mean", antialias=True), WIDE, PICTURE),
    "vit of volumes": (
        dict(name="vit", patch=4, frames=2, channels=3, depth_grid=3, pool="mean"),
        VOLUME,
        None,
    ),
    "vit of a picture as a volume": (dict(name="vit", patch=4, frames=2, channels=3, depth_grid=3), PICTURE, None),
    "vit of sines": (dict(name="vit", patch=4, positions="sincos", frames=2, pool="mean"), VOLUME, None),
    "ecg_vit of time": (dict(name="ecg_vit", patch=5), {"value": ECG, "leads": LEADS}, None),
    "ecg_vit of leads": (
        dict(name="ecg_vit", patch=5, tokens="lead_time", pool="mean"),
        {"value": ECG, "leads": LEADS},
        ECG[..., :15],
    ),
    "ecg_vit of convolutions": (dict(name="ecg_vit", tokens="conv", pool="attention"), np.tile(ECG, 2), None),
    "bert": (dict(name="bert", types=2, pool="cls", pooler="tanh", depth=2), TEXT, None),
    "bert of means": (dict(name="bert", pool="mean", pooler="kept"), TEXT, None),
    "bert of maxima": (dict(name="bert", pool="max"), TEXT, None),
    "roberta": (dict(name="roberta"), TEXT, None),
    "clip_text": (dict(name="clip_text", depth=2), TEXT, None),
    "siglip_text": (dict(name="siglip_text", pooler_width=6), TEXT, None),
    "mlp": (dict(name="mlp", hidden=(8, 6)), LABS, None),
    "labs_transformer": (dict(name="labs_transformer"), LABS, None),
    "labs_transformer of gaps": (dict(name="labs_transformer", missing="token", pool="mean"), LABS, None),
    "resnet": (dict(name="resnet", **RESNET, channels=3), np.tile(PICTURE, (1, 4, 4, 1))[..., :1], None),
    "resnet of bottlenecks": (
        dict(name="resnet", block="bottleneck", depths=(1, 1), stem=8, norm="group", groups=2),
        np.tile(PICTURE, (1, 4, 4, 1)),
        None,
    ),
    "resnet_ecg": (dict(name="resnet_ecg", **RESNET), {"value": np.tile(ECG, 4), "leads": LEADS}, None),
    "resnet_ecg_image": (dict(name="resnet_ecg_image", **RESNET), np.tile(ECG, 4), None),
}


def random_variables(module, value):
    """Weights of which none keeps an initial value, zeros and ones least of all."""
    shapes = unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), **value)))
    leaves = {}
    for path, leaf in flatten(shapes).items():
        fan_in = np.prod(leaf.shape[:-1]) if path.endswith("kernel") else 100
        x = NUMBERS.normal(size=leaf.shape) / np.sqrt(fan_in)
        x = abs(x) + 0.5 if path.rpartition("/")[2] in ("scale", "var") else x
        leaves[path] = np.asarray(x, leaf.dtype)
    return unflatten(leaves)


def given(value):
    return value if isinstance(value, dict) else {"value": value}


@pytest.mark.parametrize("name", CASES)
def test_tokens_and_pooled_equal_flax(name):
    options, value, start = CASES[name]
    sizes = SMALL if "width" in {f.name for f in dataclasses.fields(MODELS[options["name"]][0])} else {}
    spec = {"kind": MODELS[options["name"]][2][0], "vocab_size": 30}
    module = make_tower("m", {**sizes, **options}, spec)
    variables = random_variables(module, given(value if start is None else start))
    want = jax.jit(lambda variables, value: module.apply(variables, **value))(variables, given(value))

    config = architecture({"m": module.config}, {}, {}, {"towers": {"m": variables}}, {"m": spec})["modalities"]["m"]
    tower = modeling.TOWERS[options["name"]](config["tower"]).eval()
    shapes = {key: tuple(x.shape) for key, x in tower.state_dict().items()}
    state = to_torch(variables, TOWERS[options["name"]], shapes)
    tower.load_state_dict({key: torch.from_numpy(x) for key, x in state.items()})
    found = tower(**{k: torch.from_numpy(x) for k, x in given(value).items()})

    assert found.pooled.shape[-1] == config["width"] and found.prefix == want.prefix
    np.testing.assert_array_equal(found.mask, want.token_mask)
    np.testing.assert_allclose(found.pooled.detach(), want.pooled, atol=TOLERANCE)
    mask = np.asarray(want.token_mask)[..., None]
    np.testing.assert_allclose(found.tokens.detach() * mask, want.tokens * mask, atol=TOLERANCE)


def test_every_tower_is_a_case():
    assert modeling.TOWERS.keys() == MODELS.keys() == {options["name"] for options, *_ in CASES.values()}
