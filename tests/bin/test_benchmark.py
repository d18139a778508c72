"""The benchmark's contestants compute the same, and one that is not installed is no error."""

import dataclasses
import json
import sys
from functools import partial

import pytest
from absl.testing import flagsaver

from medjax.benchmarks import contestants, encoders, losses, process, step, step_contestants, switches
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
    result = process.measure(partial(contestants.make, "medjax info_nce", 24, 2, 16), 2)
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
    monkeypatch.setattr(losses, "measure", lambda make, calls: results[make.args[0]])
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


TINY = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
ENCODERS = {
    "ViT": (dict(TINY, image_size=32), (32, 32, 3)),
    "Bert": (dict(TINY, vocab_size=20000, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0), (6,)),
    "ResNet": (dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"), (32, 32, 3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", ENCODERS)
def test_encoders_compute_the_same_before_and_after_a_step(model, tmp_path):
    pytest.importorskip("torch")
    options, shape = ENCODERS[model]
    encoder = encoders.Encoder(model, model, tuple(options.items()), shape, 2, 1.0)
    encoders.write_weights(encoder, tmp_path)
    forward = [make(str(tmp_path), encoder, "forward", "float32")() for make in (encoders._ours, encoders._theirs)]
    assert forward[0] == pytest.approx(forward[1], rel=1e-4)
    ours, theirs = (make(str(tmp_path), encoder, "step", "float32") for make in (encoders._ours, encoders._theirs))
    first, second = ((ours(), theirs()) for _ in range(2))
    assert first[0] == pytest.approx(first[1], rel=1e-4)
    assert second[0] == pytest.approx(second[1], rel=1e-4) and second[0] != first[0]


def test_an_unknown_encoder_is_an_error_that_names_the_nearest():
    with pytest.raises(UserError, match="vit_b16"):
        encoders.chosen(["vit_b32"])


def test_switches_that_need_more_devices_are_left_out_or_refused(monkeypatch, caplog):
    monkeypatch.setattr(switches.jax, "device_count", lambda: 1)
    with caplog.at_level("WARNING", "medjax"):
        picked = switches.chosen([])
    assert picked and all(s.devices == 1 for s in picked)
    assert "mgca_prototype" in caplog.text
    with pytest.raises(UserError, match="mgca_prototype needs 4 devices"):
        switches.chosen(["mgca_prototype"])
    monkeypatch.setattr(switches.jax, "device_count", lambda: 4)
    assert len(switches.chosen([])) == len(switches.SWITCHES)


@pytest.mark.slow
def test_a_switch_is_measured_both_ways_on_the_same_patients(tmp_path):
    (effect,) = switches.measure(tmp_path, 2, switches.chosen(["mil_nce"]))
    gain = effect.other.auroc.value - effect.ours.auroc.value
    assert effect.auroc_gain.value == pytest.approx(gain, abs=1e-9)
    assert effect.recall_gain.low <= effect.recall_gain.value <= effect.recall_gain.high


PAIR = step.Pair("tiny", (16, 1, 2), (16, 1, 2), 8, size=32, patch=16, tokens=8, vocabulary=50, embed_dim=8)


@pytest.mark.slow
def test_steps_of_the_pair_are_those_of_open_clip(tmp_path):
    pytest.importorskip("torch")
    step_contestants.write_weights(PAIR, tmp_path)
    if not list(tmp_path.iterdir()):
        pytest.skip("open_clip is not installed")
    ours, theirs = (make(str(tmp_path), PAIR, "float32") for make in (step_contestants.ours, step_contestants.theirs))
    losses = [(ours(), theirs()) for _ in range(4)]
    for mine, other in losses:
        assert mine == pytest.approx(other, rel=1e-4)
    assert losses[-1][0] < losses[0][0]
    assert ours.facts()["flops"] > 0


def test_table_of_steps_has_ratios_shares_and_what_is_missing(monkeypatch, capsys):
    results = {
        "ours": process.Result(0.5, 10, 2.0, {"flops": 1e9, "peak": 8e9, "device_peak": 100}),
        "theirs": process.Result(1.0, 10, 2.0, {"device_peak": 300}),
        "matrix_product": process.Result(0.25, 0, 0.0, {"flops": 1e9}),
        "on_cpu": "no free port",
    }
    monkeypatch.setattr(step, "write_weights", lambda pair, folder: None)
    monkeypatch.setattr(step, "measure", lambda make, calls: results[make.func.__name__])
    flags = (benchmark._SUITE, "step"), (benchmark._JSON, True)
    with flagsaver.flagsaver(*flags):
        benchmark.main()
    printed = capsys.readouterr().out
    pair, processes = json.loads(printed.splitlines()[-1])["rows"]
    assert (pair["times_faster"], pair["memory_ratio"], pair["mfu"], pair["share"]) == (2.0, 3.0, 0.25, 0.5)
    assert processes["ours"] == processes["theirs"] == {"missing": "no free port"}
    assert "two processes: no free port" in printed
    with pytest.raises(UserError, match="vit_b16"):
        step.chosen(["vit_b15"])
