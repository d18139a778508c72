"""Every kind of encoder gets explanations that fit it, on the raw items' own geometry, and the same in any batch."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from medjax.data.batch import Batch, Items
from medjax.data.manifest import Modality
from medjax.data.transforms.ecg import EcgConfig, EcgTransform
from medjax.data.transforms.image import ImageConfig, ImageTransform
from medjax.data.transforms.labs import LabsConfig, LabsTransform
from medjax.data.transforms.volume import VolumeConfig, VolumeTransform
from medjax.data.volumes import Volume
from medjax.evaluation.explain.explainer import EXPLANATIONS, Explainer, Item
from medjax.methods import make_method
from medjax.models.inspection import plain

BLOCKS = {"width": 8, "depth": 1, "heads": 2}
RESIDUAL = {"stem": 4, "block": "basic", "depths": (1, 1, 1, 1)}
TOWERS = {
    "image": {"name": "resnet", **RESIDUAL, "remat": "full"},
    "ecg": {"name": "ecg_vit", "patch": 10, "tokens": "lead_time", "scan": True, "remat": "full", **BLOCKS},
    "labs": {"name": "labs_transformer", **BLOCKS},
    "volume": {"name": "vit", "patch": 4, "frames": 2, "depth_grid": 2, "dtype": "bfloat16", **BLOCKS},
}
NAMES = ("crp", "urea", "sodium")
SEEN = {  # of 3 items each: the shape, and how many of its numbers the encoder sees
    "image": [((40, 64), 40 * 64), ((64, 40), 64 * 40), ((32, 32), 1024)],
    "ecg": [((2, 60), 100), ((2, 60), 50), ((2, 60), 100)],  # of the second one lead was not recorded
    "labs": [((3,), 3), ((3,), 2), ((3,), 3)],
    "volume": [((5, 9, 8), 360)] * 3,
}


@pytest.fixture(scope="module")
def explainer():
    statistics = {n: (0.0, 1.0, -3.0, 3.0, 1.0) for n in NAMES}
    schemas = {
        "ecg": Modality("ecg", ("I", "II"), ("mV",) * 2, 100),
        "labs": Modality("labs", NAMES, ("",) * 3, statistics=statistics),
    }
    transforms = {
        "image": ImageTransform(ImageConfig(size=64)),
        "ecg": EcgTransform.create(EcgConfig(samples=50, lead_mask=True), schemas["ecg"], None),
        "labs": LabsTransform.create(LabsConfig(), schemas["labs"], None),
        "volume": VolumeTransform(VolumeConfig(size=(4, 8, 8), fit="stretch")),
    }
    specs = {m: t.spec() for m, t in transforms.items()}
    method = make_method(
        {"name": "contrastive", "towers": TOWERS, "embed_dim": 6, "objectives": {"info_nce": {}}}, specs
    )
    values = {m: jax.tree.map(lambda x: np.asarray(x)[None, None], t.empty()) for m, t in transforms.items()}
    items = {m: Items(x, np.ones((1, 1), bool)) for m, x in values.items()}
    batch = Batch(items, {}, np.zeros(1, np.float32), np.ones(1, bool), {}, np.zeros(1, np.int32))
    shapes, rng = jax.eval_shape(method.init, jax.random.key(0), batch), np.random.default_rng(0)
    params, state = jax.tree.map(lambda x: (0.3 * rng.normal(size=x.shape)).astype(x.dtype), shapes)
    modules = {m: plain(x) for m, x in method.towers.modules.items()}
    method = replace(method, towers=replace(method.towers, modules=modules))

    def encode(params, batch):
        return method.encode(*params, batch.only_valid(), None, False)

    return Explainer(encode, modules, transforms, (params, jax.tree.map(np.abs, state)), batch_size=2)


def items_of(modality: str) -> list[Item]:
    rng = np.random.default_rng(1)
    if modality == "image":
        raws = [rng.integers(0, 255, shape).astype(np.uint8) for shape, _ in SEEN["image"]]
    elif modality == "volume":
        raws = [Volume(rng.normal(size=shape).astype(np.float32), (2.0, 1.0, 1.0)) for shape, _ in SEEN["volume"]]
    else:
        raws = [rng.normal(size=shape).astype(np.float32) for shape, _ in SEEN[modality]]
        raws[1][1] = np.nan
    return [Item(10 + i, raw) for i, raw in enumerate(raws)]


FITTING = {
    "image": ["similarity", "grad_cam"],
    "ecg": ["similarity", "gradient_attention"],
    "labs": ["gradient_attention"],
    "volume": ["rollout", "m2ib"],
}


@pytest.mark.parametrize("modality", TOWERS)
def test_maps_lie_on_the_items_as_they_came_whatever_the_batch(explainer, modality):
    items, target = items_of(modality), np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32)
    for method in FITTING[modality]:
        found = explainer.maps(modality, method, items, target)  # two batches, the second padded
        for map_, (shape, seen) in zip(found, SEEN[modality], strict=True):
            assert map_.shape == shape and np.isfinite(map_).sum() == seen
        alone = explainer.maps(modality, method, items[2:], target[2:])[0]
        np.testing.assert_allclose(found[2], alone, atol=1e-4 * np.nanmax(np.abs(alone)))


def test_explanations_that_do_not_fit_are_left_out_but_never_all(explainer):
    assert explainer.fitting("image", ("rollout", "grad_cam", "m2ib")) == ["grad_cam", "m2ib"]
    assert explainer.fitting("ecg", list(EXPLANATIONS)) == [k for k in EXPLANATIONS if k != "grad_cam"]
    assert explainer.fitting("image", ("rollout",)) == ["integrated_gradients"]


def test_another_encoder_of_the_same_shapes_shares_the_programs(explainer):
    items, target = items_of("labs"), np.ones((3, 6), np.float32)
    params, state = explainer._params
    other = explainer.of((jax.tree.map(lambda x: 2 * x, params), state))
    first = explainer.tokens("labs", "gradient_attention", items, target)
    assert np.nanmax(np.abs(other.tokens("labs", "gradient_attention", items, target) - first)) > 1e-6
    assert other._compiled is explainer._compiled
