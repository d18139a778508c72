"""The fourteen labels of CheXpert's labeller, also NegBio's, and what "uncertain" and "not mentioned" count as."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from medjax.data.manifest import Finding
from medjax.data.readers.table import number
from medjax.errors import UserError, check_choice

LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
UNCERTAIN = ("ignore", "zeros", "ones", "mixed")


@dataclass(frozen=True)
class LabelPolicy:
    """uncertain: what -1 becomes: "ignore" (unknown), "zeros" (U-Zeros), "ones" (U-Ones), or "mixed": 1 for the labels
    in `ones` and 0 for the rest. The default `ones` are those two for which arXiv 1901.07031 found U-Ones best; others
    add Pleural Effusion. blank: what a label that the report does not mention becomes: "zeros", as there, or "ignore".
    """

    uncertain: Literal["ignore", "zeros", "ones", "mixed"] = "mixed"
    blank: Literal["zeros", "ignore"] = "zeros"
    ones: tuple[str, ...] = ("Atelectasis", "Edema")

    def __post_init__(self):
        check_choice("policy for uncertain labels", self.uncertain, UNCERTAIN)
        check_choice("policy for labels that are not mentioned", self.blank, ("zeros", "ignore"))
        for label in self.ones:
            check_choice("label", label, LABELS)

    def value(self, label: str, cell: str) -> float:
        """0, 1 or NaN (unknown) for a cell of 1, 0, -1 or nothing.

        Raises:
          UserError: the cell holds something else.
        """
        x = number(cell, label)
        if x != x:
            return 0.0 if self.blank == "zeros" else x
        if x in (0.0, 1.0):
            return x
        if x != -1.0:
            raise UserError(f"label {label!r} holds {cell.strip()[:20]!r}; it must be 1, 0, -1 (uncertain) or empty")
        if self.uncertain == "mixed":
            return float(label in self.ones)
        return {"ignore": float("nan"), "zeros": 0.0, "ones": 1.0}[self.uncertain]

    def values(self, row: Mapping[str, str]) -> dict[str, float]:
        """Those of all labels that the row has."""
        return {label: self.value(label, row[label]) for label in LABELS if label in row}

    def note(self) -> str:
        """What was done, for the manifest."""
        ones = f" (1 for {', '.join(self.ones)})" if self.uncertain == "mixed" else ""
        return f"Labels are read out of reports by a program; uncertain: {self.uncertain}{ones}, blank: {self.blank}."


def findings(labels: tuple[str, ...] = LABELS) -> dict[str, Finding]:
    """Prompts for their presence and absence, as CheXzero forms them (doi 10.1038/s41551-022-00936-9): the name, and
    the name after "no". "No Finding", which this makes a double negation, has none.
    """
    return {
        label: Finding((label.lower(),), (f"no {label.lower()}",), seen_in=("image",))
        for label in labels
        if label != "No Finding"
    }
