"""The embedded data set: a synthetic phantom with image, ECG, lab values and report of the same patients.

No open data set has all four. A latent state of each patient (findings, rhythm, heart rate, age, sex, the side of the
heart) is rendered into each modality. Nine findings show in one modality each. The tenth, `discordant_laterality`, is
the exclusive or of the side to which the heart points (image) and the side to which lead I points (ECG), as when arm
electrodes are exchanged or a picture is mirrored or belongs to someone else. Neither alone says anything about it, so
a joint objective can be told from a pairwise one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from medjax.data.manifest import Finding, Modality
from medjax.data.readers.image import encode_png
from medjax.data.readers.leads import LEADS
from medjax.data.records import Example, encode_text
from medjax.data.sources.base import Schema, Study
from medjax.data.sources.phantom_ecg import RATE, HeartState, render_ecg
from medjax.data.sources.phantom_image import ChestState, render_chest
from medjax.data.sources.phantom_text import PROMPTS, choose, place, report

SEEN_IN = {
    "cardiomegaly": ("image",),
    "pleural_effusion": ("image",),
    "consolidation": ("image",),
    "atrial_fibrillation": ("ecg",),
    "bundle_branch_block": ("ecg",),
    "st_elevation": ("ecg",),
    "anaemia": ("labs",),
    "renal_failure": ("labs",),
    "inflammation": ("labs",),
    "discordant_laterality": ("image", "ecg"),
}
# name, unit, mean and spread in health, and the shift by each finding (in the same unit).
_LABS = (
    ("haemoglobin", "g/dL", 14.0, 1.0, {"anaemia": -4.5}),
    ("haematocrit", "%", 42.0, 3.0, {"anaemia": -13.0}),
    ("creatinine", "mg/dL", 0.9, 0.2, {"renal_failure": 2.2}),
    ("urea", "mg/dL", 32.0, 8.0, {"renal_failure": 70.0}),
    ("potassium", "mmol/L", 4.1, 0.3, {"renal_failure": 0.9}),
    ("crp", "mg/L", 5.0, 3.0, {"inflammation": 90.0}),
    ("leukocytes", "10^9/L", 7.0, 1.5, {"inflammation": 8.0}),
    ("sodium", "mmol/L", 140.0, 3.0, {}),
    ("glucose", "mg/dL", 100.0, 15.0, {}),
    ("platelets", "10^9/L", 250.0, 50.0, {}),
)
_PREVALENCE = 0.3
_LAB_MISSING = 0.15
_MODALITY_MISSING = {"image": 0.05, "ecg": 0.08, "labs": 0.12, "text": 0.05}


@dataclass(frozen=True)
class Phantom:
    """The phantom as a source. patients: how many; each has one to three studies. size: pixels of the picture."""

    patients: int = 2000
    size: int = 64
    seed: int = 0

    @property
    def schema(self) -> Schema:
        """Four modalities, ten findings."""
        names, units, *_ = zip(*_LABS, strict=True)
        return Schema(
            name="phantom",
            source=f"medjax synthetic phantom, seed {self.seed}; no real patients",
            licence="CC0-1.0",
            modalities={
                "image": Modality("image"),
                "ecg": Modality("ecg", LEADS, ("mV",) * len(LEADS), RATE),
                "labs": Modality("labs", names, units),
                "text": Modality("text"),
            },
            labels=tuple(SEEN_IN),
            findings={
                name: Finding(*PROMPTS[name], seen_in=seen_in, joint=len(seen_in) > 1)
                for name, seen_in in SEEN_IN.items()
            },
            synthetic=True,
            sensitive=False,
            texts_from_labels=True,
            patient_space=f"phantom-{self.seed}",
            attributes={"age": (), "sex": ("male", "female")},
            notes=(
                "Synthetic data. Scores on it say that the software works, and nothing about medicine.",
                "Picture, ECG and lab values share nothing here but the report; between them chance is right.",
            ),
        )

    def studies(self) -> Sequence[Study]:
        """One to three studies a patient; splits are left to the builder."""
        out = []
        for patient in range(self.patients):
            count = np.random.default_rng([self.seed, patient]).integers(1, 4)
            for study in range(count):
                read = partial(self.render, patient, study)
                out.append(Study(f"phantom-{patient}-{study}", f"phantom-{patient}", None, read))
        return out

    def render(self, patient: int, study: int) -> Example:
        """One study; the same for the same seed, patient and study."""
        person = np.random.default_rng([self.seed, patient, 1])
        age, female = person.uniform(30, 90), choose(person, 0.5)
        heart = 1 if choose(person, 0.5) else -1
        rng = np.random.default_rng([self.seed, patient, 2, study])
        findings = {name: choose(rng, _PREVALENCE) for name in SEEN_IN}
        reversed_arms = choose(rng, 0.5)
        findings["discordant_laterality"] = (heart == -1) != reversed_arms
        effusion, consolidation = (int(rng.choice((-1, 1))) for _ in range(2))
        upper, rate = choose(rng, 0.5), rng.uniform(50, 120)

        chest = ChestState(
            findings["cardiomegaly"],
            effusion * findings["pleural_effusion"],
            consolidation * findings["consolidation"],
            upper,
            heart,
        )
        rhythm = HeartState(
            rate,
            findings["atrial_fibrillation"],
            findings["bundle_branch_block"],
            findings["st_elevation"],
            reversed_arms,
        )
        pixels, boxes = render_chest(chest, rng, self.size)
        where = {"pleural_effusion": place(effusion), "consolidation": place(consolidation, upper)}
        items = {
            "image": [encode_png(pixels)],
            "ecg": [render_ecg(rhythm, rng)],
            "labs": [_labs(findings, rng)],
            "text": [encode_text(report(findings, where, rate, rng))],
        }
        return Example(
            example_id=f"phantom-{patient}-{study}",
            patient_id=f"phantom-{patient}",
            group_id=f"phantom-{patient}-{study}",
            time=365.0 * study,
            items=_drop(items, rng),
            labels={name: float(present) for name, present in findings.items()},
            boxes=boxes,
            factors={"age": age, "sex": float(female), "rate": rate, "heart": heart, "reversed_arms": reversed_arms},
        )


def _labs(findings: dict[str, bool], rng: np.random.Generator) -> np.ndarray:
    """float32[F], NaN where a test was not done."""
    values = []
    for _, _, mean, spread, shifts in _LABS:
        shift = sum(by * rng.uniform(0.7, 1.3) for name, by in shifts.items() if findings[name])
        values.append(max(mean + shift + spread * rng.normal(), 0.02 * mean))
    values = np.asarray(values, np.float32)
    values[rng.random(values.size) < _LAB_MISSING] = np.nan
    return values


def _drop(items: dict[str, list], rng: np.random.Generator) -> dict[str, list]:
    """Whole modalities are missing for a share of studies; at least two stay."""
    gone = [m for m, share in _MODALITY_MISSING.items() if rng.random() < share]
    for m in gone[:2]:
        items.pop(m)
    return items
