"""Which pictures of a data set are dropped as near-duplicates, within and across studies and splits."""

import shutil

import numpy as np
import pytest

from medjax.data import manifest as manifests
from medjax.data.building.build import Options, build_dataset
from medjax.data.building.rewrite import rewrite
from medjax.data.curation.dropping import Rule, dropped, without
from medjax.data.curation.inspection import scan
from medjax.data.items import count_items
from medjax.data.manifest import Modality
from medjax.data.readers.image import encode_png
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.errors import UserError

# The pictures of each study by number; equal numbers are equal pictures.
_TRAIN = {"a": [0, 0, 1], "b": [2, 3], "c": [3], "d": [4]}
_PATIENT = {"a": "p", "b": "q", "c": "q", "d": "r"}


class _Pictures:
    schema = Schema("pictures", "made up", "CC0-1.0", {"image": Modality("image"), "text": Modality("text")})

    def studies(self):
        listed = [(name, _PATIENT[name], "train", items) for name, items in _TRAIN.items()]
        listed += [("v", "v", "validation", [5]), ("t", "t", "test", [4])]
        return [Study(n, p, s, lambda n=n, p=p, i=i: self._read(n, p, i)) for n, p, s, i in listed]

    def _read(self, name, patient, numbers):
        pictures = [np.random.default_rng(k).integers(0, 256, (24, 24), dtype=np.uint8) for k in numbers]
        return Example(name, patient, {"image": [encode_png(p) for p in pictures], "text": [encode_text("a report")]})


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pictures") / "data"
    manifest = build_dataset(_Pictures(), directory, Options(), lambda done, total: None)
    return directory, manifest


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("study", [(0, 1)]), ("patient", [(0, 1), (2, 0)]), ("dataset", [(0, 1), (2, 0), (3, 0)])],
)
def test_twins_are_looked_for_in_the_scope(built, scope, expected):
    drops = dropped(*built, "image", Rule(scope=scope))
    assert [(d.record, d.item) for d in drops] == expected
    assert drops[0].like_split == "train" and (drops[0].like_record, drops[0].like_item) == (0, 0)
    assert scope != "dataset" or (drops[-1].like_split, drops[-1].like_record) == ("test", 0)


def test_embeddings_of_the_users_choice_decide(built):
    mean = dropped(*built, "image", Rule("embedding", "dataset"), lambda ps: np.ones((len(ps), 3), np.float32))
    assert len(mean) == 7  # all are alike one of the test split
    assert not dropped(*built, "image", Rule("entropy", "study", keep_fraction=1.0))


def test_a_study_without_a_picture_left_goes_and_no_other(built, tmp_path):
    directory, manifest = built
    drops = dropped(directory, manifest, "image", Rule(scope="dataset"))
    kept = [without(drops, manifest, "image")("train", i, r) for i, r in enumerate(scan(directory, manifest, "train"))]
    assert kept == [{"image": [0, 2]}, {}, None, None]


def test_what_is_no_picture_is_refused(built):
    with pytest.raises(UserError, match="'text' is 'text'"):
        dropped(*built, "text", Rule())


def test_thinning_again_drops_nothing(built, tmp_path):
    directory = shutil.copytree(built[0], tmp_path / "data")
    rule = Rule(scope="patient")
    drops = dropped(directory, built[1], "image", rule)
    new = rewrite(directory, built[1], without(drops, built[1], "image"), "thinned")
    assert not dropped(directory, new, "image", rule)
    assert [count_items(r, "image") for r in scan(directory, manifests.load(directory), "train")] == [2, 2, 1]
