"""load_pretrained on checkpoints of training code: the encoder is found by the names of its weights."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from medjax.convert import load_pretrained
from medjax.convert.resnet import TORCHVISION
from medjax.convert.rules import flatten, to_torch
from medjax.errors import UserError
from medjax.models.partitioning import unbox
from medjax.models.resnet import ResNet, ResNetConfig


@pytest.fixture(scope="module")
def resnet():
    """A small ResNet's variables, and its state with torchvision's names."""
    module = ResNet(ResNetConfig(block="basic", depths=(1, 1, 1, 1), stem=8, widths=(8, 8, 12, 16), channels=3))
    shapes = jax.eval_shape(lambda: unbox(module.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape).astype(x.dtype), shapes)
    return variables, to_torch(variables, TORCHVISION)


@pytest.mark.parametrize("prefix", ["", "img_encoder_q.model.", "encoder.encoder.", "module.encoder_q."])
def test_a_resnet_is_found_behind_its_prefix(resnet, tmp_path, caplog, prefix):
    variables, state = resnet
    beside = {"fc.weight": np.ones((2, 16), np.float32)}
    if prefix:
        beside = {"projector.weight": np.ones(3, np.float32), "text.conv1.weight": np.ones(3, np.float32)}
    if "encoder_q" in prefix:
        beside |= {f"{prefix.replace('_q', '_k')}{key}": x for key, x in state.items()}
    save_file({f"{prefix}{key}": x for key, x in state.items()} | beside, tmp_path / "best.safetensors")
    with caplog.at_level("INFO", "medjax"):
        model, params = load_pretrained(tmp_path)
    assert "left out" in caplog.text
    want, found = flatten(variables), flatten(params)
    assert found.keys() == want.keys()
    for path, x in want.items():
        np.testing.assert_array_equal(found[path], x)
    assert model.config.widths == (8, 8, 12, 16)


def test_counters_of_batches_may_be_absent(resnet, tmp_path):
    _, state = resnet
    save_file({k: x for k, x in state.items() if not k.endswith("tracked")}, tmp_path / "old.safetensors")
    _, params = load_pretrained(tmp_path)
    assert int(params["batch_stats"]["stem"]["norm"]["batches"]) == 0


def test_unknown_weights_and_two_encoders_are_refused(resnet, tmp_path):
    _, state = resnet
    save_file(state | {"layer5.weight": np.ones(2, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"layer5\.weight is not expected"):
        load_pretrained(tmp_path)
    save_file({f"{x}.{k}": v for k, v in state.items() for x in ("frontal", "lateral")}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"several encoders \(frontal\., lateral\.\); keep one"):
        load_pretrained(tmp_path)
    save_file(state, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"several weights \(a\.safetensors, b\.safetensors\)"):
        load_pretrained(tmp_path)
