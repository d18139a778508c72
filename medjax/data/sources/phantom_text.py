"""Reports and prompts of the phantom, in varied wording.

A report says whether the sides of picture and ECG agree, and never which side either of them shows.
"""

import numpy as np

_SIDES = {-1: "right", 1: "left"}  # a radiograph is seen face to face

PROMPTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cardiomegaly": (
        ("cardiomegaly with an enlarged cardiac silhouette", "the heart is enlarged, cardiomegaly"),
        ("the heart has normal size", "cardiac silhouette of normal width"),
    ),
    "pleural_effusion": (
        ("pleural effusion with fluid above the diaphragm", "basal pleural fluid, an effusion"),
        ("pleural spaces are dry", "costophrenic angles are sharp"),
    ),
    "consolidation": (
        ("consolidation, a focal lung opacity", "focal airspace opacity, consolidation"),
        ("lung fields are clear", "lungs are well aerated"),
    ),
    "atrial_fibrillation": (
        ("atrial fibrillation, irregular rhythm without p waves", "irregularly irregular rhythm, atrial fibrillation"),
        ("regular sinus rhythm", "sinus rhythm with p waves before each beat"),
    ),
    "bundle_branch_block": (
        ("left bundle branch block with wide qrs", "wide qrs complex, bundle branch block"),
        ("qrs duration is normal", "narrow qrs complexes"),
    ),
    "st_elevation": (
        ("anterior st elevation, injury pattern", "st segments elevated in the chest leads, injury"),
        ("st segments are isoelectric", "st segments are level"),
    ),
    "anaemia": (
        ("anaemia, haemoglobin and haematocrit are low", "low haemoglobin, anaemia"),
        ("red cell count is normal", "blood count without deficit"),
    ),
    "renal_failure": (
        ("renal failure, creatinine and urea are raised", "raised creatinine, renal failure"),
        ("kidney function is normal", "normal renal function"),
    ),
    "inflammation": (
        ("inflammation, crp and leukocytes are raised", "raised crp, inflammation"),
        ("inflammatory markers are normal", "crp is not raised"),
    ),
    "discordant_laterality": (
        (
            "discordant laterality, picture and ecg contradict each other",
            "discordant sides, possible mix-up, contradict each other",
        ),
        (
            "concordant laterality throughout, consistent with one person",
            "concordant sides throughout, consistent with one person",
        ),
    ),
}

JOINT = "discordant_laterality"
_OMITTED = 0.85  # how often an absent finding goes without saying


def report(findings: dict[str, bool], where: dict[str, str], rate: float, rng: np.random.Generator) -> str:
    """The heart rate and the findings in random order; where the sides agree or not is said first and last."""
    sentences = [f"{_pace(rate)} of {round(rate / 10) * 10}"]
    for name, present in findings.items():
        if name == JOINT or (not present and rng.random() < _OMITTED):
            continue
        positive, negative = PROMPTS[name]
        sentence = str(rng.choice(positive if present else negative))
        if present and name in where and rng.random() < 0.8:
            sentence += f" {where[name]}"
        sentences.append(sentence)
    order = rng.permutation(len(sentences))
    first, last = rng.permutation(PROMPTS[JOINT][0 if findings[JOINT] else 1])
    return ". ".join([first, *(sentences[i] for i in order), last]) + "."


def place(side: int, upper: bool | None = None) -> str:
    """ "on the left", or "in the right upper zone"."""
    if upper is None:
        return f"on the {_SIDES[side]}"
    return f"in the {_SIDES[side]} {'upper' if upper else 'lower'} zone"


def _pace(rate: float) -> str:
    return "bradycardia" if rate < 60 else "tachycardia" if rate > 100 else "heart rate"


def choose(rng: np.random.Generator, share: float) -> bool:
    """True with probability `share`."""
    return bool(rng.random() < share)
