"""Scores of many maps: means by hand, patients in the intervals, thresholds that never come from the scored split."""

import numpy as np
import pytest

from medjax.evaluation import grounding
from medjax.evaluation.bootstrap import patient_weights
from medjax.evaluation.grounding_scores import METRICS, gain, macro, score

SHAPE = (6, 7)


@pytest.fixture
def studies(rng):
    """Twelve maps, higher inside by as much as noise, of five patients."""
    regions = [np.zeros(SHAPE, bool) for _ in range(12)]
    for i, r in enumerate(regions):
        r[i % 4 : i % 4 + 3, 1:4] = True
    maps = [rng.normal(size=SHAPE) + r for r in regions]
    return maps, regions, patient_weights(np.arange(12) % 5, 50)


def test_every_metric_is_its_mean_over_the_studies(studies):
    maps, regions, weights = studies
    found = score(maps, regions, weights, None)
    for name, measure in METRICS.items():
        each = np.array([measure(m, r) for m, r in zip(maps, regions, strict=True)])
        expected = (weights @ each) / weights.sum(axis=1)
        np.testing.assert_allclose(found.replicates[name], expected, rtol=1e-12)
    assert found.interval("dice") is None and found.threshold is None
    assert found.interval("pointing_chance").value == pytest.approx(9 / 42)


def test_dice_takes_the_threshold_of_the_validation_split(studies, rng):
    maps, regions, weights = studies
    validation = [10 * (r + 0.01 * rng.random(SHAPE)) for r in regions], regions  # on another scale
    found = score(maps, regions, weights, validation)
    assert 0.1 <= found.threshold < 10 and found.interval("dice").value < found.interval("dice_oracle").value
    own = score(maps, regions, weights, (maps, regions))
    np.testing.assert_array_equal(own.replicates["dice"], own.replicates["dice_oracle"])
    expected = np.mean([grounding.overlaps(m, r, [own.oracle])[1][0] for m, r in zip(maps, regions, strict=True)])
    np.testing.assert_allclose(own.interval("dice").value, expected, rtol=1e-12)


def test_studies_without_a_value_do_not_count(studies):
    maps, regions, weights = studies
    blind = [np.full(SHAPE, np.nan), *maps[1:]]
    found, rest = score(blind, regions, weights, None), score(maps[1:], regions[1:], weights[:, 1:], None)
    for name in METRICS:
        np.testing.assert_allclose(found.replicates[name], rest.replicates[name], rtol=1e-12)
    nothing = score([blind[0]], regions[:1], weights[:, :1], (blind[:1], regions[:1]))
    assert nothing.oracle is None and nothing.as_dict()["pointing"]["value"] is None


def test_gains_are_paired_and_the_macro_is_the_mean_of_findings(studies):
    maps, regions, weights = studies
    one, other = score(maps, regions, weights, None), score([-m for m in maps], regions, weights, None)
    np.testing.assert_allclose(
        gain(one, other, "pixel_auroc").value, 2 * one.interval("pixel_auroc").value - 1, rtol=1e-9
    )
    assert gain(one, one, "pointing").high == 0
    both = macro([one, other])
    assert both.examples == 24
    expected = (one.replicates["mean_iou"] + other.replicates["mean_iou"]) / 2
    np.testing.assert_allclose(both.replicates["mean_iou"], expected, rtol=1e-12)
