"""load_pretrained on Hugging Face's folders: the outputs of transformers, the same weights back, and clear refusals."""

import json
import logging

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
import transformers as hf
from published import assert_equal, assert_parts_are_those_of_the_pair, assert_round_trip, nchw, randomised
from safetensors.numpy import load_file, save_file

from medjax.convert import load_pretrained
from medjax.errors import UserError

_SIZES = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
_PICTURE = _SIZES | dict(image_size=8, patch_size=4)
_WORDS = _SIZES | dict(vocab_size=30, max_position_embeddings=9)
_CLIP = hf.CLIPConfig(text_config=_WORDS | {"eos_token_id": 29}, vision_config=_PICTURE, projection_dim=8)
_SIGLIP = hf.SiglipConfig(text_config=_WORDS, vision_config=_PICTURE)
_DEEPER = {"num_hidden_layers": 2}
_VIT, _BERT = hf.ViTConfig(**_PICTURE | _DEEPER), hf.BertConfig(**_WORDS | _DEEPER)
_DUAL = hf.VisionTextDualEncoderConfig.from_vision_text_configs(_VIT, _BERT, projection_dim=8)

IMAGES = {
    "vit": lambda: hf.ViTModel(_VIT),
    "vit_without_pooler": lambda: hf.ViTModel(_VIT, add_pooling_layer=False),
    "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**_PICTURE)),
    "dinov2_gated": lambda: hf.Dinov2Model(hf.Dinov2Config(**_PICTURE, use_swiglu_ffn=True)),
    "dinov2_registers": lambda: hf.Dinov2WithRegistersModel(
        hf.Dinov2WithRegistersConfig(**_PICTURE, num_register_tokens=2)
    ),
    "clip_vision": lambda: hf.CLIPVisionModel(_CLIP.vision_config),
    "siglip_vision": lambda: hf.SiglipVisionModel(_SIGLIP.vision_config),
}
TEXTS = {
    "bert": lambda: hf.BertModel(_BERT),
    "bert_of_masked_words": lambda: hf.BertForMaskedLM(_BERT),
    "roberta": lambda: hf.RobertaModel(hf.RobertaConfig(**_WORDS, type_vocab_size=1)),
    "clip_text": lambda: hf.CLIPTextModel(_CLIP.text_config),
    "siglip_text": lambda: hf.SiglipTextModel(_SIGLIP.text_config),
}
PAIRS = {
    "clip": lambda: hf.CLIPModel(_CLIP),
    "siglip": lambda: hf.SiglipModel(_SIGLIP),
    "dual": lambda: hf.VisionTextDualEncoderModel(_DUAL, hf.ViTModel(_VIT), hf.BertModel(_BERT)),
}


