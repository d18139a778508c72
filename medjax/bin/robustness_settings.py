"""What `medjax.bin.evaluate_robustness` is asked for, and another model's results under the same settings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medjax.bin.evaluation import Subject
from medjax.errors import UserError, check_choice
from medjax.evaluation.corruptions import Corruption, corruptions_of
from medjax.evaluation.robustness import Curve, Relative, relative

_SAME = ("image_set", "levels", "seed", "image_pixels")


@dataclass(frozen=True)
class Settings:
    """As in results.json. kinds: `{modality: {corruption: severities}}`. levels: of `LEVELS`. image_pixels: see
    `Corruptor`."""

    image_set: str
    kinds: dict[str, dict[str, tuple[Any, ...]]]
    levels: tuple[int, ...]
    seed: int
    image_pixels: int
    limit: int

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return asdict(self)


def corruptions(
    subject: Subject, image_set: str, modalities: Sequence[str], kinds: Sequence[str]
) -> dict[str, tuple[Corruption, ...]]:
    """`{modality: corruptions}` of the encoder's modalities, or of these, all or those of these names.

    Raises:
      UserError: a modality or a name is unknown.
    """
    for name in modalities:
        check_choice("modality", name, subject.modalities)
    found = {
        m: corruptions_of(subject.dataset.manifest.modality(m).kind, image_set)
        for m in subject.modalities
        if not modalities or m in modalities
    }
    for name in kinds:
        check_choice("corruption", name, {c.name for of in found.values() for c in of})
    chosen = {m: tuple(c for c in of if not kinds or c.name in kinds) for m, of in found.items()}
    return {m: of for m, of in chosen.items() if of}


class Baseline:
    """Results that the same program wrote for another model.

    Raises:
      UserError: they cannot be read, or were taken of other examples or under other settings.
    """

    def __init__(self, path: str, settings: Settings, example_list: str):
        try:
            self._results = json.loads(Path(path).read_text())
            theirs, self._measured = self._results["settings"], self._results["corruptions"]
            examples = self._results["data"]["example_list_sha256"]
            self.name = self._results["subject"]["name"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"--baseline={path} is no results.json of evaluate_robustness with corruptions ({error!r}); pass one"
            ) from None
        ours = json.loads(json.dumps(settings.as_dict()))
        different = [f"{k} ({theirs.get(k)}, here {ours[k]})" for k in _SAME if theirs.get(k) != ours[k]]
        for m, of in ours["kinds"].items():
            known = theirs.get("kinds", {}).get(m, {})
            different += [f"the severities of {k}" for k, v in of.items() if known.get(k, v) != v]
        if examples != example_list:
            different.append("the list of examples")
        if different:
            raise UserError(f"--baseline={path} differs in {', '.join(different)}; measure both models in the same way")

    def relative(self, modality: str, score: str, curves: Sequence[Curve]) -> Relative | None:
        """Of the corruptions that both have; None where there are none."""
        theirs: Mapping[str, Any] = self._measured.get(modality, {}).get(score, {})
        kinds = theirs.get("kinds", {})
        errors = {c.kind: [float(c.error[k][0]) for k in c.levels] for c in curves if c.kind in kinds}
        if not errors:
            return None
        base = {k: list(kinds[k]["error_by_level"].values()) for k in errors}
        return relative(errors, float(curves[0].error[0][0]), base, theirs["clean_error"]["value"])
