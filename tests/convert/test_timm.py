"""load_pretrained on timm's folders: the features of timm, and the same weights back."""

import jax
import numpy as np
import pytest
from originals import timm
from published import assert_equal, assert_round_trip, nchw, randomised, save

from medjax.convert import load_pretrained
from medjax.convert.timm import layout
from medjax.errors import UserError

torch = pytest.importorskip("torch")

_TINY = dict(img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=3)
# Of arguments that a config.json can hold, and what the architectures below set of themselves.
CASES = {
    "class_token": ("vit_tiny_patch16_224", dict(depth=2)),
    "scaled_residuals": ("vit_small_patch14_dinov2", {}),
    "registers": ("vit_small_patch14_reg4_dinov2", {}),
    "gated": ("vit_giant_patch14_dinov2", dict(mlp_ratio=3)),
    "normed_queries": ("vit_tiny_patch16_224", dict(qk_norm=True, no_embed_class=True)),
    "mean_then_norm": ("vit_base_patch16_reg4_gap_256", {}),
    "norm_then_mean": ("vit_base_patch16_siglip_gap_224", {}),
    "attention_pool": ("vit_base_patch16_siglip_224", dict(act_layer="gelu_tanh")),
    "clip": ("vit_base_patch32_clip_quickgelu_224", {}),
    "no_bias": ("vit_base_patch16_224_miil", {}),
}


def publish(name, args, directory):
    torch.manual_seed(0)
    theirs = randomised(timm.create_model(name, **args))
    pool = theirs.global_pool if isinstance(theirs.global_pool, str) else "avg"
    described = {k: x for k, x in args.items() if k in ("num_heads", "img_size", "act_layer")}
    config = {"architecture": name, "num_classes": 3, "global_pool": pool, "model_args": described}
    return theirs, save(theirs, directory, config)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_vits_give_the_features_of_timm(rng, tmp_path, case):
    name, args = CASES[case]
    theirs, folder = publish(name, _TINY | {"dynamic_img_size": True} | args, tmp_path)
    model, params = load_pretrained(folder)
    assert_round_trip(folder, params)
    # At another size than the table of positions where that has a class token and where it has none.
    size = (12, 16) if case in ("class_token", "registers") else (8, 8)
    pictures = rng.normal(size=(2, *size, 3)).astype(np.float32)
    tokens = theirs.forward_features(nchw(pictures))
    found = jax.jit(model.apply)(params, pictures)
    assert_equal(found.tokens, tokens)
    assert_equal(found.pooled, theirs.forward_head(tokens, pre_logits=True))


@torch.no_grad()
def test_resnets_give_the_features_of_timm(rng, tmp_path):
    theirs, folder = publish("resnet18", dict(channels=(8, 8, 12, 16), num_classes=3), tmp_path)
    model, params = load_pretrained(folder)
    assert_round_trip(folder, params)
    pictures = rng.normal(size=(2, 36, 32, 3)).astype(np.float32)
    maps = theirs.forward_features(nchw(pictures))
    found = jax.jit(model.apply)(params, pictures)
    assert_equal(found.tokens, maps.flatten(2).transpose(1, 2))
    assert_equal(found.pooled, theirs.forward_head(maps, pre_logits=True))


def test_a_vit_is_found_in_a_checkpoint_of_training_code(tmp_path):
    theirs, folder = publish("vit_tiny_patch16_224", _TINY | dict(embed_dim=64, num_heads=1), tmp_path / "named")
    state = {f"img_encoder_q.model.{key}": x for key, x in theirs.state_dict().items()}
    (tmp_path / "unnamed").mkdir()
    torch.save({"state_dict": state | {"temperature": torch.ones(())}}, tmp_path / "unnamed" / "last.ckpt")
    (model, params), (named, want) = load_pretrained(tmp_path / "unnamed"), load_pretrained(folder)
    assert model.config == named.config
    jax.tree.map(np.testing.assert_array_equal, params, want)


@pytest.mark.parametrize(
    ("name", "heads", "activation"),
    [
        ("vit_so400m_patch14_siglip_224", 16, "gelu"),
        ("vit_large_patch16_siglip_512", 16, "gelu_tanh"),
        ("vit_giant_patch14_reg4_dinov2", 24, "gelu"),
        ("vit_huge_patch14_clip_quickgelu_224", 16, "quick_gelu"),
        ("deit_tiny_patch16_224", 3, "gelu"),
    ],
)
def test_published_architectures_have_their_heads_and_activations(name, heads, activation):
    with torch.device("meta"):
        theirs = timm.create_model(name)
    shapes = {key: tuple(x.shape) for key, x in theirs.state_dict().items()}
    config = layout({"architecture": name, "global_pool": theirs.global_pool}, shapes).config
    assert (config.heads, config.activation) == (theirs.blocks[0].attn.num_heads, activation)
    assert config.heads == heads and config.epsilon == theirs.blocks[0].norm1.eps
    assert config.grid == theirs.patch_embed.grid_size and config.depth == len(theirs.blocks)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"architecture": "vit_base_patch16_rope_224"}, "'vit_base_patch16_rope_224' cannot be read"),
        ({"architecture": "convnext_tiny"}, "'convnext_tiny' cannot be read; supported: vit_"),
        ({"architecture": "vit_tiny_patch16_224", "model_args": {"norm_layer": "rmsnorm"}}, "norm_layer of vit_tiny"),
        ({"architecture": "vit_tiny_patch16_224"}, "without patch_embed.proj.weight"),
    ],
)
def test_what_has_other_arithmetic_is_refused(config, why):
    with pytest.raises(UserError, match=why):
        layout(config, {"cls_token": (1, 1, 16)})
