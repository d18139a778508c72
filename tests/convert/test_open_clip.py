"""load_pretrained on open_clip's folders: the embeddings of open_clip, and the same weights back."""

import json

import jax
import numpy as np
import pytest
import transformers
from originals import open_clip, timm
from published import assert_equal, assert_parts_are_those_of_the_pair, assert_round_trip, nchw, randomised, save

from medjax.convert import load_pretrained
from medjax.errors import UserError

torch = pytest.importorskip("torch")

_IMAGE = dict(image_size=8, layers=2, width=16, patch_size=4, head_width=8)
_TEXT = dict(context_length=6, vocab_size=30, width=16, heads=2, layers=1)
_WORDS = dict(vocab_size=30, hidden_size=64, num_hidden_layers=1, intermediate_size=24, max_position_embeddings=9)
_SIGLIP_TEXT = dict(no_causal_mask=True, proj_bias=True, pool_type="last", norm_kwargs={"eps": 1e-6})
# The highest token ends a text; behind it there is padding.
TOKENS, LENGTHS = np.array([[5, 7, 3, 29, 1, 1], [4, 6, 8, 9, 10, 29]]), np.array([4, 6])


def own(**more):
    return dict(embed_dim=8, vision_cfg=_IMAGE, text_cfg=_TEXT) | more


def with_bert(pooler, projection, **words):
    name = f"nowhere/{words.get('model_type', 'bert')}"
    text = dict(hf_model_name=name, hf_pooler_type=pooler, hf_proj_type=projection, words=words)
    trunk = dict(timm_model_name="vit_tiny_patch16_224", timm_pool="", timm_proj="linear", image_size=8)
    return dict(embed_dim=8, vision_cfg=trunk, text_cfg=text)


CASES = {
    "clip": own(quick_gelu=True),
    "clip_of_the_mean": own(
        vision_cfg=_IMAGE | dict(pool_type="avg", final_ln_after_pool=True, no_ln_pre=True, ls_init_value=0.1),
        text_cfg=_TEXT | dict(ls_init_value=0.1, act_kwargs={"approximate": "tanh"}),
        custom_text=True,
    ),
    "siglip": dict(
        embed_dim=16,
        init_logit_bias=-10.0,
        custom_text=True,
        vision_cfg=dict(timm_model_name="vit_base_patch16_siglip_224", timm_pool="map", timm_proj="none", image_size=8),
        text_cfg=_TEXT | _SIGLIP_TEXT,
    ),
    "biomedclip": with_bert("cls_last_hidden_state_pooler", "mlp"),
    "pooled_bert": with_bert("cls_pooler", "linear"),
    "unimed_clip": with_bert("mean_pooler", "mlp") | dict(vision_cfg=_IMAGE, quick_gelu=True),
    "roberta": with_bert("mean_pooler", "linear", model_type="roberta", type_vocab_size=1, pad_token_id=1),
}


def theirs_of(config, monkeypatch):
    """open_clip's module of a configuration, of which neither BERT nor timm's sizes come from a hub."""
    create = timm.create_model
    sizes = dict(embed_dim=64, depth=1, num_heads=1, patch_size=4, img_size=8)
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **(options | sizes)))
    config = json.loads(json.dumps(config))
    custom, words = config.pop("custom_text", False), config["text_cfg"].pop("words", None)
    if words is None:
        return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    hf = dict(model_type="bert", pad_token_id=1, num_attention_heads=1) | _WORDS | words
    described = transformers.AutoConfig.for_model(**hf)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda name: described)
    config["text_cfg"]["hf_model_pretrained"] = False
    return open_clip.CustomTextCLIP(**config)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_pairs_give_the_embeddings_of_open_clip(monkeypatch, tmp_path, pictures, case):
    torch.manual_seed(0)
    theirs = randomised(theirs_of(CASES[case], monkeypatch))
    described = {"model_cfg": CASES[case], "preprocess_cfg": {}}
    folder = save(theirs, tmp_path, described, "open_clip_config.json", "open_clip_model.safetensors")
    model, params = load_pretrained(folder)
    assert_round_trip(folder, params)
    found = jax.jit(model.apply)(params, image=pictures, text=TOKENS, lengths=LENGTHS)
    assert_equal(found.image_embed, theirs.encode_image(nchw(pictures), normalize=True))
    assert_equal(found.text_embed, theirs.encode_text(torch.from_numpy(TOKENS), normalize=True))
    assert_equal(found.logit_scale, theirs.logit_scale.exp())
    if theirs.logit_bias is not None:
        assert_equal(found.logit_bias, theirs.logit_bias)
    assert_parts_are_those_of_the_pair(folder, model, params)


@torch.no_grad()
def test_tokens_are_those_of_open_clip(monkeypatch, tmp_path, pictures):
    config = own(
        vision_cfg=_IMAGE | {"output_tokens": True}, text_cfg=_TEXT | {"output_tokens": True}, custom_text=True
    )
    theirs = randomised(theirs_of(config, monkeypatch))
    state = {f"module.{key}": x for key, x in theirs.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    model, params = load_pretrained(tmp_path)
    found = jax.jit(model.apply)(params, image=pictures, text=TOKENS, lengths=LENGTHS)
    assert_equal(found.image.patches, theirs.visual(nchw(pictures))[1])
    tokens = theirs.text(torch.from_numpy(TOKENS))[1]
    for row, length in enumerate(LENGTHS):
        assert_equal(found.text.tokens[row, :length], tokens[row, :length])


def test_a_config_of_the_bert_beside_the_weights_takes_precedence(monkeypatch, tmp_path):
    case = with_bert("mean_pooler", "linear")
    theirs = theirs_of(case, monkeypatch)
    folder = save(theirs, tmp_path, {"model_cfg": case}, "open_clip_config.json", "open_clip_model.safetensors")
    assert load_pretrained(folder)[0].text.config.heads == 1
    (folder / "config.json").write_text(json.dumps(_WORDS | dict(model_type="bert", num_attention_heads=4)))
    found, _ = load_pretrained(folder)
    assert found.text.config.heads == 4


@pytest.mark.parametrize(
    ("part", "options", "why"),
    [
        ("vision_cfg", dict(attentional_pool=True), "only ViTs that pool"),
        ("vision_cfg", dict(image_size=12), r"image_size=\(12, 12\) and patches of 4 do not give 4 positions"),
        ("text_cfg", dict(embed_cls=True), "embed_cls"),
        ("text_cfg", dict(hf_model_name="google/mt5-base"), "'google/mt5-base' is no BERT or RoBERTa"),
        ("vision_cfg", dict(timm_model_name="convnext_base"), "'convnext_base' cannot be read"),
    ],
)
def test_other_architectures_are_refused(monkeypatch, tmp_path, part, options, why):
    theirs, config = theirs_of(own(), monkeypatch), own()
    config[part] = config[part] | options
    save(theirs, tmp_path, {"model_cfg": config}, "open_clip_config.json", "open_clip_model.safetensors")
    with pytest.raises(UserError, match=why):
        load_pretrained(tmp_path)
