"""Reports: tokens of fixed length, whole, by sections or by sentences; of these some, in some order, in training."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import tokenizers

from medjax.data import tokenizer as tok
from medjax.data.manifest import Modality
from medjax.data.readers.report import sections
from medjax.data.records import decode_text, encode_text
from medjax.errors import UserError

_BETWEEN = "\x1e"  # ASCII's record separator, between the sections of a raw item


@dataclass(frozen=True)
class TextConfig:
    """length: tokens of an item, with [CLS] and [SEP]; longer ones are cut. sections: those of a report that are kept,
    in this order, such as ("findings", "impression") (see `medjax.data.readers.report.sections`); () keeps the whole,
    and so does a report that has none of them. sentences: 0 makes one item of a report, n an item of each sentence, n
    at most unless `config.data.max_items` has a number for the modality.

    Augmentation, of whole reports: one_section takes one of the sections at random; sentence_sample takes so many
    sentences at random (ConVIRT takes one), in their order; sentence_drop is the probability of each to be left out (at
    least one stays); shuffle puts them in random order. tokenizer: folder of another than the data set's, as
    `medjax.data.tokenizer.load` reads it.
    """

    kind: Literal["text"] = "text"
    length: int = 128
    sections: tuple[str, ...] = ()
    sentences: int = 0
    one_section: bool = False
    sentence_sample: int = 0
    shuffle: bool = False
    sentence_drop: float = 0.0
    tokenizer: str = ""

    def __post_init__(self):
        if self.sentences < 0 or self.sentence_sample < 0:
            raise UserError(
                "text sentences and sentence_sample must be 0 (whole reports) or how many, got "
                f"{self.sentences} and {self.sentence_sample}"
            )
        if self.sentences and self.augments:
            raise UserError(
                "text one_section, sentence_sample, sentence_drop and shuffle augment whole reports; use them with "
                "sentences=0"
            )
        if self.one_section and len(self.sections) < 2:
            raise UserError(f"text one_section chooses among sections; name at least two, got {self.sections}")

    @property
    def augments(self) -> bool:
        """Whether a text changes before it is tokenised."""
        return bool(self.one_section or self.sentence_sample or self.shuffle or self.sentence_drop)


@dataclass(frozen=True)
class TextTransform:
    """uint8[n] UTF-8 -> `tokens` int32[length], padded on the right, and `lengths` int32[], the number of real ones."""

    config: TextConfig
    tokenizer: tokenizers.Tokenizer
    kind: ClassVar[str] = "text"

    @classmethod
    def create(cls, config: TextConfig, schema: Modality, directory: Path) -> "TextTransform":
        """Loads the tokenizer."""
        tokenizer = tok.load(config.tokenizer or directory / tok.FOLDER)
        tokenizer.enable_truncation(config.length)
        return cls(config, tokenizer)

    @property
    def items(self) -> int:
        """How many items a study may bring where `config.data.max_items` says nothing."""
        return self.config.sentences or 1

    def split(self, raw: np.ndarray) -> list[np.ndarray]:
        """The raw items that a report makes: itself, or its chosen sections, or with `sentences` each of these."""
        c = self.config
        if c.sections:
            found = sections(decode_text(raw))
            kept = [found[name] for name in c.sections if name in found]
            raw = encode_text((" " if c.sentences else _BETWEEN).join(kept)) if kept else raw
        if not c.sentences:
            return [raw]
        return [encode_text(s) for s in _sentences(decode_text(raw)) if s.strip()] or [raw]

    def prepare(self, raw: np.ndarray) -> str | dict[str, np.ndarray]:
        """The tokens, or the text itself where augmentation changes it before it is tokenised."""
        text = decode_text(raw)
        if not text.strip():
            raise UserError("the text is empty")
        return text if self.config.augments else self._tokens(text)

    def finish(self, prepared: str | dict[str, np.ndarray], rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """`tokens` int32[length] and `lengths` int32[]."""
        if not isinstance(prepared, str):
            return prepared
        return self._tokens(prepared if rng is None else self._augment(prepared, rng))

    def _tokens(self, text: str) -> dict[str, np.ndarray]:
        ids = self.tokenizer.encode(text.replace(_BETWEEN, " ")).ids
        tokens = np.full(self.config.length, tok.pad_id(self.tokenizer), np.int32)
        tokens[: len(ids)] = ids
        return {"tokens": tokens, "lengths": np.int32(len(ids))}

    def _augment(self, text: str, rng: np.random.Generator) -> str:
        c = self.config
        if c.one_section:
            parts = text.split(_BETWEEN)
            text = parts[rng.integers(len(parts))]
        found = np.array(_sentences(text.replace(_BETWEEN, " ")), dtype=object)
        if 0 < c.sentence_sample < len(found):
            found = found[np.sort(rng.choice(len(found), c.sentence_sample, replace=False))]
        if c.sentence_drop:
            keep = rng.random(len(found)) >= c.sentence_drop
            keep[rng.integers(len(found))] = True
            found = found[keep]
        if c.shuffle:
            found = rng.permutation(found)
        return " ".join(found)

    def empty(self) -> dict[str, np.ndarray]:
        """Padding only; the length is 1, so that attention has something to look at."""
        return {"tokens": np.full(self.config.length, tok.pad_id(self.tokenizer), np.int32), "lengths": np.int32(1)}

    def raw(self, value: Any) -> np.ndarray:
        """From a string."""
        if not isinstance(value, str):
            raise UserError(f"text must be a string, got {type(value).__name__}")
        return encode_text(value)

    def spec(self) -> dict[str, Any]:
        """Length, vocabulary, padding, and what of a report becomes items; the tokenizer itself travels as files."""
        size, pad = tok.vocabulary_size(self.tokenizer), tok.pad_id(self.tokenizer)
        split = {k: v for k in ("sentences", "sections") if (v := getattr(self.config, k))}
        if "sections" in split:
            split["sections"] = list(split["sections"])
        return {"kind": "text", "length": self.config.length, "vocab_size": size, "pad_id": pad, **split}


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.;])\s+", text)
