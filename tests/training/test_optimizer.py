"""Schedules, and which parameters decay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.training.optimizer import OptimizerConfig, decays, make_optimizer, make_schedule


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_a_schedule_warms_up_peaks_and_ends_where_it_should(kind):
    config = OptimizerConfig(lr=0.4, schedule=kind, final_lr_fraction=0.25)
    schedule = make_schedule(config, total_steps=100, warmup_steps=10)
    np.testing.assert_allclose([schedule(0), schedule(5), schedule(10)], [0.0, 0.2, 0.4], rtol=1e-6)
    np.testing.assert_allclose(schedule(55), 0.4 * (0.25 + 0.75 * 0.5), rtol=1e-6)  # half-way is half-way in both
    np.testing.assert_allclose(schedule(100), 0.1, rtol=1e-6)


def test_only_matrices_decay_and_no_positions_tokens_biases_norms_or_scales():
    params = {
        "towers": {
            "image": {
                "patch_embed": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)},
                "positions": jnp.ones((1, 5, 4)),
                "cls": jnp.ones((1, 1, 4)),
                "norm": {"scale": jnp.ones(4), "bias": jnp.ones(4)},
            }
        },
        "objectives": {"info_nce": {"log_scale": jnp.float32(1.0)}},
    }
    config = OptimizerConfig(lr=0.1, weight_decay=0.5, clip_norm=0.0)
    mask = decays(config, params)
    decayed = [jax.tree_util.keystr(p) for p, x in jax.tree_util.tree_leaves_with_path(mask) if x]
    assert decayed == ["['towers']['image']['patch_embed']['kernel']"]
    # With no gradient at all, decay alone moves what it should, by lr * weight_decay, and nothing else.
    tx = make_optimizer(config, lambda step: 0.1)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["towers"]["image"]["patch_embed"]["kernel"], -0.05, rtol=1e-6)
    assert all(np.all(np.asarray(u) == 0) for u in jax.tree.leaves(updates) if u.shape != (3, 4))


def test_the_gradient_is_clipped_as_a_whole():
    params = {"a": jnp.zeros((2, 2)), "b": jnp.zeros((2, 2))}
    big = {"a": jnp.full((2, 2), 30.0), "b": jnp.full((2, 2), 40.0)}
    clipped = make_optimizer(OptimizerConfig(clip_norm=1.0, eps=1.0), lambda step: 1.0)
    free = make_optimizer(OptimizerConfig(clip_norm=0.0, eps=1.0), lambda step: 1.0)
    norm = float(jnp.sqrt(4 * 30.0**2 + 4 * 40.0**2))
    small = jax.tree.map(lambda g: g / norm, big)
    got, _ = clipped.update(big, clipped.init(params), params)
    want, _ = free.update(small, free.init(params), params)
    for k in params:
        np.testing.assert_allclose(got[k], want[k], rtol=1e-5)
