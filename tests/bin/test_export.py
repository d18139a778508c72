"""The export binary: what it writes, that it agrees, and that it refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import medjax
from medjax.errors import UserError
from medjax.methods import make_method
from medjax.methods.encoder import Encoder, load_run

# A folder of tests is named torch too, and would pass for the package where that is missing.
pytest.importorskip("torch.nn")

from medjax.bin import exporting

ROOT = Path(__file__).parents[2]
FILES = {"model.safetensors", "config.json", "preprocessing.json", "modeling.py", "README.md", "medjax_export.json"}


def _call(*args):
    command = [sys.executable, "-m", "medjax.bin.export", *args]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def workdir(phantom_run, tmp_path_factory):
    """A copy of the run, for the export lies inside."""
    return shutil.copytree(phantom_run, tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def export(workdir):
    """The default output of the binary."""
    done = _call("--format=torch", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "max_abs_difference" in done.stdout and str(workdir / "export" / "torch") in done.stdout
    return workdir / "export" / "torch"


@pytest.fixture(scope="module")
def inputs():
    """Raw inputs of every modality."""
    rng = np.random.default_rng(0)
    return {
        "image": [rng.integers(0, 256, (40, 30), np.uint8) for _ in range(3)],
        "ecg": [rng.normal(size=(12, 1000)) for _ in range(2)],
        "labs": [{"sodium": 140.0}, {}],
        "text": ["Pleural effusion on the left.", "No finding. " * 40],
    }


def _entries(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture(scope="module")
def to_folder(phantom_run):
    """`to_folder(output, **options)` exports in this process."""
    encoder = load_run(phantom_run)
    dataset = encoder.dataset(encoder.config["data"]["dir"])
    defaults = dict(name="best", tolerance=1e-5, examples=16, overwrite=False)
    return lambda output, **options: exporting.export_torch(encoder, dataset, output, **{**defaults, **options})


def test_folder_is_complete_and_reports_its_agreement(export):
    assert set(_entries(export)) == FILES | {"tokenizer"}
    about = json.loads((export / "medjax_export.json").read_text())
    check = about["verification"]
    assert 0 <= check["max_abs_difference"] <= check["tolerance"] == 1e-5
    assert check["examples"] > 0 and check["raw_inputs"] > 0
    assert about["data"]["licence"] == "CC0-1.0" and about["data"]["synthetic"]
    assert f"{check['max_abs_difference']:.1e}" in (export / "README.md").read_text()


def test_nothing_in_the_folder_says_where_it_was_made(export, workdir, phantom_dir):
    for path in (p for p in export.rglob("*") if p.suffix in (".json", ".md")):
        text = path.read_text()
        assert str(workdir) not in text and str(phantom_dir) not in text and str(ROOT) not in text, path.name


def test_jax_reads_the_export_back(export, workdir, inputs):
    want = medjax.load(str(workdir)).embed(inputs)
    found = medjax.load(str(export)).embed(inputs)
    for m in inputs:
        np.testing.assert_array_equal(found[m], want[m])


def test_pytorch_embeds_raw_inputs_as_jax_does(export, workdir, inputs):
    import medjax.torch

    want = medjax.load(str(workdir)).embed(inputs)
    encoder = medjax.torch.load(export)
    assert set(encoder.modalities) == set(inputs)
    for m, found in encoder.embed(inputs).items():
        np.testing.assert_allclose(found.numpy(), want[m], atol=1e-5, err_msg=m)
    single = encoder.embed({"text": inputs["text"][0]})["text"]
    np.testing.assert_allclose(single.numpy(), want["text"][0], atol=1e-5)


def test_modeling_file_stands_alone(export, inputs, workdir, tmp_path):
    """In a process where jax, flax and medjax cannot be imported, from the export folder alone."""
    alone = shutil.copytree(export, tmp_path / "moved")
    np.save(tmp_path / "image.npy", inputs["image"][0])
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('jax', 'jaxlib', 'flax', 'medjax')))\n"
        "import json, numpy as np\n"
        "from modeling import Encoder\n"
        "e = Encoder.from_pretrained('.')\n"
        "out = e.embed({'image': np.load('../image.npy'), 'text': sys.argv[1]})\n"
        "print(json.dumps([{k: v.tolist() for k, v in out.items()}, e.logit_scales]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, inputs["text"][1]], cwd=alone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    embeddings, scales = json.loads(done.stdout)
    want = medjax.load(str(workdir)).embed({"image": inputs["image"][0], "text": inputs["text"][1]})
    for m, row in want.items():
        np.testing.assert_allclose(embeddings[m], row, atol=1e-5, err_msg=m)
    assert scales.keys() == {"info_nce", "symile"}


def test_medjax_torch_imports_no_jax(export):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('jax', 'jaxlib', 'flax', 'optax', 'orbax')))\n"
        "import medjax.torch\n"
        "print(medjax.torch.load(sys.argv[1]).modalities)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(export)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("change", [np.transpose, lambda x: x * np.float32("nan")], ids=["transposed", "nan"])
def test_model_that_disagrees_is_refused_and_leaves_nothing(to_folder, tmp_path, monkeypatch, change):
    right = exporting.exported.torch_state

    def wrong(encoder, shapes):
        state = right(encoder, shapes)
        key = "towers.text.blocks.0.attention.value.weight"
        return state | {key: np.ascontiguousarray(change(state[key]))}

    monkeypatch.setattr(exporting.exported, "torch_state", wrong)
    with pytest.raises(UserError, match="differ from JAX's by up to"):
        to_folder(tmp_path / "deep" / "out")
    assert not _entries(tmp_path)


def test_preprocessing_that_disagrees_is_refused(to_folder, tmp_path, monkeypatch):
    import medjax.torch.modeling as modeling

    monkeypatch.setitem(modeling.PREPARE, "ecg", lambda spec, value: 1.01 * modeling.prepare_ecg(spec, value))
    with pytest.raises(UserError, match="differ from JAX's by up to"):
        to_folder(tmp_path / "out")
    assert not _entries(tmp_path)


def test_existing_folder_is_replaced_only_when_asked(to_folder, tmp_path):
    output = tmp_path / "out"
    to_folder(output)
    (output / "stale").touch()
    with pytest.raises(UserError, match="exists; pass --overwrite"):
        to_folder(output)
    to_folder(output, overwrite=True)
    assert set(_entries(output)) == FILES | {"tokenizer"}
    assert _entries(tmp_path) == ["out"]


def test_folder_that_is_no_export_is_never_replaced(to_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="no earlier export"):
        to_folder(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


def test_missing_pytorch_names_the_extra(to_folder, tmp_path, monkeypatch):
    for name in ("medjax.torch", "medjax.torch.modeling"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install torch"):
        to_folder(tmp_path / "out")
    assert not _entries(tmp_path)


def test_bfloat16_run_is_exported_and_compared_in_float32(phantom_run, inputs, tmp_path):
    config = json.loads((shutil.copytree(phantom_run, tmp_path / "run") / "config.json").read_text())
    for m in ("image", "ecg", "text"):
        config["method"]["towers"][m]["dtype"] = "bfloat16"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    encoder = load_run(tmp_path / "run")
    dataset = encoder.dataset(config["data"]["dir"])
    found = exporting.export_torch(encoder, dataset, tmp_path / "out", "best", 1e-5, 16, False)
    assert found.max_abs_difference <= 1e-5
    texts = {"text": inputs["text"]}
    exported = medjax.load(str(tmp_path / "out")).embed(texts)["text"]
    np.testing.assert_array_equal(exported, load_run(phantom_run).embed(texts)["text"])
    assert np.abs(exported - encoder.embed(texts)["text"]).max() > 1e-5


def test_masked_autoencoder_leaves_its_decoder_behind(phantom_run, inputs, tmp_path):
    run = load_run(phantom_run)
    options = {"name": "masked_autoencoder", "towers": {"ecg": run.config["method"]["towers"]["ecg"]}}
    method = make_method(options, {"ecg": run.transforms["ecg"].spec()})
    data = run.config["data"]
    config = {"data": {**data, "modalities": {"ecg": data["modalities"]["ecg"]}}, "method": options}
    transforms = {"ecg": run.transforms["ecg"]}
    dataset = run.dataset(data["dir"])
    batch = next(dataset.evaluation("validation", 2))
    encoder = Encoder.create(method, *method.init(jax.random.key(0), batch), transforms, run.manifest, config, 3)
    dataset = encoder.dataset(data["dir"])
    exporting.export_torch(encoder, dataset, tmp_path / "out", "last", 1e-5, 16, False)
    again = medjax.load(str(tmp_path / "out"))
    assert "decoders" in encoder.params and "decoders" not in again.params
    ecgs = {"ecg": inputs["ecg"]}
    np.testing.assert_array_equal(again.embed(ecgs)["ecg"], encoder.embed(ecgs)["ecg"])


def test_damaged_weights_of_an_export_are_one_line(export, tmp_path):
    broken = shutil.copytree(export, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((export / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        medjax.load(str(broken))


def test_export_whose_description_is_cut_short_is_one_line(export, tmp_path):
    copy = shutil.copytree(export, tmp_path / "copy")
    (copy / "medjax_export.json").write_text(json.dumps({"format": "medjax-export-1"}))
    with pytest.raises(UserError, match="lacks manifest, modalities, method, checkpoint; export the run again"):
        medjax.load(str(copy))


def test_missing_workdir_is_one_line(tmp_path):
    done = _call(f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no run at") and done.stderr.count("\n") == 1
