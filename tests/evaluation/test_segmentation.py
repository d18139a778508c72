"""Masks go to the encoder's grid and back, Dice is what it is by hand, and a head learns what can be seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.data.transforms.volume import VolumeConfig, VolumeTransform
from medjax.data.volumes import Volume
from medjax.evaluation import segmentation
from medjax.evaluation.bootstrap import patient_weights
from medjax.evaluation.explain.geometry import placements
from medjax.models.segmentation_head import upsampling


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_mask_lies_where_its_volume_lies(rng, fit):
    """The volume is its own mask: what the encoder sees of it says what the mask must be."""
    mask = np.zeros((9, 14, 11), np.uint8)
    mask[2:6, 3:9, 4:10] = 1
    transform = VolumeTransform(
        VolumeConfig(size=(12, 12, 12), fit=fit, scaling="window", window=(0, 1), mean=0, std=1)
    )
    volume = Volume(mask.astype(np.float32), (1.0, 1.0, 1.0))
    seen = transform.finish(transform.prepare(volume), None)[..., 0]
    places = placements(transform, volume)
    found = segmentation.to_encoder(mask, places)
    certain = (found >= 0) & ((seen < 0.25) | (seen > 0.75))
    assert certain.mean() > 0.4
    np.testing.assert_array_equal(found[certain] == 1, seen[certain] > 0.5)


def test_there_and_back_nothing_moves(rng):
    mask = rng.integers(0, 3, (9, 8, 11)).astype(np.uint8)
    transform = VolumeTransform(VolumeConfig(size=(12, 12, 12), fit="crop"))
    places = placements(transform, Volume(mask, (1.0, 1.0, 1.0)))
    there = segmentation.to_encoder(mask, places)
    assert (there == segmentation.IGNORED).sum() == 12**3 - mask.size
    np.testing.assert_array_equal(segmentation.to_original(np.maximum(there, 0), places), mask)


def test_dice_is_that_of_the_definition():
    truth, found = [np.array([1, 1, 0, 0, 2]), np.array([0, 0])], [np.array([1, 0, 1, 0, 2]), np.array([0, 0])]
    values = segmentation.dice(found, truth, 4)
    np.testing.assert_array_equal(values[0], [0.5, 1.0, np.nan])
    assert np.isnan(values[1]).all()  # neither has any of it: nothing to be right about
    intervals = segmentation.dice_intervals(values, patient_weights(np.arange(2), 10))
    assert [i.value for i in intervals[:2]] == [0.5, 1.0] and np.isnan(intervals[2].value)
    assert intervals[3].value == 0.75


def test_the_loss_is_that_of_float64_numpy(rng):
    logits, targets = rng.standard_normal((2, 3, 4, 3)), rng.integers(-1, 3, (2, 3, 4))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    known = targets >= 0
    entropy = -np.log(p[known, targets[known]]).mean()
    soft = [
        (2 * p[known & (targets == k), k].sum() + 1) / (p[known, k].sum() + (targets == k).sum() + 1) for k in (1, 2)
    ]
    found = segmentation.loss(jnp.asarray(logits, jnp.float32), jnp.asarray(targets))
    np.testing.assert_allclose(found, entropy + 1 - np.mean(soft), rtol=1e-5)
    changed = np.where(known[..., None], logits, 9.0)
    np.testing.assert_allclose(segmentation.loss(jnp.asarray(changed, jnp.float32), jnp.asarray(targets)), found)


def test_patches_of_intensities_are_those_of_the_picture(rng):
    x = rng.standard_normal((2, 4, 6, 1)).astype(np.float32)
    found = segmentation.raw_patches(x, (2, 3))
    np.testing.assert_array_equal(found[1, 1, 2], x[1, 2:4, 4:6, 0].ravel())


def test_layers_enlarge_to_the_size_of_the_picture():
    assert upsampling((6, 7, 5), (48, 56, 40)) == [(2, 2, 2)] * 3
    assert upsampling((4, 2), (4, 12)) == [(1, 2), (1, 3)]
    with pytest.raises(ValueError, match="no multiple"):
        upsampling((3,), (4,))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "unetr"])
def test_a_head_learns_what_the_tokens_say_and_nothing_from_noise(rng, kind):
    """Tokens that hold the class of their patch are read; noise, with pictures of noise, is not."""
    n, size = 24, (8, 8)
    coarse = rng.integers(0, 2, (n, 2, 2))
    masks = coarse.repeat(4, 1).repeat(4, 2)
    tokens = np.eye(3)[coarse + 1].astype(np.float32)
    scores = {}
    for name, grids in (("told", tokens), ("noise", rng.standard_normal(tokens.shape).astype(np.float32))):
        pictures = rng.standard_normal((n, *size, 1)).astype(np.float32)
        places = [tuple(segmentation.Placement(8, 8, 0, 8) for _ in size)] * n
        cut = [slice(0, 12), slice(12, 16), slice(16, 24)]
        train, validation, test = (
            segmentation.Studies(
                pictures[s], grids[s], masks[s].astype(np.int32), list(masks[s]), places[s], np.arange(n)[s]
            )
            for s in cut
        )
        fitted = segmentation.fit(train, validation, 2, kind, steps=40, rate=3e-2, width=4, looks=1)
        scores[name] = np.nanmean(segmentation.dice(fitted.predict(test), test.masks, 2))
    assert scores["told"] > 0.85, scores
    assert scores["noise"] < 0.75, scores
    jax.clear_caches()
