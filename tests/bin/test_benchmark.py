"""The benchmark's contestants compute the same, and one that is not installed is no error."""

import dataclasses
import json
import sys

import pytest
from absl.testing import flagsaver

from medjax.benchmarks import contestants, losses, process, switches
from medjax.bin import benchmark
from medjax.errors import UserError
from medjax.losses import get
from medjax.methods.terms import TermConfig


@pytest.mark.parametrize("comparison", losses.SUITE, ids=lambda c: c.name)
def test_contestants_have_the_same_loss(comparison):
    arrays = contestants.inputs(24, comparison.modalities, 16)
    values = []
    for name in (comparison.ours, comparison.theirs):
        try:
            values.append(contestants.CONTESTANTS[name](arrays)())
        except ModuleNotFoundError as error:
            pytest.skip(f"{error.name} is not installed")
    # Both in float32, over other orders of summation.
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_process_reports_time_memory_and_loss():
    result = process.measure("medjax info_nce", 24, 2, 16, 2)
    assert result.seconds > 0
    assert result.peak_bytes > 0
    assert result.loss == pytest.approx(
        contestants.CONTESTANTS["medjax info_nce"](contestants.inputs(24, 2, 16))(), rel=1e-6
    )


def test_table_names_what_is_missing_and_compares_what_ran(monkeypatch, capsys):
    results = {
        "medjax info_nce": process.Result(0.5, 10_000_000, 2.0),
        "open_clip ClipLoss": process.Result(1.0, 40_000_000, 2.0),
        "medjax sigmoid": process.Result(0.5, 10_000_000, 3.0),
        "open_clip SigLipLoss": "open_clip is not installed",
    }
    monkeypatch.setattr(losses, "measure", lambda name, *size: results[name])
    with flagsaver.flagsaver((benchmark._ONLY, ["info_nce", "sigmoid"]), (benchmark._JSON, True)):
        benchmark.main()
    printed = capsys.readouterr().out
    assert "open_clip is not installed" in printed
    info_nce, sigmoid = json.loads(printed.splitlines()[-1])["rows"]
    assert (info_nce["times_faster"], info_nce["memory_ratio"], info_nce["loss_difference"]) == (2.0, 4.0, 0.0)
    assert "times_faster" not in sigmoid
    assert sigmoid["ours"]["loss"] == 3.0


def test_package_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "symile", None)
    with pytest.raises(ModuleNotFoundError):
        contestants.CONTESTANTS["symile package n_squared"](contestants.inputs(8, 3, 4))


def test_unknown_comparison_is_an_error_that_names_the_nearest():
    with pytest.raises(UserError, match="gram"):
        losses.chosen(["gramm"])


def test_switches_name_objectives_and_options_that_exist():
    for switch in switches.SWITCHES:
        for options in (switch.ours, switch.other):
            own = {k: v for k, v in options.items() if k not in {f.name for f in dataclasses.fields(TermConfig)}}
            get(switch.objective, modalities=switch.modalities, **switches.REQUIRED.get(switch.objective, {}), **own)
    with pytest.raises(UserError, match="dhn_nce"):
        switches.chosen(["dhn_nec"])


@pytest.mark.slow
def test_a_switch_is_measured_both_ways_on_the_same_patients(tmp_path):
    (effect,) = switches.measure(tmp_path, 2, switches.chosen(["mil_nce"]))
    gain = effect.other.auroc.value - effect.ours.auroc.value
    assert effect.auroc_gain.value == pytest.approx(gain, abs=1e-9)
    assert effect.recall_gain.low <= effect.recall_gain.value <= effect.recall_gain.high
