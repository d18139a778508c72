"""A run starts from published weights exactly, and needs their folder no more once it has started."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
import transformers as hf

from medjax.bin.cli import load_config
from medjax.convert import load_pretrained
from medjax.data import tokenizer
from medjax.errors import UserError
from medjax.methods.encoder import load_run
from medjax.training import loop
from medjax.training.experiment import stages
from medjax.training.pretrained import load_tower, published_weights, settle

_SPARE = 3  # rows of the table that no word takes


@pytest.fixture(scope="module")
def folder(phantom_dir, tmp_path_factory):
    """A tiny BERT with the phantom's words in an order of its own, in the older files."""
    directory = tmp_path_factory.mktemp("published") / "bert"
    known = set(tokenizer.load(phantom_dir / tokenizer.FOLDER).get_vocab())
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    words = special + sorted(known - set(special), reverse=True)
    config = hf.BertConfig(
        vocab_size=len(words) + _SPARE,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=80,
        pad_token_id=3,
    )
    hf.BertModel(config).save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(words) + "\n")
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "pad_token": "[PAD]"}))
    return directory


@pytest.fixture(scope="module")
def make_recipe(phantom_dir, folder, pytestconfig):
    def make(**text):
        config = load_config(f"{pytestconfig.rootpath / 'configs' / 'phantom.py'}:tiny,objective=info_nce,steps=2")
        config.data.dir = str(phantom_dir)
        config.data.modalities = {"labs": {}, "text": {"length": 72}}
        text = {"pretrained": str(folder), "dropout": 0.1, "heads": 2} | text
        config.method.towers = {"labs": {"name": "mlp", "hidden": (8,)}, "text": text}
        config.method.objectives = {"info_nce": {}}
        config.optimizer.freeze = ("towers/text/.*",)
        return config

    return make


@pytest.fixture(scope="module")
def run(make_recipe, folder, tmp_path_factory):
    """A run that was stopped after its first step and went on to its end without the folder."""
    workdir = tmp_path_factory.mktemp("pretrained") / "run"
    loop.run(make_recipe(), workdir, stop_at_step=1)
    away = folder.rename(folder.with_name("away"))
    loop.run(make_recipe(), workdir)
    yield workdir
    away.rename(folder)


@pytest.fixture(scope="module")
def encoder(run):
    return load_run(run, "last")


def test_the_tower_has_the_published_weights_bit_for_bit(run, folder, encoder):
    assert encoder.step == 2 and not folder.exists()
    published = load_pretrained(folder.with_name("away"))[1]["params"]
    jax.tree.map(np.testing.assert_array_equal, encoder.params["towers"]["text"], published)
    random = load_run(run, "untrained").params["towers"]["text"]["words"]["embedding"]
    assert np.all(np.asarray(random) != published["words"]["embedding"])
    log = (run / "train.log").read_text()
    count = len(jax.tree.leaves(published))
    assert f"{count} parameters taken, 0 of them resized; left in the source: nothing; fresh here: " in log
    assert "fresh here: heads/labs (2), heads/text (2)" in log


def test_the_run_records_explicit_options_and_keeps_the_tokenizer(run, folder, encoder, phantom_dir):
    config = json.loads((run / "config.json").read_text())
    tower = config["method"]["towers"]["text"]
    assert "pretrained" not in tower and config["given"]["method"]["towers"]["text"]["pretrained"] == str(folder)
    expected = {"name": "bert", "width": 8, "hidden": 16, "depth": 1, "pool": "cls", "pooler": "tanh", "dropout": 0.1}
    assert expected.items() <= tower.items()
    transform, own = encoder.transforms["text"], tokenizer.load(phantom_dir / tokenizer.FOLDER)
    text = "No pleural effusion; the heart is enlarged."
    ours, theirs = transform.tokenizer.encode(text), own.encode(text)
    assert ours.tokens == theirs.tokens and ours.ids != theirs.ids
    assert transform.spec()["pad_id"] == 3 and tower["vocab_size"] == transform.spec()["vocab_size"] + _SPARE
    assert np.isfinite(encoder.embed({"text": [text, "no finding"]})["text"]).all()


def test_heads_are_centred_on_the_features_of_the_new_tower(encoder):
    batch = next(encoder.dataset().evaluation("train", 16)).select(encoder.modalities)
    head = encoder.params["heads"]["text"]
    moved = {**encoder.params["heads"], "text": {"out": {**head["out"], "bias": head["out"]["bias"] + 5.0}}}
    params = jax.jit(encoder.method.centre, static_argnums=3)({**encoder.params, "heads": moved}, {}, batch, ("text",))
    features, _ = encoder.method.towers.apply(params, {}, "text", batch, None, False)
    out = params["heads"]["text"]["out"]
    mean = np.mean((features.pooled @ out["kernel"])[batch.items["text"].mask[:, 0]], axis=0)
    np.testing.assert_allclose(mean, -out["bias"], atol=1e-5)  # float32 sums of numbers near 5
    np.testing.assert_array_equal(params["heads"]["labs"]["out"]["bias"], moved["labs"]["out"]["bias"])


