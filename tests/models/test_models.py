"""Towers from configuration: bad options are named."""

import jax
import pytest

from medjax.errors import UserError
from medjax.models import TOWERS, make_tower
from medjax.models.partitioning import logical_specs

SPECS = {
    "image": {"kind": "image"},
    "ecg": {"kind": "ecg"},
    "text": {"kind": "text", "vocab_size": 30},
    "labs": {"kind": "labs"},
    "volume": {"kind": "volume"},
}


@pytest.mark.parametrize(
    ("modality", "options", "named"),
    [
        ("image", {}, ["config.method.towers.image.name is required", "vit"]),
        ("image", {"name": "vti"}, ["vti", "did you mean 'vit'"]),
        ("image", {"name": "bert"}, ["'bert' encodes text", "image is image", "valid: resnet, vit"]),
        ("volume", {"name": "resnet"}, ["'resnet' encodes image", "volume is volume", "valid: vit"]),
        ("volume", {"name": "bert"}, ["'bert' encodes text", "valid: vit"]),
        ("text", {"name": "mlp"}, ["'mlp' encodes labs", "text is text", "valid: bert"]),
        ("image", {"name": "vit", "widht": 3}, ["config.method.towers.image.widht", "did you mean 'width'"]),
        ("image", {"name": "vit", "width": 10, "heads": 4}, ["width=10", "heads=4"]),
        ("text", {"name": "bert", "width": 10, "heads": 4}, ["width=10", "heads=4"]),
        ("image", {"name": "vit", "pool": "max"}, ["pool", "'max'", "cls, mean"]),
        ("ecg", {"name": "ecg_vit", "dtype": "float16"}, ["dtype", "did you mean 'bfloat16'"]),
        ("labs", {"name": "mlp", "hidden": 3}, ["hidden must be a tuple"]),
    ],
)
def test_wrong_options_are_named(modality, options, named):
    with pytest.raises(UserError) as error:
        make_tower(modality, options, SPECS[modality])
    for piece in named:
        assert piece in str(error.value)


def test_vocabulary_comes_from_the_preprocessing():
    assert make_tower("text", {"name": "bert", "vocab_size": 7}, SPECS["text"]).config.vocab_size == 30


def test_every_parameter_of_the_transformers_carries_logical_names():
    """A kernel without names would be placed by its size alone."""
    small = {"width": 8, "depth": 1, "heads": 2}
    values = {
        "image": (
            make_tower("image", {"name": "vit", "patch": 4, **small}, SPECS["image"]),
            {"value": jax.numpy.zeros((1, 8, 8, 1))},
        ),
        "text": (
            make_tower("text", {"name": "bert", **small}, SPECS["text"]),
            {"tokens": jax.numpy.zeros((1, 4), int), "lengths": jax.numpy.ones(1, int)},
        ),
    }
    for module, value in values.values():
        boxed = jax.eval_shape(lambda m=module, v=value: m.init(jax.random.key(0), **v))
        specs = logical_specs(boxed)
        for path, spec in jax.tree_util.tree_leaves_with_path(specs, is_leaf=lambda x: isinstance(x, jax.P)):
            if jax.tree_util.keystr(path).endswith("['kernel']"):
                assert any(spec), path


def test_registry_names_the_kind_that_each_encoder_reads():
    assert {kind for *_, kinds in TOWERS.values() for kind in kinds} == set(SPECS)
