"""Corruptions of reports: UTF-8 as uint8[n] -> the same. No benchmark is behind them; none of them empties a text."""

import re
import string
from collections.abc import Callable
from functools import partial

import numpy as np

from medjax.data.manifest import Modality
from medjax.data.records import decode_text, encode_text
from medjax.evaluation.corruptions.base import Corruption

ABBREVIATIONS = {
    "atrial fibrillation": "afib",
    "bilateral": "b/l",
    "bundle branch block": "BBB",
    "chest x-ray": "CXR",
    "consolidation": "consol",
    "examination": "exam",
    "fracture": "fx",
    "heart rate": "HR",
    "history": "hx",
    "left": "L",
    "normal": "nl",
    "patient": "pt",
    "pleural effusion": "PLEFF",
    "pneumonia": "PNA",
    "pneumothorax": "PTX",
    "right": "R",
    "ventricular": "vent",
    "with": "w/",
    "without": "w/o",
}
_LONGEST_FIRST = sorted(ABBREVIATIONS, key=len, reverse=True)
_ABBREVIATED = re.compile(rf"\b({'|'.join(map(re.escape, _LONGEST_FIRST))})\b", re.IGNORECASE)


def typos(text: str, share: float, rng: np.random.Generator) -> str:
    """share: of the letters that are left out, doubled, exchanged with the next character or replaced."""
    letters = list(text)
    hit, how = rng.random(len(letters)) < share, rng.integers(4, size=len(letters))
    other = rng.choice(list(string.ascii_lowercase), len(letters))
    out, skip = [], False
    for i, letter in enumerate(letters):
        following = letters[i + 1] if i + 1 < len(letters) else ""
        if skip or not hit[i] or not letter.isalpha():
            out += [] if skip else [letter]
            skip = False
            continue
        skip = how[i] == 2
        out += [("", letter * 2, following + letter, other[i])[how[i]]]
    return "".join(out)


def word_dropout(text: str, share: float, rng: np.random.Generator) -> str:
    """share: probability of each word to be left out."""
    words = text.split()
    drawn = rng.random(len(words))
    return " ".join(w for w, u in zip(words, drawn, strict=True) if u >= share or u == drawn.max())


def sentence_shuffle(text: str, share: float, rng: np.random.Generator) -> str:
    """share: of the sentences that change places among themselves, two at least."""
    found = np.array(re.split(r"(?<=[.;])\s+", text), dtype=object)
    moved = np.sort(rng.permutation(len(found))[: max(2, round(share * len(found)))])
    found[moved] = found[np.roll(moved, 1)]
    return " ".join(found)


def abbreviations(text: str, share: float, rng: np.random.Generator) -> str:
    """share: probability of each word or phrase of `ABBREVIATIONS` to be abbreviated."""
    return _ABBREVIATED.sub(lambda m: ABBREVIATIONS[m[0].lower()] if rng.random() < share else m[0], text)


def case(text: str, share: float, rng: np.random.Generator) -> str:
    """share: probability of each word to be in capitals."""
    return re.sub(r"\S+", lambda m: m[0].upper() if rng.random() < share else m[0], text)


def truncation(text: str, share: float, rng: np.random.Generator) -> str:
    """share: of the words, from the first on, that are kept; one at least."""
    words = text.split()
    return " ".join(words[: max(1, round(share * len(words)))])


def _of(
    change: Callable[[str, float, np.random.Generator], str],
    item: np.ndarray,
    share: float,
    rng: np.random.Generator,
    schema: Modality,
) -> np.ndarray:
    text = decode_text(item)
    changed = change(text, share, rng)
    return encode_text(changed if changed.strip() else text)


TEXT = (
    Corruption("typos", partial(_of, typos), (0.02, 0.05, 0.1, 0.2, 0.3)),
    Corruption("word_dropout", partial(_of, word_dropout), (0.1, 0.2, 0.35, 0.5, 0.7)),
    Corruption("sentence_shuffle", partial(_of, sentence_shuffle), (0.2, 0.4, 0.6, 0.8, 1.0), monotone=False),
    Corruption("abbreviations", partial(_of, abbreviations), (0.2, 0.4, 0.6, 0.8, 1.0)),
    Corruption("case", partial(_of, case), (0.2, 0.4, 0.6, 0.8, 1.0)),
    Corruption("truncation", partial(_of, truncation), (0.8, 0.6, 0.4, 0.25, 0.1)),
)
