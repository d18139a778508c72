"""Exports for open_clip: it gives their embeddings, and the import reads them back."""

import json

import jax
import numpy as np
import pytest
from changed_encoder import changed_encoder
from originals import open_clip

from medjax.bin.exporting_hub import Wanted
from medjax.bin.exporting_open_clip import export_open_clip
from medjax.convert import load_pretrained
from medjax.convert.rules import flatten
from medjax.errors import UserError
from medjax.methods.encoder import load_run

SMALL = dict(width=16, depth=1, heads=2)
VIT = dict(name="vit", patch=16, **SMALL)
CLIP = dict(norm_before=True, norm="pooled", cls_position=True, activation="quick_gelu", patch_bias=False, channels=3)
TEXTS = {
    "clip": (VIT | CLIP, dict(name="clip_text", positions=128, **SMALL)),
    "bert of means": (VIT | dict(pool="mean", cls=True, layer_scale=0.1), dict(name="bert", **SMALL)),
    "pooled bert": (VIT, dict(name="bert", types=2, pool="cls", pooler="tanh", **SMALL)),
}


def _export(encoder, output):
    dataset = encoder.dataset(encoder.config["data"]["dir"])
    return export_open_clip(encoder, dataset, output, "best", 1e-5, 16, False, {}, Wanted())


@pytest.mark.parametrize("name", TEXTS)
def test_pairs_load_there_and_come_back(name, phantom_run, tmp_path):
    image, text = TEXTS[name]
    encoder = changed_encoder(load_run(phantom_run), {"image": image, "text": text}, head={})
    found = _export(encoder, tmp_path / "out")
    assert found.max_abs_difference <= 1e-5 and found.examples
    pair, variables = load_pretrained(tmp_path / "out")
    dataset = encoder.dataset(encoder.config["data"]["dir"])
    batch = next(dataset.evaluation("validation", 4)).only_valid().select(("image", "text"))
    given = {m: jax.tree.map(lambda x: x[:, 0], batch.items[m].value) for m in ("image", "text")}
    outputs = pair.apply(variables, given["image"], given["text"]["tokens"], lengths=given["text"]["lengths"])
    want = encoder.encode(batch).items
    for m, embed in (("image", outputs.image_embed), ("text", outputs.text_embed)):
        there = batch.items[m].mask[:, 0]
        np.testing.assert_allclose(np.asarray(embed)[there], np.asarray(want[m])[there, 0], atol=1e-5)
    weights = flatten(variables["params"]["text"])
    for path, leaf in flatten(encoder.params["towers"]["text"]).items():
        leaf = leaf[:72] if path == "positions" else leaf  # the longest text
        np.testing.assert_array_equal(weights[path], leaf)
    assert "open_clip.create_model_from_pretrained" in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "open_clip_config.json").read_text())["preprocess_cfg"]["mean"] == [0.5] * 3
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")
    sentence = "No pleural effusion."
    transform = encoder.transforms["text"]
    tokens = transform.finish(transform.prepare(transform.raw(sentence)), None)["tokens"]
    np.testing.assert_array_equal(tokenizer([sentence])[0], tokens)


@pytest.mark.parametrize(
    ("image", "text", "named"),
    [
        (VIT | dict(registers=1), dict(name="bert", **SMALL), r"image tower; in the way stand registers=1 \(there 0\)"),
        (VIT | dict(pool="mean"), dict(name="bert", **SMALL), "has_cls=False"),
        (VIT, dict(name="bert", pool="max", **SMALL), "text tower; in the way stand pool='max'"),
        (VIT, dict(name="clip_text", positions=128, pool="mean", **SMALL), "in the way stands pool='mean'"),
        (dict(name="resnet", block="basic", depths=(1,), stem=4), dict(name="bert", **SMALL), "only ViTs"),
    ],
)
def test_architectures_without_counterpart_say_what_is_in_the_way(phantom_run, tmp_path, image, text, named):
    encoder = changed_encoder(load_run(phantom_run), {"image": image, "text": text}, head={})
    with pytest.raises(UserError, match=named):
        _export(encoder, tmp_path / "out")
    assert not list(tmp_path.iterdir())
