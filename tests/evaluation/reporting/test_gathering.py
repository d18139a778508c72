"""Results are found wherever they lie, and a broken one is named."""

import pytest
from made_results import write, zero_shot

from medjax.errors import UserError
from medjax.evaluation.reporting.gathering import gather, gather_run


def test_every_evaluation_of_a_run_at_any_depth(tmp_path):
    for folder in ("zero_shot", "zero_shot/other data", "my_own"):
        write(tmp_path / "evaluation" / folder, zero_shot())
    write(tmp_path / "elsewhere", zero_shot())
    assert [e.name for e in gather_run(tmp_path)] == ["my_own", "zero_shot/other data", "zero_shot"]
    assert gather_run(tmp_path / "elsewhere") == []


def test_files_and_folders_each_once(tmp_path):
    one, two = write(tmp_path / "x" / "one", zero_shot()), write(tmp_path / "x" / "two", zero_shot(name="b"))
    found = gather([one, tmp_path / "x"])
    assert [e.path for e in found] == [one, two]
    assert [e.model for e in found] == ["a (best, step 3)", "b (best, step 3)"]


def test_a_broken_file_is_named(tmp_path):
    content = zero_shot()
    content["data"].pop("licence")
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=f"{path} does not follow .* '?licence'? is missing"):
        gather([path])
    path.write_text("{")
    with pytest.raises(UserError, match=f"{path} is no JSON"):
        gather([path])
    path.unlink()
    with pytest.raises(UserError, match="holds no results"):
        gather([tmp_path])
    with pytest.raises(UserError, match="no results at"):
        gather([path])
