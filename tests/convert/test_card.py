"""The model card says what a reader has to know before using an encoder."""

import pytest

from medjax.convert.card import model_card

CONFIG = {
    "embed_dim": 8,
    "modalities": {"mri": {"width": 16, "tower": {"name": "vit", "depth": 2}, "head": {"normalise": True}}},
}
PREPROCESSING = {"mri": {"kind": "image", "size": 32, "channels": 1}}


def _card(objectives=None, **data):
    about = {
        "medjax": "0",
        "method": {"name": "contrastive", "objectives": objectives or {"info_nce": {}}},
        "checkpoint": {"name": "best", "step": 7, "chosen_by": "validation/loss"},
        "examples_seen": 112,
        "data": {
            "name": "d",
            "synthetic": False,
            "licence": "CC BY 4.0",
            "sensitive": False,
            "texts_from_labels": False,
            "training_examples": 9,
        }
        | data,
        "verification": {"max_abs_difference": 3e-7, "tolerance": 1e-5, "examples": 63, "raw_inputs": 20},
    }
    return model_card(about, CONFIG, PREPROCESSING)


def test_card_names_licence_agreement_limits_and_loading():
    card = _card()
    for text in ("CC BY 4.0", "3.0e-07", "Not a medical device", "validation/loss", "7 steps, 112 examples"):
        assert text in card
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert '"mri"' in code


@pytest.mark.parametrize("flag", ["synthetic", "sensitive"])
def test_warnings_appear_where_they_apply_only(flag):
    assert flag in _card(**{flag: True})
    assert flag not in _card()


def test_labels_are_declared_unused_only_of_objectives_known_not_to_use_them():
    assert "No label of the data set entered the loss" in _card()
    assert "Labels may have entered the loss" in _card({"term": {"name": "supervised"}})
    assert "Labels may have entered the loss" in _card(texts_from_labels=True)
