"""What is written for Hugging Face loads there with every weight in its place, computes the same, and comes back."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from medjax.convert import hub, load_pretrained
from medjax.convert.rules import flatten, unflatten
from medjax.errors import UserError
from medjax.models import TOWERS as MODELS
from medjax.models import make_tower
from medjax.models.lora import LoraConfig, merge_lora
from medjax.models.pair import Pair, PairConfig
from medjax.models.partitioning import unbox

pytest.importorskip("torch.nn")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-5  # float32, features of unit size, one block
NUMBERS = np.random.default_rng(3)
SMALL = dict(width=8, depth=1, heads=2)
WORDS, SIZE = 30, 8
PICTURES = NUMBERS.normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
# Padded with 1, as RoBERTa's, first 0 and last 3; no other token is one of these.
TOKENS = np.array([[0, 9, 8, 7, 3], [0, 5, 3, 1, 1]], np.int32)
LENGTHS = np.array([5, 3], np.int32)
SPECS = {
    "image": {"kind": "image", "size": SIZE, "channels": 3},
    "text": {"kind": "text", "vocab_size": WORDS},
    "ecg": {"kind": "ecg"},
}
IDS = {"bos": 0, "pad": 1, "eos": 3}
CLIP = dict(norm_before=True, norm="pooled", cls_position=True, activation="quick_gelu", patch_bias=False)
RESNET = dict(block="basic", depths=(1, 1), stem=4)
VIT = dict(name="vit", patch=4)
# What a tower becomes, and what it has to begin with.
CASES = {
    "class token": ("Dinov2Model", VIT),
    "class token and pooler": ("ViTModel", VIT | dict(pooler=True, qkv_bias=False, mlp_ratio=2.5)),
    "means of sines": ("SiglipVisionModel", VIT | dict(pool="mean", positions="sincos", qkv_bias=False)),
    "interpolated": ("SiglipVisionModel", VIT | dict(pool="mean", grid=(3, 3))),
    "gated": ("Dinov2Model", VIT | dict(layer_scale=0.1, swiglu=True, hidden=24, mask_token=True)),
    "registers": ("Dinov2WithRegistersModel", VIT | dict(registers=2, layer_scale=0.1)),
    "clip": ("CLIPVisionModel", VIT | CLIP),
    "attention": ("SiglipVisionModel", VIT | dict(pool="attention", activation="gelu_tanh")),
    "residual": ("ResNetModel", dict(name="resnet", **RESNET)),
    "bert": ("BertModel", dict(name="bert", types=2, pool="cls", pooler="tanh")),
    "bert of means": ("BertModel", dict(name="bert")),
    "bert of maxima": ("BertModel", dict(name="bert", pool="max", types=1, qkv_bias=False)),
    "roberta": ("RobertaModel", dict(name="roberta", pool="cls", types=1)),
    "clip_text": ("CLIPTextModel", dict(name="clip_text", positions=9)),
}


def _tower(options):
    """(module, random variables)"""
    kind = MODELS[options["name"]][2][0]
    module = make_tower("m", (SMALL if "resnet" not in options["name"] else {}) | options, SPECS[kind])
    side = module.config.grid[0] * 4 if getattr(module.config, "grid", ()) else SIZE
    value = {"image": {"value": np.zeros((1, side, side, 3))}, "text": {"tokens": TOKENS}}[kind]
    shapes = jax.eval_shape(lambda: unbox(module.init(jax.random.key(0), **value)))
    return module, unflatten({path: _random(path, leaf) for path, leaf in flatten(shapes).items()})


def _random(path, leaf):
    fan_in = np.prod(leaf.shape[:-1]) if path.endswith("kernel") else 100
    x = NUMBERS.normal(size=leaf.shape) / np.sqrt(fan_in)
    return np.asarray(abs(x) + 0.5 if path.rpartition("/")[2] in ("scale", "var") else x, leaf.dtype)


def _model(module, variables):
    spec = SPECS[MODELS[module.config.name][2][0]]
    return hub.tower(module.config, variables, spec, IDS, "config.method.towers.m")


def _saved(model, folder):
    (folder / "config.json").write_text(json.dumps(model.json))
    safetensors.numpy.save_file(model.state(), folder / "model.safetensors", {"format": "pt"})
    if model.pooled in hub.POOLS and "text" in str(type(model.layout.config)).lower():
        (folder / "1_Pooling").mkdir()
        modes = {f"pooling_mode_{name}": pool == model.pooled for pool, name in hub.POOLS.items()}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    return folder


def _theirs(folder):
    loaded, report = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return loaded.eval()


def _inputs(kind):
    if kind == "image":
        return {"pixel_values": torch.from_numpy(PICTURES).movedim(-1, 1)}
    mask = np.arange(TOKENS.shape[1]) < LENGTHS[:, None]
    return {"input_ids": torch.from_numpy(TOKENS).long(), "attention_mask": torch.from_numpy(mask).long()}


def _given(kind):
    return {"value": PICTURES} if kind == "image" else {"tokens": TOKENS, "lengths": LENGTHS}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_towers_load_there_and_compute_the_same(name, tmp_path):
    kind, options = CASES[name]
    module, variables = _tower(options)
    model = _model(module, variables)
    assert model.kind == kind
    folder, modality = _saved(model, tmp_path), MODELS[options["name"]][2][0]
    want = jax.jit(lambda v, value: module.apply(v, **value))(variables, _given(modality))

    outputs = _theirs(folder)(**_inputs(modality))
    tokens = outputs.last_hidden_state
    tokens = tokens.flatten(2).movedim(1, 2) if tokens.ndim == 4 else tokens
    mask = np.asarray(want.token_mask)[..., None]
    np.testing.assert_allclose(tokens * mask, want.tokens * mask, atol=TOLERANCE)
    if model.pooled == "pooler_output":
        np.testing.assert_allclose(outputs.pooler_output.flatten(1), want.pooled, atol=TOLERANCE)
    elif modality == "text":
        assert not outputs.pooler_output.any()
    else:
        np.testing.assert_allclose(tokens.mean(1), want.pooled, atol=TOLERANCE)

    again, weights = load_pretrained(folder)
    back, ours = flatten(weights), flatten(model.variables)
    assert back.keys() == ours.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(back[path], leaf)
    assert again.config == model.layout.config


@pytest.mark.parametrize("names", [("clip", "clip_text"), ("class token", "bert")])
@torch.no_grad()
def test_pairs_load_there_and_compute_the_same(names, tmp_path):
    towers = [_tower(CASES[name][1]) for name in names]
    kernels = [NUMBERS.normal(size=(8, 6)).astype(np.float32) for _ in names]
    model = hub.pair(*(_model(*tower) for tower in towers), hub.Projection(*kernels, 1.5))
    assert model.kind == ("CLIPModel" if names[0] == "clip" else "VisionTextDualEncoderModel")
    folder = _saved(model, tmp_path)
    found = _theirs(folder)(**_inputs("image"), **_inputs("text"))
    again, weights = load_pretrained(folder)
    want = jax.jit(lambda w: again.apply(w, PICTURES, TOKENS, lengths=LENGTHS))(weights)
    ours = Pair(PairConfig(6), *(module.clone(parent=None) for module, _ in towers))
    assert dataclasses.replace(again.config, embed_dim=6) == ours.config
    np.testing.assert_allclose(found.image_embeds, want.image_embed, atol=TOLERANCE)
    np.testing.assert_allclose(found.text_embeds, want.text_embed, atol=TOLERANCE)
    logits = want.logit_scale * want.image_embed @ want.text_embed.T
    np.testing.assert_allclose(found.logits_per_image, logits, atol=1e-4)
    for (_, variables), kernel, which in zip(towers, kernels, ("image", "text"), strict=True):
        np.testing.assert_array_equal(weights["params"][f"{which}_projection_0"]["kernel"], kernel)
        for path, leaf in flatten(variables["params"]).items():
            np.testing.assert_array_equal(flatten(weights["params"][which])[path], leaf)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (VIT | dict(pool="mean", registers=1), r"SiglipVisionModel, stand registers=1 \(there 0\)"),
        (
            VIT | dict(qk_norm=True, pooler=True),
            r"the nearest, ViTModel, stand qk_norm=True \(there False\); use --for",
        ),
        (dict(name="bert", norm_first=True), "BertModel, stand norm_first=True"),
        (dict(name="siglip_text"), "Hugging Face has no such architecture"),
        (dict(name="resnet", norm="group", groups=2, **RESNET), "no ResNet with norm='group'"),
    ],
)
def test_architectures_without_counterpart_say_what_is_in_the_way(options, named):
    module, variables = _tower(options)
    with pytest.raises(UserError, match=named):
        _model(module, variables)


def test_other_modalities_and_unpooled_pairs_are_refused():
    ecg = make_tower("ecg", {"name": "ecg_vit", **SMALL}, SPECS["ecg"])
    with pytest.raises(UserError, match="no encoder of ecg such as 'ecg_vit'; use --format=torch"):
        hub.tower(ecg.config, {}, SPECS["ecg"], IDS, "config.method.towers.ecg")
    image, text = (_model(*_tower(CASES[name][1])) for name in ("clip", "bert of means"))
    with pytest.raises(UserError, match=r"text tower's features are not that of BertModel \(pool='mean'\); use --for"):
        hub.pair(image, text, hub.Projection(np.zeros((8, 2)), np.zeros((8, 2)), 0.0))


def test_an_adapter_beside_its_base_is_the_merged_tower():
    module, variables = _tower(CASES["bert of means"][1])
    config = LoraConfig(rank=2, alpha=6.0)
    layers = [f"blocks/block_0/attention/{name}" for name in ("query", "value")]
    lora = unflatten({f"{p}/{m}": NUMBERS.normal(size=s) for p in layers for m, s in (("a", (8, 2)), ("b", (2, 8)))})
    base = _model(module, variables)
    merged = _model(module, {"params": merge_lora(variables["params"], lora, config)}).state()
    about, low = hub.adapter(lora, config, base.layout.rules, "config.method.towers.m")
    assert about["target_modules"] == [f"encoder.layer.0.attention.self.{name}" for name in ("query", "value")]
    state = base.state()
    for layer in about["target_modules"]:
        a, b = (low[f"base_model.model.{layer}.lora_{m}.weight"] for m in "AB")
        state[f"{layer}.weight"] = state[f"{layer}.weight"] + about["lora_alpha"] / about["r"] * b @ a
    for key, x in merged.items():
        np.testing.assert_allclose(state[key], x, atol=1e-6, err_msg=key)
