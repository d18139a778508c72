"""Starting from another run's parameters takes what is named and nothing else."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import UserError
from medjax.models.positions import resize_positions
from medjax.training.warm_start import take_weights

HERE = {"towers": {"image": {"w": jnp.zeros((2, 3))}, "text": {"w": jnp.zeros(4)}}, "heads": {"image": jnp.zeros(2)}}
THERE = {"towers": {"image": {"w": np.ones((2, 3))}}, "heads": {"image": np.ones(2)}, "decoders": {"w": np.ones(1)}}


def test_matching_parameters_are_taken_and_others_left():
    out, state = take_weights((HERE, {"queue": 1}), (THERE, {}), "towers/.*")
    assert state == {"queue": 1}
    assert np.all(np.asarray(out["towers"]["image"]["w"]) == 1)
    assert np.all(np.asarray(out["towers"]["text"]["w"]) == 0)
    assert np.all(np.asarray(out["heads"]["image"]) == 0)
    assert out["towers"]["image"]["w"].dtype == jnp.float32


def test_other_shapes_are_named():
    other = {"towers": {"image": {"w": np.ones((2, 5))}}}
    with pytest.raises(UserError, match=r"towers/image/w: \[2, 5\] there, \[2, 3\] here"):
        take_weights((HERE, {}), (other, {}), "towers/.*")


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(UserError, match=r"include='backbone/\.\*' matches no parameter"):
        take_weights((HERE, {}), (THERE, {}), "backbone/.*")


def test_running_statistics_follow_the_parameters_of_their_tower():
    here, there = (
        {"batch_stats": {"image": {"mean": one(2)}, "ecg": {"mean": one(3)}}} for one in (jnp.zeros, np.ones)
    )
    _, state = take_weights((HERE, here), (THERE, there), "towers/image/.*")
    assert np.all(np.asarray(state["batch_stats"]["image"]["mean"]) == 1)
    assert np.all(np.asarray(state["batch_stats"]["ecg"]["mean"]) == 0)
    _, state = take_weights((HERE, here), (THERE, {}), "towers/.*")
    assert np.all(np.asarray(state["batch_stats"]["image"]["mean"]) == 0)


def test_the_report_names_every_path_once(tmp_path):
    there = {**THERE, "towers": {**THERE["towers"], "ecg": {"w": np.ones(5)}}}
    take_weights((HERE, {}), (there, {}), "towers/.*", report=tmp_path / "warm_start.json")
    report = json.loads((tmp_path / "warm_start.json").read_text())
    assert report["loaded"] == ["towers/image/w"]
    assert report["missing"] == ["towers/text/w"]
    assert report["not_asked_for"] == ["heads/image"]
    assert report["unused"] == ["decoders/w", "heads/image", "towers/ecg/w"]
    assert report["counts"] == {
        "loaded": 1, "resized": 0, "missing": 1, "not_asked_for": 1, "unused": 3, "misshapen": 0,
    }  # fmt: skip
    assert (report["include"], report["asked_for_by"]) == ("towers/.*", "config.warm_start")


def test_the_report_is_there_also_where_shapes_differ_and_all_are_named(tmp_path):
    there = {"towers": {"image": {"w": np.ones((2, 5))}, "text": {"w": np.ones(3)}}, "heads": {"image": np.ones(2)}}
    with pytest.raises(UserError, match=r"towers/image/w: \[2, 5\] there.*towers/text/w: \[3\] there, \[4\] here"):
        take_weights((HERE, {}), (there, {}), ".*", report=tmp_path / "warm_start.json")
    report = json.loads((tmp_path / "warm_start.json").read_text())
    assert report["misshapen"] == {"towers/image/w": [[2, 5], [2, 3]], "towers/text/w": [[3], [4]]}


def test_positions_are_fitted_to_another_grid_only_when_both_grids_are_given():
    table = np.random.default_rng(0).normal(size=(1, 4, 3)).astype(np.float32)
    here = {"towers": {"image": {"positions": jnp.zeros((1, 16, 3)), "w": jnp.zeros(2)}}}
    there = {"towers": {"image": {"positions": table, "w": np.ones(2)}}}
    with pytest.raises(UserError, match=r"positions: \[1, 4, 3\] there.*resize_positions=True"):
        take_weights((here, {}), (there, {}), ".*")
    out, _ = take_weights((here, {}), (there, {}), ".*", grids=({"image": (4, 4)}, {"image": (2, 2)}))
    want = resize_positions(jnp.asarray(table[0]), (2, 2), (4, 4))
    np.testing.assert_array_equal(out["towers"]["image"]["positions"][0], want)
    with pytest.raises(UserError, match="shapes differ"):  # the table there is not of the grid that is said
        take_weights((here, {}), (there, {}), ".*", grids=({"image": (4, 4)}, {"image": (3, 2)}))


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"include='towers/\(' is not a regular expression"):
        take_weights((HERE, {}), (THERE, {}), "towers/(")
