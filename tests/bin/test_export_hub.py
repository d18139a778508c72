"""Exports for Hugging Face: folders that its Auto classes load with their preprocessing."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from changed_encoder import changed_encoder

from medjax.convert import load_pretrained
from medjax.errors import UserError
from medjax.methods.encoder import load_run

pytest.importorskip("torch.nn")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from medjax.bin import exporting_hub
from medjax.bin.export_metrics import measured
from medjax.bin.exporting_hub import Wanted

TEXTS = ["Pleural effusion on the left.", "No finding. " * 40]
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 32, 32), np.uint8)


@pytest.fixture(scope="module")
def run(phantom_run):
    return load_run(phantom_run)


@pytest.fixture(scope="module")
def changed(run):
    return functools.partial(changed_encoder, run)


def _export(encoder, output, **options):
    dataset = encoder.dataset(encoder.config["data"]["dir"])
    wanted, extra = Wanted(**options), {"license": "cc0-1.0", "metrics": []}
    return exporting_hub.export_hub(encoder, dataset, output, "best", 2e-5, 16, False, extra, wanted)


def _pooled(encoder, modality, value):
    batch = {"value": value} if not isinstance(value, dict) else value
    module = encoder.method.towers.modules[modality]
    return np.asarray(module.apply({"params": encoder.params["towers"][modality]}, **batch).pooled)


@torch.no_grad()
def test_a_text_tower_loads_with_its_tokenizer(run, phantom_run, tmp_path):
    found = _export(run, tmp_path / "out", modalities=("text",))
    assert found.max_abs_difference <= 2e-5 and found.raw_inputs and found.examples
    folder = tmp_path / "out"
    model, report = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(model) is transformers.BertModel and not any(report.values())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokenizer(TEXTS, truncation=True, padding=True, return_tensors="pt")
    tokens = model.eval()(**given).last_hidden_state
    weight = given["attention_mask"][..., None]
    transform = run.transforms["text"]
    rows = [transform.finish(transform.prepare(transform.raw(t)), None) for t in TEXTS]
    value = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
    want = _pooled(run, "text", value)
    np.testing.assert_allclose((tokens * weight).sum(1) / weight.sum(1), want, atol=2e-5)

    module, variables = load_pretrained(folder)
    np.testing.assert_allclose(module.apply(variables, **value).pooled, want, atol=2e-5)
    assert json.loads((folder / "1_Pooling" / "config.json").read_text())["pooling_mode_mean_tokens"]
    card = (folder / "README.md").read_text()
    assert "license: cc0-1.0\n" in card and "BertModel" in card and "`out.pooler_output` is zero" in card
    for path in (p for p in folder.rglob("*") if p.suffix in (".json", ".md")):
        assert str(phantom_run.parent) not in path.read_text() and run.config["data"]["dir"] not in path.read_text()


@torch.no_grad()
def test_an_image_tower_loads_with_its_processor(run, tmp_path):
    _export(run, tmp_path / "out", modalities=("image",))
    model = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    from PIL import Image

    found = model(**processor([Image.fromarray(x) for x in PICTURES], return_tensors="pt")).last_hidden_state.mean(1)
    transform = run.transforms["image"]
    value = np.stack([transform.finish(transform.prepare(x), None) for x in PICTURES])
    np.testing.assert_allclose(found, _pooled(run, "image", value), atol=2e-5)
    assert 'convert("L")' in (tmp_path / "out" / "README.md").read_text()


@torch.no_grad()
def test_an_image_and_a_text_tower_become_a_pair(run, changed, tmp_path):
    given = run.config["method"]["towers"]
    towers = {
        "image": {**given["image"], "pool": "cls", "channels": 3},
        "text": {**given["text"], "pool": "cls", "pooler": "tanh"},
    }
    encoder = changed(towers, {"image": {"fit": "crop"}}, head={})
    _export(encoder, tmp_path / "out")
    model = transformers.AutoModel.from_pretrained(tmp_path / "out")
    assert type(model) is transformers.VisionTextDualEncoderModel
    scale = encoder.params["objectives"]["info_nce"]["log_scale"]
    np.testing.assert_array_equal(model.logit_scale.numpy(), scale)
    _, variables = load_pretrained(tmp_path / "out")
    kernel = variables["params"]["text_projection_0"]["kernel"]
    np.testing.assert_array_equal(kernel, encoder.params["heads"]["text"]["out"]["kernel"])
    with pytest.raises(UserError, match="linear projections without bias, normalised, and image has HeadConfig"):
        _export(changed(towers, head={"centre": True}), tmp_path / "other")


def test_an_adapter_lies_beside_its_base(run, changed, tmp_path):
    towers = {m: run.config["method"]["towers"][m] for m in ("labs", "text")}
    encoder = changed({**towers, "text": {**towers["text"], "lora": {"rank": 2}}})
    with pytest.raises(UserError, match="one modality, with --modality, whose tower is adapted"):
        _export(encoder, tmp_path / "out", modalities=("labs",), separate=True)
    _export(encoder, tmp_path / "out", modalities=("text",), separate=True)
    _export(encoder, tmp_path / "merged", modalities=("text",))
    (_, base), (_, merged) = (load_pretrained(tmp_path / name) for name in ("out", "merged"))
    about = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    import safetensors.numpy

    low = safetensors.numpy.load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    a, b = (low[f"base_model.model.encoder.layer.0.attention.self.query.lora_{m}.weight"] for m in "AB")
    place = ("params", "blocks", "block_0", "attention", "query", "kernel")
    for name in place:
        base, merged = base[name], merged[name]
    np.testing.assert_allclose(base + about["lora_alpha"] / about["r"] * (b @ a).T, merged, atol=1e-6)


@pytest.mark.parametrize(
    ("modalities", "named"),
    [
        (("txt",), "--modality=txt: the encoder has none of this name; did you mean 'text'"),
        ((), "of one modality, or of an image and a text, and not of ecg, image, labs, text; name them"),
        (("image", "text"), "text tower's features are not that of|linear projections"),
        (("ecg",), "no encoder of ecg such as 'ecg_vit'"),
    ],
)
def test_what_cannot_be_exported_says_what_can(run, tmp_path, modalities, named):
    with pytest.raises(UserError, match=named):
        _export(run, tmp_path / "out", modalities=modalities)
    assert not list(tmp_path.iterdir())


def test_weights_that_disagree_are_refused_and_leave_nothing(run, tmp_path, monkeypatch):
    right = exporting_hub.hub.HubModel.state
    monkeypatch.setattr(
        exporting_hub.hub.HubModel, "state", lambda self: {k: x * np.float32(1.01) for k, x in right(self).items()}
    )
    with pytest.raises(UserError, match="features differ from JAX's by up to"):
        _export(run, tmp_path / "out", modalities=("text",))
    assert not list(tmp_path.iterdir())


def test_metrics_are_those_of_the_exported_checkpoint(tmp_path):
    data = {"examples": 9, "name": "d", "split": "test"}
    auroc = {"macro_auroc": {"value": 0.7, "low": 0.6, "high": 0.8}}
    for step in (3, 4):
        folder = Path(tmp_path) / "evaluation" / f"zero_shot_{step}"
        folder.mkdir(parents=True)
        results = {"checkpoint": {"step": step}, "data": data, "zero_shot": auroc}
        (folder / "results.json").write_text(json.dumps(results))
    (found,) = measured(tmp_path, 4)
    assert found["value"] == "0.700 [0.600, 0.800]" and found["on"] == "9 studies of d, test split"
