"""The error of hidden patches against float64 arithmetic, and against values found by hand."""

import jax
import numpy as np
import pytest

from medjax.losses.reconstruction import hidden_patch_error, normalised_patches

FLOAT32 = 1e-6


def reference(predicted, patches, hidden) -> list[float]:
    """Patch by patch, in float64."""
    out = []
    for guess, truth, row in zip(predicted.astype(float), patches.astype(float), hidden, strict=True):
        errors = [
            np.mean((g - (t - t.mean()) / np.sqrt(np.mean((t - t.mean()) ** 2) + 1e-6)) ** 2)
            for g, t, away in zip(guess, truth, row, strict=True)
            if away
        ]
        out.append(np.mean(errors) if errors else 0.0)
    return out


@pytest.fixture
def arrays(rng):
    """Predictions and patches float32[3, 5, 4], and what is hidden: three patches, one, and none."""
    predicted, patches = rng.normal(size=(2, 3, 5, 4)).astype(np.float32)
    hidden = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1], [0] * 5], bool)
    return predicted, 100 + 3 * patches, hidden


def test_value_equals_the_reference(arrays):
    predicted, patches, hidden = arrays
    value = hidden_patch_error(predicted, normalised_patches(patches), hidden)
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, reference(*arrays), rtol=1e-4)  # patches at 100 +- 3 keep five digits


def test_gradient_is_twice_the_difference_at_hidden_patches_alone(arrays):
    predicted, target, hidden = arrays
    gradient = jax.grad(lambda x: hidden_patch_error(x, target, hidden).sum())(predicted)
    share = hidden / np.maximum(hidden.sum(axis=1, keepdims=True), 1) / 4
    np.testing.assert_allclose(gradient, 2 * (predicted - target) * share[..., None], rtol=1e-5)


def test_patches_by_hand():
    found = normalised_patches(np.array([[[1.0, 3.0], [5.0, 5.0]]]))
    np.testing.assert_allclose(found, [[[-1, 1], [0, 0]]], atol=FLOAT32)
    # Of one patch the error is 4 and 0, of the other, which is seen, it does not matter.
    error = hidden_patch_error(np.array([[[-1.0, 1.0], [9.0, 9.0]]]), np.ones((1, 2, 2)), np.array([[True, False]]))
    np.testing.assert_allclose(error, [2.0], atol=FLOAT32)


def test_brightness_and_contrast_of_a_patch_are_not_asked_for(rng):
    x = rng.normal(size=(2, 3, 8)).astype(np.float32)
    np.testing.assert_allclose(normalised_patches(0.5 * x + 7), normalised_patches(x), atol=1e-5)