def test_other_options_than_at_the_start_are_named(run, make_recipe):
    with pytest.raises(UserError, match=r"holds a run with another method\.towers\.text\.dropout"):
        loop.run(make_recipe(dropout=0.2), run)


@pytest.fixture
def folder_there(folder):
    """The folder, also while the run above does without."""
    return folder if folder.exists() else folder.with_name("away")


def refused(config, tmp_path, match):
    """What is wrong is found before a workdir is made."""
    with pytest.raises(UserError, match=match):
        loop.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_options_that_contradict_the_weights_are_named(make_recipe, folder_there, tmp_path):
    config = make_recipe(pretrained=str(folder_there), width=96, variant="tiny")
    refused(
        config, tmp_path, r"contradicts the weights in \S+: width=96 where it has 8, depth=2 where it has 1, .*; leave"
    )


def test_a_vocabulary_of_another_size_is_named(make_recipe, folder_there, phantom_dir, tmp_path):
    config = make_recipe(pretrained=str(folder_there))
    tokenizer.train(["one two"], tmp_path, 30, 1)
    config.data.modalities.text.tokenizer = str(tmp_path / tokenizer.FOLDER)
    (tmp_path / "tokenizer").rename(tmp_path / "small")
    config.data.modalities.text.tokenizer = str(tmp_path / "small")
    refused(config, tmp_path, r"small\) has a vocabulary of \d+ and the weights in \S+ are for \d+; set")


def test_texts_longer_than_the_positions_are_refused(make_recipe, folder_there, tmp_path):
    config = make_recipe(pretrained=str(folder_there))
    config.data.modalities.text.length = 81
    refused(config, tmp_path, r"modalities\.text\.length=81 exceeds the 80 positions")


def test_weights_of_another_kind_of_modality_are_refused(make_recipe, folder_there, tmp_path):
    config = make_recipe(pretrained=str(folder_there))
    config.method.towers.labs = {"pretrained": str(folder_there)}
    refused(config, tmp_path, r"towers\.labs: \S+ encodes text, and labs is labs")


def test_a_folder_that_is_not_there_says_how_to_get_it(make_recipe, tmp_path):
    refused(make_recipe(pretrained=str(tmp_path / "none")), tmp_path, "no folder .*none")


def test_pictures_get_their_grid_and_one_channel_and_batch_statistics(tmp_path):
    sizes = dict(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    hf.ResNetModel(hf.ResNetConfig(**sizes)).save_pretrained(tmp_path / "resnet")
    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    vit = hf.ViTConfig(**sizes, image_size=16, patch_size=4)
    text = hf.BertConfig(**sizes, vocab_size=20)
    pair = hf.VisionTextDualEncoderConfig.from_vision_text_configs(vit, text, projection_dim=8)
    hf.VisionTextDualEncoderModel(pair, hf.ViTModel(vit), hf.BertModel(text)).save_pretrained(tmp_path / "pair")
    spec = {"kind": "image", "size": 32, "channels": 1}
    module, variables = load_tower("image", tmp_path / "pair", spec)
    assert (module.config.grid, module.config.channels) == ((8, 8), 1)
    assert jax.eval_shape(module.apply, variables, jnp.zeros((1, 32, 32, 1))).tokens.shape == (1, 65, 8)
    assert load_tower("text", tmp_path / "pair", {"kind": "text"})[0].config.vocab_size == 20
    params, state, include = published_weights({"image": tmp_path / "resnet"}, {"image": spec})
    assert params["towers"]["image"]["stem"]["conv"]["kernel"].shape[2] == 1
    np.testing.assert_array_equal(state["batch_stats"]["image"]["stem"]["norm"]["var"], np.ones(4))
    assert include == "towers/(image)/.*"


def test_a_tokenizer_without_published_weights_is_kept_too(make_recipe, folder_there, tmp_path):
    config = make_recipe()
    config.method.towers.text = {"name": "bert", "width": 8, "heads": 2}
    config.data.modalities.text.tokenizer = str(folder_there)
    experiment = settle(stages(config)[0][1], tmp_path)
    assert "tokenizer" not in experiment.resolved["data"]["modalities"]["text"] and not experiment.pretrained
    assert experiment.data.modalities["text"]["tokenizer"] == str(folder_there)
