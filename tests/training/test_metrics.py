"""Metrics on disk, and the speed that is shown."""

import json

from medjax.training import metrics
from medjax.training.metrics import MetricWriter, Progress


def test_rows_are_json_lines_and_what_is_not_finite_is_null(tmp_path):
    writer = MetricWriter(tmp_path, {}, "", active=True)
    writer.write(1, {"train/loss": 2.5})
    writer.write(2, {"train/loss": float("nan")})
    writer.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "train/loss": 2.5}, {"step": 2, "train/loss": None}]
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_only_the_first_process_writes(tmp_path):
    writer = MetricWriter(tmp_path, {}, "", active=False)
    writer.write(1, {"train/loss": 2.5})
    writer.close()
    assert not list(tmp_path.iterdir())


def test_speed_leaves_out_the_first_step_and_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    progress = Progress(total=10, examples_per_step=8)
    now[0] = 60.0  # the first step compiles
    progress.tick(1)
    now[0] = 64.0
    progress.tick(3)
    assert progress.examples_per_second(3) == 2 * 8 / 4.0
    with progress.paused(3):
        now[0] = 500.0  # evaluation
    assert progress.examples_per_second(3) == 2 * 8 / 4.0
    now[0] = 502.0
    progress.tick(4)
    assert progress.examples_per_second(4) == 3 * 8 / 6.0
