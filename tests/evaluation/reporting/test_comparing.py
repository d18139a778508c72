"""Models are compared on the same examples only."""

from pathlib import Path

from made_results import zero_shot

from medjax.evaluation.reporting.comparing import labels, not_comparable, side_by_side
from medjax.evaluation.reporting.gathering import Evaluation
from medjax.evaluation.reporting.reading import measurements


def read(*contents):
    found = [Evaluation(f"e{i}", Path(f"{i}/results.json"), c) for i, c in enumerate(contents)]
    return [(e, measurements(e)) for e in found]


def test_two_models_on_equal_lists_stand_side_by_side():
    (group,) = side_by_side(
        read(zero_shot(), zero_shot(name="b", mi=(0.6, 0.5, 0.7)), zero_shot(name="c", digest="bb"))
    )
    assert group.models == ("a (best, step 3)", "b (best, step 3)") and group.examples == 300
    of = group.scores["zero_shot", "MI", "auroc"]
    assert [of[m].interval.value for m in group.models] == [0.8, 0.6]
    assert group.differ == ()


def test_other_settings_are_named():
    (group,) = side_by_side(read(zero_shot(rule={"name": "x"}), zero_shot(name="b", rule={"name": "y"})))
    assert group.differ == ("rule",)


def test_other_examples_are_a_warning_and_no_table():
    both = read(zero_shot(digest="aa"), zero_shot(name="b", digest="bb"))
    assert side_by_side(both) == []
    (warning,) = not_comparable(both)
    assert "aa" in warning and "bb" in warning and "d, test split" in warning
    assert not_comparable(read(zero_shot(), zero_shot(name="b"))) == []


def test_a_model_measured_twice_is_told_apart_by_folder():
    twice = read(zero_shot(), zero_shot(mi=(0.7, 0.6, 0.8), more={}))
    assert list(labels([e for e, _ in twice]).values()) == ["a (best, step 3) in e0", "a (best, step 3) in e1"]
    (group,) = side_by_side(twice)
    assert len(group.scores["zero_shot", "MI", "auroc"]) == 2
