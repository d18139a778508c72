"""Positions on other grids, against PyTorch's interpolation, and fixed ones."""

import numpy as np
import pytest

from medjax.models.positions import cubic_weights, resize_positions, sincos_positions


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("new", [(5, 7), (2, 3), (9, 2)])
def test_resizing_is_pytorchs(rng, new, antialias):
    torch = pytest.importorskip("torch")
    table = rng.normal(size=(4 * 6, 3)).astype(np.float32)
    picture = torch.tensor(table.reshape(1, 4, 6, 3)).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(picture, new, mode="bicubic", align_corners=False, antialias=antialias)
    got = resize_positions(table, (4, 6), new, antialias)
    np.testing.assert_allclose(got, want.permute(0, 2, 3, 1).reshape(-1, 3).numpy(), atol=2e-6)


def test_the_same_grid_is_left_alone(rng):
    table = rng.normal(size=(6, 3)).astype(np.float32)
    assert resize_positions(table, (2, 3), (2, 3)) is table


@pytest.mark.parametrize("antialias", [False, True])
def test_weights_sum_to_one(antialias):
    for old, new in ((4, 9), (9, 4), (1, 3), (3, 1)):
        np.testing.assert_allclose(cubic_weights(old, new, antialias).sum(axis=1), 1.0, atol=1e-6)


def test_sines_and_cosines_tell_all_cells_apart():
    table = sincos_positions((3, 4, 5), 32)
    assert table.shape == (60, 32) and np.abs(table).max() <= 1.0
    distance = np.linalg.norm(table[:, None] - table[None], axis=-1) + 10 * np.eye(60)
    assert distance.min() > 0.01
    np.testing.assert_array_equal(sincos_positions((1, 1), 8), [[0, 0, 1, 1, 0, 0, 1, 1]])
