"""Messages for people: one line, the offender, the nearest valid name."""

import pytest

from medjax.errors import UserError, check_choice, suggest


def test_nearest_name_is_suggested_and_all_are_listed_in_order():
    assert suggest("imgae", ["text", "image", "ecg"]) == "did you mean 'image'? valid: ecg, image, text"


def test_nothing_near_lists_the_valid_names_only():
    assert suggest("zzz", ["text", "image"]) == "valid: image, text"
    assert suggest("zzz", []) == "valid: (none)"


def test_names_may_come_from_any_iterable():
    assert suggest("iamge", iter({"image": 1})) == "did you mean 'image'? valid: image"


def test_choice_outside_the_valid_ones_is_named_with_what_it_is():
    with pytest.raises(UserError, match="unknown objective 'clip'; valid: gram, symile"):
        check_choice("objective", "clip", (n for n in ("symile", "gram")))
    check_choice("objective", "gram", (n for n in ("symile", "gram")))


def test_user_error_is_a_value_error():
    with pytest.raises(ValueError, match="unknown x 'a'"):
        check_choice("x", "a", ["b"])
