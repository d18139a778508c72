"""Raw items made worse, by kind of modality: what an encoder meets in practice and has not seen in training."""

from medjax.errors import check_choice
from medjax.evaluation.corruptions.base import LEVELS, Corruption
from medjax.evaluation.corruptions.ecg import ECG
from medjax.evaluation.corruptions.image import SETS, image_corruptions
from medjax.evaluation.corruptions.labs import LABS
from medjax.evaluation.corruptions.text import TEXT
from medjax.evaluation.corruptions.volume import VOLUME

__all__ = ["LEVELS", "SETS", "Corruption", "corruptions_of"]


def corruptions_of(kind: str, image_set: str = "chest") -> tuple[Corruption, ...]:
    """The corruptions of a kind of modality: "image", "ecg", "labs", "text" or "volume".

    image_set: whose severities pictures get, a key of `SETS`.

    Raises:
      UserError: an unknown kind or set.
    """
    check_choice("image set", image_set, SETS)
    fixed = {"ecg": ECG, "labs": LABS, "text": TEXT, "volume": VOLUME}
    check_choice("kind of modality", kind, ("image", *fixed))
    return fixed[kind] if kind in fixed else image_corruptions(image_set)