# Texts end at the token of the highest number, which is CLIP's end token; behind it there is padding.
TOKENS = np.array([[5, 7, 3, 29, 1, 1], [4, 6, 8, 9, 10, 29]])
LENGTHS = np.array([4, 6])


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A function of a name: the folder and their model, made once."""
    made = {}

    def get(name):
        if name not in made:
            torch.manual_seed(0)
            theirs, folder = randomised((IMAGES | TEXTS | PAIRS)[name]()), tmp_path_factory.mktemp("published") / name
            theirs.save_pretrained(folder)
            made[name] = folder, theirs
        return made[name]

    return get


@pytest.fixture
def pictures(rng):
    return rng.normal(size=(2, 8, 8, 3)).astype(np.float32)


def _pooled(output) -> torch.Tensor:
    pooled = getattr(output, "pooler_output", None)
    return output.last_hidden_state[:, 0] if pooled is None else pooled


@torch.no_grad()
@pytest.mark.parametrize("name", IMAGES)
def test_pictures_give_the_features_of_transformers_at_any_size(published, pictures, rng, name):
    folder, theirs = published(name)
    model, params = load_pretrained(folder)
    assert_round_trip(folder, params)
    want, found = theirs(pixel_values=nchw(pictures)), jax.jit(model.apply)(params, pictures)
    assert_equal(found.tokens, want.last_hidden_state)
    assert_equal(found.pooled, _pooled(want))

    if name not in ("vit", "dinov2_registers", "clip_vision"):
        return  # the others resize as one of these does
    larger = rng.normal(size=(1, 12, 16, 3)).astype(np.float32)
    resized = {} if name.startswith("dinov2") else {"interpolate_pos_encoding": True}
    want = theirs(pixel_values=nchw(larger), **resized).last_hidden_state
    assert_equal(jax.jit(model.apply)(params, larger).tokens, want)
    if name == "vit":
        at_size, resized_params = load_pretrained(folder, image_size=(12, 16))
        assert at_size.config.grid == (3, 4)
        assert_equal(jax.jit(at_size.apply)(resized_params, larger).tokens, want)


@torch.no_grad()
@pytest.mark.parametrize("name", TEXTS)
def test_texts_give_the_features_of_transformers(published, name):
    folder, theirs = published(name)
    model, params = load_pretrained(folder)
    assert_round_trip(folder, params)
    base = theirs.bert if name == "bert_of_masked_words" else theirs
    mask = torch.from_numpy(np.arange(6) < LENGTHS[:, None]).long()
    # SigLIP attends to its padding.
    options = {} if name == "siglip_text" else {"attention_mask": mask}
    want, found = (
        base(input_ids=torch.from_numpy(TOKENS), **options),
        jax.jit(model.apply)(params, TOKENS, lengths=LENGTHS),
    )
    real = np.ones_like(TOKENS, bool) if name == "siglip_text" else mask.numpy().astype(bool)
    assert_equal(np.asarray(found.tokens)[real], want.last_hidden_state[torch.from_numpy(real)])
    assert_equal(found.pooled, _pooled(want))


@torch.no_grad()
@pytest.mark.parametrize("name", PAIRS)
def test_pairs_give_the_embeddings_and_scores_of_transformers(published, pictures, name):
    folder, theirs = published(name)
    model, params = load_pretrained(folder)
    assert_round_trip(folder, params)
    mask = torch.from_numpy(np.arange(6) < LENGTHS[:, None]).long()
    options = {} if name == "siglip" else {"attention_mask": mask}
    want = theirs(input_ids=torch.from_numpy(TOKENS), pixel_values=nchw(pictures), **options)
    found = jax.jit(model.apply)(params, image=pictures, text=TOKENS, lengths=LENGTHS)
    assert_equal(found.image_embed, want.image_embeds)
    assert_equal(found.text_embed, want.text_embeds)
    assert_equal(found.image.tokens, want.vision_model_output.last_hidden_state)
    scores = found.logit_scale * found.image_embed @ found.text_embed.T + found.logit_bias
    assert_equal(scores / found.logit_scale, want.logits_per_image / found.logit_scale.item())
    assert_parts_are_those_of_the_pair(folder, model, params)


def test_a_stem_of_one_channel_gives_what_the_grey_copy_gives(published, pictures):
    folder, _ = published("clip")
    grey = pictures[..., :1]
    (rgb, rgb_params), (one, one_params) = load_pretrained(folder), load_pretrained(folder, channels=1)
    assert one_params["params"]["image"]["patch_embed"]["kernel"].shape == (16, 16)
    want = jax.jit(rgb.apply)(rgb_params, image=np.repeat(grey, 3, axis=-1)).image_embed
    np.testing.assert_allclose(jax.jit(one.apply)(one_params, image=grey).image_embed, want, atol=2e-5)


def test_every_weight_that_does_not_fit_is_named(published, tmp_path):
    folder, _ = published("vit")
    state = load_file(folder / "model.safetensors")
    del state["layernorm.weight"], state["encoder.layer.1.output.dense.bias"]
    state |= {"head.weight": np.zeros((2, 2), np.float32), "pooler.dense.bias": np.zeros(3, np.float32)}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(UserError) as error:
        load_pretrained(tmp_path)
    for part in (
        r"(from layernorm.weight)",
        "(from encoder.layer.1.output.dense.bias)",
        "head.weight is not expected",
        "params/pooler/bias has shape [3] and should have [16]",
    ):
        assert part in str(error.value)


def test_shards_and_sixteen_bits_are_read(published, tmp_path):
    folder, theirs = published("bert")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    _, want = load_pretrained(folder)
    _, found = load_pretrained(tmp_path / "shards")
    kernel = "params", "blocks", "block_1", "mlp", "up", "kernel"
    np.testing.assert_array_equal(_at(found, kernel), _at(want, kernel))
    next((tmp_path / "shards").glob("*00002*.safetensors")).unlink()
    with pytest.raises(UserError, match=r"lacks model-00002-of-\d+\.safetensors"):
        load_pretrained(tmp_path / "shards")

    half = hf.BertModel(_BERT)
    half.load_state_dict(theirs.state_dict())
    half.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    _, found = load_pretrained(tmp_path / "half")
    assert _at(found, kernel).dtype == np.float32
    np.testing.assert_array_equal(
        _at(found, kernel), half.float().encoder.layer[1].intermediate.dense.weight.T.detach()
    )


def _at(tree, path):
    for part in path:
        tree = tree[part]
    return np.asarray(tree)


def test_pickled_weights_are_read_and_anything_else_in_them_is_refused(published, tmp_path):
    folder, theirs = published("bert")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    _, params = load_pretrained(tmp_path)
    assert_round_trip(tmp_path, params)
    torch.save({"state_dict": theirs.state_dict(), "run": Ran()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds more than weights"):
        load_pretrained(tmp_path)
    assert not Ran.ran


class Ran:
    """What a pickle could run."""

    ran = False

    def __reduce__(self):
        return setattr, (Ran, "ran", True)


def test_pooling_is_the_one_that_a_sentence_transformer_publishes(published, tmp_path):
    folder, _ = published("bert")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "1_Pooling").mkdir()
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}))
    model, params = load_pretrained(tmp_path)
    found = jax.jit(model.apply)(params, TOKENS, lengths=LENGTHS)
    want = np.stack([np.mean(x[:n], axis=0) for x, n in zip(np.asarray(found.tokens), LENGTHS, strict=True)])
    np.testing.assert_allclose(found.pooled, want, atol=1e-6)
    assert_round_trip(tmp_path, params)
    pooling.write_text(json.dumps({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}))
    with pytest.raises(UserError, match="mean_tokens and max_tokens"):
        load_pretrained(tmp_path)


def test_heads_that_are_left_out_are_logged(published, caplog):
    with caplog.at_level(logging.INFO, "medjax"):
        load_pretrained(published("bert_of_masked_words")[0])
    assert "left out: cls.predictions" in caplog.text


def test_what_cannot_be_loaded_says_what_to_do(published, tmp_path):
    with pytest.raises(UserError, match="hf download microsoft/rad-dino --local-dir rad-dino"):
        load_pretrained("microsoft/rad-dino")
    with pytest.raises(UserError, match="holds no weights"):
        load_pretrained(tmp_path)
    with pytest.raises(UserError, match="holds one tower"):
        load_pretrained(published("vit")[0], part="image")
    with pytest.raises(UserError, match="image_size=10 does not divide into patches of 4"):
        load_pretrained(published("vit")[0], image_size=10)
    with pytest.raises(UserError, match="are for encoders of pictures"):
        load_pretrained(published("bert")[0], channels=1)
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="model_type='t5'; supported: bert, clip"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"neither a config\.json nor weights named as"):
        load_pretrained(tmp_path)
