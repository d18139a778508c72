"""Named sizes: each makes the model that was published."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import UserError
from medjax.models import TOWERS, make_tower
from medjax.models.partitioning import unbox
from medjax.models.sizes import SIZES

SPECS = {
    "image": ({"kind": "image"}, {"value": jnp.zeros((1, 224, 224, 3))}),
    "ecg": ({"kind": "ecg"}, {"value": jnp.zeros((1, 12, 1008))}),
    "text": ({"kind": "text", "vocab_size": 30522}, {"tokens": jnp.zeros((1, 8), int)}),
    "labs": ({"kind": "labs"}, {"value": jnp.zeros((1, 50))}),
}
# Parameters in millions, as their papers or the released weights have them, without classification heads: ViT-Ti/16,
# S/16, B/16, L/16, H/14, DINOv2 g/14, BERT base and large, ResNets 18, 34 and 50.
PUBLISHED = {
    ("vit", "Ti/16"): 5.5,
    ("vit", "S/16"): 21.7,
    ("vit", "B/16"): 85.8,
    ("vit", "L/16"): 303.3,
    ("vit", "H/14"): 630.8,
    ("vit", "dinov2_g/14"): 1136.5,
    ("bert", "base"): 108.9,
    ("bert", "large"): 334.1,
    ("resnet", "18"): 11.2,
    ("resnet", "34"): 21.3,
    ("resnet", "50"): 23.5,
}


def parameters(tower, variant):
    spec, value = SPECS[TOWERS[tower][2][0]]
    module = make_tower("m", {"name": tower, "variant": variant}, spec)
    tree = jax.eval_shape(lambda: unbox(module.init(jax.random.key(0), **value)))["params"]
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(("tower", "variant"), PUBLISHED)
def test_published_sizes_have_their_number_of_parameters(tower, variant):
    millions = parameters(tower, variant) / 1e6
    # Biases, positions and segment tables that a release has or lacks are under one per cent.
    assert abs(millions / PUBLISHED[tower, variant] - 1) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("tower", "variant"), [(t, v) for t, sizes in SIZES.items() for v in sizes])
def test_every_named_size_is_a_model(tower, variant):
    assert parameters(tower, variant) > 10_000


def test_further_options_change_a_named_size():
    module = make_tower("m", {"name": "vit", "variant": "B/32", "depth": 3}, {"kind": "image"})
    assert (module.config.width, module.config.patch, module.config.depth) == (768, 32, 3)


def test_an_unknown_size_is_named():
    with pytest.raises(UserError, match=r"config.method.towers.m.variant 'XL'.*valid"):
        make_tower("m", {"name": "vit", "variant": "XL/16"}, {"kind": "image"})
