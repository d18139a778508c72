"""ResNets of Hugging Face, and torchvision's names: the same outputs, and the same weights after there and back."""

import jax
import numpy as np
import pytest

from medjax.convert.resnet import (
    HUGGING_FACE,
    TORCHVISION,
    config_of,
    options_of_config,
    options_of_shapes,
    with_counters,
)
from medjax.convert.rules import flatten, to_flax, to_torch, under
from medjax.errors import UserError
from medjax.models import make_tower
from medjax.models.partitioning import unbox

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PARITY = 2e-5
CASES = {
    "basic": dict(layer_type="basic", hidden_sizes=[8, 12], depths=[1, 2]),
    "bottleneck": dict(layer_type="bottleneck", hidden_sizes=[16, 32], depths=[2, 1]),
    "strided_first": dict(layer_type="bottleneck", hidden_sizes=[16, 24], depths=[1, 1], downsample_in_bottleneck=True),
}


def theirs_of(config, seed: int = 0):
    """With random weights and statistics."""
    torch.manual_seed(seed)
    model = transformers.ResNetModel(config).eval()
    for name, x in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith(("running_var", "normalization.weight")):
            x.data.uniform_(0.5, 1.5)
        elif name.endswith("num_batches_tracked"):
            x.data.fill_(12345 + seed)
        elif x.ndim == 1:
            x.data.normal_(0, 0.2)
    return model


def ours_of(options, channels):
    module = make_tower("m", options, {"kind": "image"})
    value = jax.ShapeDtypeStruct((1, 32, 32, channels), np.float32)
    tree = jax.eval_shape(lambda x: unbox(module.init(jax.random.key(0), x)), value)
    return module, {path: leaf.shape for path, leaf in flatten(tree).items()}


def state_of(model) -> dict[str, np.ndarray]:
    return {key: x.detach().numpy() for key, x in model.state_dict().items()}


def assert_same_state(a, b):
    assert a.keys() == b.keys()
    for key, x in a.items():
        assert x.dtype == b[key].dtype and x.shape == b[key].shape, key
        assert x.tobytes() == b[key].tobytes(), key


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_weights_agree_in_both_directions(rng, case):
    config = transformers.ResNetConfig(num_channels=2, embedding_size=8, **CASES[case])
    theirs = theirs_of(config)
    module, shapes = ours_of(options_of_config(config.to_dict()), 2)
    x = rng.normal(size=(3, 40, 36, 2)).astype(np.float32)
    apply = jax.jit(module.apply)

    def assert_equal_outputs(model, variables):
        with torch.no_grad():
            want = model(torch.from_numpy(x).permute(0, 3, 1, 2))
        found = apply(variables, x)
        tokens = want.last_hidden_state.flatten(2).transpose(1, 2)
        assert np.abs(found.tokens - tokens.numpy()).max() <= PARITY
        assert np.abs(found.pooled - want.pooler_output.flatten(1).numpy()).max() <= PARITY

    variables = to_flax(state_of(theirs), HUGGING_FACE, shapes)
    assert_equal_outputs(theirs, variables)
    back = to_torch(variables, HUGGING_FACE)
    assert_same_state(back, state_of(theirs))

    fresh = to_flax(state_of(theirs_of(config, 1)), HUGGING_FACE, shapes)
    written = config_of(module.config, 2)
    again = transformers.ResNetModel(transformers.ResNetConfig(**written)).eval()
    state = {key: torch.from_numpy(x) for key, x in to_torch(fresh, HUGGING_FACE).items()}
    again.load_state_dict(state, strict=True)
    assert_equal_outputs(again, fresh)


@pytest.mark.parametrize("variant", ["18", "34", "50", "101", "152"])
def test_published_sizes_have_the_weights_of_hugging_face(variant):
    module, shapes = ours_of({"name": "resnet", "variant": variant}, 3)
    with torch.device("meta"):
        theirs = transformers.ResNetModel(transformers.ResNetConfig(**config_of(module.config, 3)))
    keys = {}
    for path in shapes:
        (key,) = {k for r in HUGGING_FACE if (k := r.torch_key(path)) is not None}
        keys[key] = int(np.prod(shapes[path]))
    assert keys == {key: x.numel() for key, x in theirs.state_dict().items()}


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("prefix", ["", "img_encoder_q.model"])
def test_torchvision_names_survive_both_directions(rng, block, prefix):
    options = {"name": "resnet", "block": block, "depths": (1, 2, 1, 1), "stem": 8}
    _, shapes = ours_of(options, 3)
    rules = under("", prefix, TORCHVISION)
    flat = {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
    flat |= {path: np.int32(7) for path in flat if path.endswith("batches")}
    state = to_torch(flat, rules)
    assert len(state) == len(flat)
    back = flatten(to_flax(state, rules, shapes))
    assert_same_state({k: back[k] for k in flat}, {k: np.asarray(v) for k, v in flat.items()})
    plain = {key.removeprefix(f"{prefix}."): x for key, x in state.items()}
    assert {"conv1.weight", "bn1.running_var", "layer2.1.conv2.weight", "layer4.0.downsample.1.bias"} <= plain.keys()
    found = options_of_shapes({key: x.shape for key, x in plain.items()})
    assert ours_of(found, 3)[1] == shapes and found["depths"] == options["depths"]


def test_states_without_counters_read_as_zero():
    old = {"bn1.running_mean": np.ones(2), "bn2.running_mean": np.ones(2), "bn2.num_batches_tracked": np.int64(5)}
    new = with_counters(old)
    assert new["bn1.num_batches_tracked"] == 0 and new["bn2.num_batches_tracked"] == 5
    assert new.keys() == old.keys() | {"bn1.num_batches_tracked"}


def test_what_cannot_be_read_or_written_is_named():
    with pytest.raises(UserError, match="hidden_act='gelu'"):
        options_of_config({"hidden_act": "gelu"})
    with pytest.raises(UserError, match=r"layer1 to layer4, got conv1\.weight, blocks\.0"):
        options_of_shapes({"conv1.weight": (4,), "blocks.0": (2,)})
    with pytest.raises(UserError, match="norm='group'"):
        config_of(make_tower("m", {"name": "resnet", "norm": "group"}, {"kind": "image"}).config, 3)
