"""No patient stands in two splits, whichever way they are made."""

import pytest
from tiny_source import study

from medjax.data.building.splits import Splitting, assign
from medjax.data.manifest import SPLITS
from medjax.errors import UserError

STUDIES = [study(f"{p}-{s}", None, patient=f"p{p}") for p in range(200) for s in range(1 + p % 3)]


def by_patient(splits) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for s, split in zip(STUDIES, splits, strict=True):
        found.setdefault(s.patient, set()).add(split)
    return found


@pytest.mark.parametrize("by", ["source", "random", "fold"])
def test_all_studies_of_a_patient_are_in_one_split(by):
    found = by_patient(assign(STUDIES, Splitting(by)))
    assert len(found) == 200
    assert all(len(splits) == 1 for splits in found.values())
    assert set().union(*found.values()) == set(SPLITS)


def test_a_patient_keeps_its_split_whatever_the_order_and_the_others():
    splits = dict(zip((s.name for s in STUDIES), assign(STUDIES, Splitting("random")), strict=True))
    fewer = STUDIES[::-1][:150]
    assert assign(fewer, Splitting("random")) == [splits[s.name] for s in fewer]


def test_random_shares_are_near_those_asked_for():
    splits = assign([study(str(i), None) for i in range(4000)], Splitting("random", (0.5, 0.2, 0.3)))
    for split, share in zip(SPLITS, (0.5, 0.2, 0.3), strict=True):
        # Four binomial standard deviations.
        assert abs(splits.count(split) / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5


def test_another_seed_draws_other_patients():
    assert assign(STUDIES, Splitting("random", seed=0)) != assign(STUDIES, Splitting("random", seed=1))


@pytest.mark.parametrize("folds", [3, 5])
def test_over_the_folds_every_patient_is_once_in_test_and_once_in_validation(folds):
    runs = [by_patient(assign(STUDIES, Splitting("fold", fold=k, folds=folds))) for k in range(folds)]
    for patient in runs[0]:
        for split in ("test", "validation"):
            assert sum(run[patient] == {split} for run in runs) == 1


def test_the_splits_of_the_archive_are_kept():
    given = [study(str(i), SPLITS[i % 3]) for i in range(9)]
    assert assign(given, Splitting()) == [s.split for s in given]
    assert assign(given, Splitting("random")) != [s.split for s in given]


def test_a_patient_in_two_splits_is_named_with_both():
    given = [*(study(s, s) for s in SPLITS), study("x", "train", "Ada"), study("y", "test", "Ada")]
    with pytest.raises(UserError, match=r"1 patients.*'Ada' in train and test.*--split=random"):
        assign(given, Splitting())


def test_an_unknown_split_is_named_with_the_valid_ones():
    with pytest.raises(UserError, match=r"b has the split 'held out'; valid: train, validation, test"):
        assign([study("a", "train"), study("b", "held out")], Splitting())


def test_a_study_without_split_among_others_with_one_is_named():
    with pytest.raises(UserError, match=r"b has the split None"):
        assign([study("a", "train"), study("b", None)], Splitting())


@pytest.mark.parametrize("empty", SPLITS)
def test_an_empty_split_is_named(empty):
    with pytest.raises(UserError, match=f"the {empty} split is empty"):
        assign([study(s, s) for s in SPLITS if s != empty], Splitting())


def test_studies_without_patient_are_no_patient_in_two_splits():
    given = [*(study(s, s) for s in SPLITS)]
    nameless = [type(s)(f"nameless {s.name}", "", s.split, s.read) for s in given]
    assert assign(given + nameless, Splitting()) == [*SPLITS, *SPLITS]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(by="fould"), "did you mean 'fold'"),
        (dict(fractions=(0.5, 0.2, 0.2)), "sum to 1"),
        (dict(fractions=(0.5, 0.5)), "must be train, validation, test"),
        (dict(fractions=(1.2, -0.4, 0.2)), "must be train, validation, test"),
        (dict(by="fold", fold=5, folds=5), "0..4"),
        (dict(by="fold", fold=0, folds=2), "at least 3 folds"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Splitting(**options)
