"""Rows of steps that are done again stand once."""

from medjax.training.rewinding import drop_after, rewind


def test_later_rows_and_a_row_cut_short_are_taken_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    drop_after(path, 3)
    assert not path.exists()
    rows = [f'{{"step": {i}, "train/loss": 0.{i}}}\n' for i in (1, 2, 3, 3, 4, 5)]
    path.write_text("".join(rows) + '{"step": 2, "train/lo')
    drop_after(path, 3)
    assert path.read_text() == "".join(rows[:4])
    drop_after(path, 0)
    assert path.read_text() == ""


def test_a_step_that_is_evaluated_again_loses_its_evaluation(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [
        '{"step": 2, "validation/loss": 1}\n',
        '{"step": 3, "train/loss": 1}\n',
        '{"step": 3, "validation/loss": 1}\n',
    ]
    path.write_text("".join(rows))
    rewind(tmp_path, 3, evaluates=False)
    assert path.read_text() == "".join(rows)
    rewind(tmp_path, 3, evaluates=True)
    assert path.read_text() == "".join(rows[:2])
