"""Several processes train as one with as many devices does, and their number may change."""

import numpy as np
import pytest
from runs import assert_same, batches, checkpoint, losses, output, until

from medjax.errors import EXIT_BAD_INPUT

STEPS = 6


@pytest.fixture(scope="module")
def one_process(server, tmp_path_factory):
    """Uninterrupted, on eight devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    server.train(workdir, f"--config.train.total_steps={STEPS}", "--config.train.keep=9", devices=8)
    return workdir


@pytest.mark.slow
@pytest.mark.end_to_end
def test_two_one_and_two_processes_train_as_one_on_the_same_examples(server, one_process, tmp_path):
    changing = tmp_path / "changing"
    for processes, stop in ((2, 2), (1, 4), (2, STEPS)):
        steps = (f"--config.train.total_steps={STEPS}", "--config.train.keep=9", f"--stop_at_step={stop}")
        server.train(changing, *steps, processes=processes, devices=8 // processes)
    assert batches(changing) == batches(one_process)
    assert sorted(batches(one_process)) == list(range(1, STEPS + 1))
    # Sums over processes run in another order than sums over devices.
    for name in ("train/loss", "train/gradient_norm", "train/gradient_norm/ecg", "train/gradient_norm/labs"):
        ours, whole = losses(changing, name), losses(one_process, name)
        assert [step for step, _ in ours] == [step for step, _ in whole]
        np.testing.assert_allclose([x for _, x in ours], [x for _, x in whole], rtol=2e-5, err_msg=name)
    for step in (2, 4, STEPS):
        (a, _), (b, _) = (checkpoint(w, step) for w in (changing, one_process))
        for name in a:
            # Adam turns rounding errors of tiny gradients into steps of up to the learning rate, 1e-3.
            if "['key']['bias']" not in name and "['params']" in name:
                np.testing.assert_allclose(a[name], b[name], atol=2e-5, err_msg=f"step {step}: {name}")


@pytest.mark.slow
@pytest.mark.end_to_end
def test_a_second_run_in_the_workdir_is_refused_and_disturbs_nothing(server, one_process, tmp_path):
    arguments = (f"--config.train.total_steps={STEPS}", "--config.train.keep=9")
    first = server.start(tmp_path / "run", *arguments, devices=8)
    until(lambda: (tmp_path / "run" / "run.lock").exists(), *first)
    second = server.start(tmp_path / "run", *arguments, devices=8)
    assert server.wait(*second) == [EXIT_BAD_INPUT], output(tmp_path / "run")
    assert "is in use by process" in output(tmp_path / "run")
    assert server.wait(*first) == [0]
    assert_same(tmp_path / "run", one_process, STEPS)
