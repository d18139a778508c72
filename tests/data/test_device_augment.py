"""Augmentation on the device: what is mixed with what, labels by the share kept, rows independent of the rest."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.data import Batch, Items
from medjax.data.device_augment import DeviceConfig, augment
from medjax.errors import UserError
from medjax.sharding import MeshConfig, batch_sharding, make_mesh

B, SIZE = 8, 16


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Row b is a picture of the constant b + 1 with label b of B known and 1; row 3 has no picture."""
    value = np.broadcast_to(np.arange(1, B + 1, dtype=np.float32)[:, None, None, None, None], (B, 1, SIZE, SIZE, 1))
    mask = np.ones((B, 1), bool)
    mask[3] = False
    labels = np.eye(B, dtype=np.float32)
    known = np.ones((B, B), bool)
    known[5] = False
    value = np.where(mask[..., None, None, None], value, 0)
    row = np.arange(B, dtype=np.int32)
    targets = {"labels": labels * known, "labels_mask": known}
    return Batch({"image": Items(value, mask)}, {}, np.zeros(B, np.float32), np.ones(B, bool), targets, row)


CONFIGS = {
    **{name: DeviceConfig(**{name: 1.0}) for name in ("mixup", "cutmix", "yoco", "cropmix", "augmix")},
    "cutout": DeviceConfig(cutout=0.5),
}


@pytest.fixture(scope="module")
def run():
    """All of `CONFIGS` at once, compiled once for all tests on one device."""
    return jax.jit(lambda batch, key: {k: augment(batch, {"image": c}, key) for k, c in CONFIGS.items()})


KEY = jax.random.key(1)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_labels_are_mixed_by_the_share_of_the_picture_that_is_kept(run, batch, name):
    out = run(batch, KEY)[name]
    x, labels, known = (np.asarray(v) for v in (out.items["image"].value, *out.targets.values()))
    mixed = 0
    for b in range(B):
        if b == 3 or not known[b].any():
            continue
        shares = np.flatnonzero(labels[b])
        assert labels[b].sum() == pytest.approx(1, abs=1e-6)
        # Mean of the constants in the picture, by the shares that the labels say.
        assert x[b].mean() == pytest.approx((labels[b] * np.arange(1, B + 1)).sum(), rel=1e-5)
        mixed += len(shares) == 2
        if name == "cutmix":
            assert set(np.unique(x[b])) <= {float(s + 1) for s in shares}
    assert mixed >= 4
    assert not x[3].any()


def test_rows_without_a_partner_and_labels_without_a_known_one_stay_or_are_masked(run, batch):
    out = run(batch, KEY)["mixup"]
    everything = replace(batch, targets={"labels": np.eye(B, dtype=np.float32), "labels_mask": np.ones((B, B), bool)})
    mixed = np.asarray(run(everything, KEY)["mixup"].targets["labels"])
    (shift,) = {(s - b) % B for b in range(B) for s in np.flatnonzero(mixed[b]) if s != b}
    known = np.asarray(out.targets["labels_mask"])
    before = (3 - shift) % B
    np.testing.assert_array_equal(out.items["image"].value[before], batch.items["image"].value[before])
    np.testing.assert_array_equal(out.targets["labels"][before], batch.targets["labels"][before])
    with_unknown = (5 - shift) % B
    assert with_unknown != 3, "take another key: the row without a picture is mixed with none"
    assert not known[5].any() and not known[with_unknown].any()
    assert known.any(1).sum() == B - 2


def test_cutout_zeroes_one_square_of_the_size_asked_for_or_less(run, batch):
    x = np.asarray(run(batch, KEY)["cutout"].items["image"].value)[:, 0, :, :, 0]
    holes = [(x[b] == 0) for b in range(B) if b != 3]
    for hole in holes:
        assert 0 < hole.sum() <= (SIZE // 2 + 1) ** 2
        assert hole.sum() == hole.any(0).sum() * hole.any(1).sum()  # a box
    assert len({hole.tobytes() for hole in holes}) > 3


@pytest.mark.parametrize("name", ["yoco", "cropmix", "augmix"])
def test_operators_that_keep_labels_change_pictures_only(run, batch, name):
    ramp = np.broadcast_to(np.linspace(-1, 1, SIZE, dtype=np.float32)[:, None], (B, 1, SIZE, SIZE))[..., None]
    mask = batch.items["image"].mask
    ramps = replace(batch, items={"image": Items(ramp * mask[..., None, None, None], mask)})
    out = run(ramps, KEY)[name]
    x = np.asarray(out.items["image"].value)
    changed = np.abs(x - ramps.items["image"].value).reshape(B, -1).max(1) > 1e-4
    assert changed.sum() >= B - 2 and not changed[3] and np.isfinite(x).all() and np.abs(x).max() < 3
    for k, v in batch.targets.items():
        np.testing.assert_array_equal(out.targets[k], v)


def test_a_row_draws_by_its_place_in_the_global_batch(run, batch):
    backwards = jax.tree.map(lambda x: np.ascontiguousarray(x[::-1]), batch)
    there, back = run(batch, KEY), run(backwards, KEY)
    for name in ("yoco", "cropmix", "augmix", "cutout"):
        expected = np.asarray(there[name].items["image"].value)[::-1]
        np.testing.assert_array_equal(back[name].items["image"].value, expected)
    other = run(batch, jax.random.key(2))
    assert not np.array_equal(other["cutout"].items["image"].value, there["cutout"].items["image"].value)


def test_the_number_of_devices_changes_nothing(run, batch):
    mesh = make_mesh(MeshConfig(), jax.devices()[:2])
    spread = jax.device_put(batch, batch_sharding(mesh))
    got = jax.jit(lambda b: augment(b, {"image": CONFIGS["cutmix"]}, KEY))(spread)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, run(batch, KEY)["cutmix"])


def test_options_that_make_no_sense_are_refused(batch):
    with pytest.raises(UserError, match=r"cutout=1\.5"):
        DeviceConfig(cutout=1.5)
    with pytest.raises(UserError, match="mixes two modalities"):
        augment(batch, {"a": DeviceConfig(mixup=1.0), "b": DeviceConfig(cutmix=1.0)}, jax.random.key(0))
    signal = replace(batch, items={"ecg": Items(jnp.zeros((B, 1, 12, 50)), np.ones((B, 1), bool))})
    with pytest.raises(UserError, match="for pictures"):
        augment(signal, {"ecg": DeviceConfig(cutout=0.5)}, jax.random.key(0))
