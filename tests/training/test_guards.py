"""What stops a run, what it writes down, and what makes it go back; judged alike after a restart."""

import json
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from medjax.data import DataConfig
from medjax.data.batch import Batch
from medjax.data.sampling.ledger import Ledger
from medjax.errors import UserError
from medjax.training.experiment import TrainConfig
from medjax.training.guards import Done, Guards, Spike


@dataclass(frozen=True)
class FakeExperiment:
    """What guards look at."""

    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(dir="", modalities={}, batch_size=4))


def guards(workdir, before=None, **train) -> Guards:
    return Guards(FakeExperiment(replace(TrainConfig(), **train)), Ledger([""], ["x"]), workdir, before or {})


def done(step: int, loss: float = 1.0, bad: int = 0, valid: float = 1.0) -> Done:
    metrics = {"train/loss": loss, "train/bad_steps": bad, "train/valid_fraction": valid}
    ids = np.arange(8, dtype=np.uint32).reshape(4, 2) + 100 * step
    batch = Batch({}, {"example": ids}, np.zeros(4), np.array([True, True, False, True]), {}, np.arange(4))
    return Done(step, metrics, batch)


def test_the_examples_of_a_skipped_step_are_written_down(tmp_path):
    g = guards(tmp_path, max_bad_steps=3)
    g.check(done(1))
    g.check(done(2, loss=np.nan, bad=1))
    g.check(done(3))
    with pytest.raises(UserError, match=r"not finite in 3 steps in a row, the last 6.*skipped\.jsonl"):
        for step in (4, 5, 6):
            g.check(done(step, loss=np.nan, bad=step - 3))
    rows = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [2, 4, 5, 6]
    # The third example was not valid, so it is not to blame.
    assert rows[0]["examples"] == [np.array(x, np.uint32).tobytes().hex() for x in ((200, 201), (202, 203), (206, 207))]
    assert {len(x) for x in rows[0]["examples"]} == {16}


def test_too_many_unusable_examples_stop_a_run(tmp_path):
    data = DataConfig(dir="", modalities={}, batch_size=4, max_invalid_fraction=0.25)
    g = Guards(FakeExperiment(data=data), Ledger([""], ["x"]), tmp_path, {})
    g.check(done(2, valid=0.75))
    with pytest.raises(UserError, match=r"50.0% of the examples of step 3 cannot be used"):
        g.check(done(3, valid=0.5))


LOSSES = [*(1.0 + 0.01 * (i % 5) for i in range(20)), 1.5]


def test_a_jump_of_the_loss_is_found_and_a_lower_one_is_none(tmp_path):
    g = guards(tmp_path, spike_deviations=10.0, spike_window=20, max_rollbacks=1)
    with pytest.raises(Spike) as found:
        for step, loss in enumerate([*LOSSES[:10], *LOSSES], 1):
            g.check(done(step, loss))
    assert found.value.step == len(LOSSES) + 10
    g = guards(tmp_path, spike_deviations=10.0, spike_window=20, max_rollbacks=1)
    for step, loss in enumerate([*LOSSES[:-1], 0.1], 1):
        g.check(done(step, loss))


def test_a_restart_judges_as_a_run_that_never_stopped(tmp_path):
    train = {"spike_deviations": 10.0, "spike_window": 20, "max_rollbacks": 1}
    g = guards(tmp_path, **train)
    for step, loss in enumerate(LOSSES[:-1], 1):
        g.check(done(step, loss))
        g = guards(tmp_path, json.loads(json.dumps(g.state())), **train)
    with pytest.raises(Spike):
        g.check(done(21, LOSSES[-1]))


def test_rollbacks_are_bounded_and_without_any_a_jump_is_only_told(tmp_path):
    train = {"spike_deviations": 10.0, "spike_window": 20}
    state = {"losses": LOSSES[:-1], "rollbacks": 2}
    with pytest.raises(UserError, match=r"loss 1.5 at step 21 .* after config.train.max_rollbacks=2"):
        guards(tmp_path, state, max_rollbacks=2, **train).check(done(21, LOSSES[-1]))
    g = guards(tmp_path, state, **train)
    g.check(done(21, LOSSES[-1]))
    assert g.state()["losses"][-1] == LOSSES[-1]


def test_losses_that_never_vary_make_no_spike_of_the_last_digit(tmp_path):
    g = guards(tmp_path, {"losses": [1.0] * 20}, spike_deviations=5.0, spike_window=20, max_rollbacks=1)
    g.check(done(21, 1.0 + 1e-6))
    with pytest.raises(Spike):
        g.check(done(22, 1.1))
