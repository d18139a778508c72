"""Identifiers tell patients apart and do not name them."""

import numpy as np
import pytest

from medjax.data.ids import hash_id, text_id


def test_equal_ids_and_only_equal_ids_have_equal_hashes():
    names = [f"patient {i}" for i in range(5000)]
    hashes = np.stack([hash_id(n) for n in names])
    assert hashes.shape == (5000, 2) and hashes.dtype == np.uint32
    assert len(np.unique(hashes, axis=0)) == len(names)
    np.testing.assert_array_equal(hashes[7], hash_id("patient 7"))


def test_unknown_is_zero_and_nothing_else_is():
    assert not hash_id("").any()
    assert not hash_id("", b"secret").any()
    assert hash_id("0").any()


def test_a_key_changes_every_hash():
    plain, keyed, other = hash_id("4711"), hash_id("4711", b"k" * 16), hash_id("4711", b"l" * 16)
    assert len({x.tobytes() for x in (plain, keyed, other)}) == 3


@pytest.mark.parametrize("same", ["No acute  finding.", " no ACUTE finding. ", "No\nacute\tfinding."])
def test_texts_are_equal_up_to_case_and_white_space(same):
    np.testing.assert_array_equal(text_id(same), text_id("no acute finding."))


def test_other_words_are_another_text():
    assert not np.array_equal(text_id("no acute finding"), text_id("an acute finding"))
