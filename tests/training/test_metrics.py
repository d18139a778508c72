"""Metrics on disk, and the speed that is shown."""

import json

from medjax.training import goodput
from medjax.training.goodput import Goodput
from medjax.training.metrics import MetricWriter, Progress, Work


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


def test_speed_leaves_out_the_first_step_and_what_is_not_training(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(goodput.time, "monotonic", lambda: now[0])
    watch = Goodput(None)
    work = Work(examples=8, devices=4, flops=400.0, peak=1000.0)
    progress = Progress(total=10, work=work, goodput=watch)
    watch.training_from(0)
    now[0] = 60.0  # the first step waits for the first data
    progress.tick(1)
    assert progress.row(1)["train/examples_per_second"] == 0
    now[0] = 61.0
    with watch.waiting(lambda: True):
        now[0] = 62.0
    progress.tick(2)
    with watch.part("eval"):
        now[0] = 500.0
    now[0] = 502.0
    progress.tick(3)
    watch.close()
    row = progress.row(3)
    assert row["train/examples_per_second"] == 2 * 8 / 4.0
    assert row["train/examples_per_second_per_device"] == 1.0
    assert row["train/data_wait"] == 1 / 4
    assert row["train/step_seconds_p50"] == row["train/step_seconds_p95"] == 2.0
    # 400 FLOPs every 2 seconds, shared by 4 devices.
    assert row["train/flops_per_second_per_device"] == 50.0
    assert row["train/mfu"] == 0.05


def test_what_is_not_known_of_the_devices_is_left_out():
    watch = Goodput(None)
    row = Progress(10, Work(8), watch).row(1)
    watch.close()
    assert not {"train/mfu", "train/flops_per_second_per_device"} & set(row)
