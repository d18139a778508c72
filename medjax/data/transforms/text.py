"""Reports: tokens of fixed length, whole or by sentences; these in random order or left out in training."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import tokenizers

from medjax.data import tokenizer as tok
from medjax.data.manifest import Modality
from medjax.data.records import decode_text, encode_text
from medjax.errors import UserError


@dataclass(frozen=True)
class TextConfig:
    """length: tokens of an item, with [CLS] and [SEP]; longer ones are cut. sentences: 0 makes one item of a report, n
    an item of each sentence, n at most unless `config.data.max_items` has a number for the modality. Augmentation, of
    whole reports: shuffle puts the sentences in random order, sentence_drop is the probability of each to be left out
    (at least one stays). tokenizer: folder of another than the data set's, as `medjax.data.tokenizer.load` reads it.
    """

    kind: Literal["text"] = "text"
    length: int = 128
    sentences: int = 0
    shuffle: bool = False
    sentence_drop: float = 0.0
    tokenizer: str = ""

    def __post_init__(self):
        if self.sentences < 0:
            raise UserError(
                f"text sentences must be 0 (whole reports) or how many a study brings, got {self.sentences}"
            )
        if self.sentences and (self.shuffle or self.sentence_drop):
            raise UserError("text shuffle and sentence_drop augment whole reports; use them with sentences=0")


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
        """The raw items that a report makes: itself, or with `sentences` each of these, in order."""
        if not self.config.sentences:
            return [raw]
        return [encode_text(s) for s in _sentences(decode_text(raw)) if s.strip()] or [raw]

    def prepare(self, raw: np.ndarray) -> str | dict[str, np.ndarray]:
        """The tokens, or the text itself where augmentation changes it before it is tokenised."""
        text = decode_text(raw)
        if not text.strip():
            raise UserError("the text is empty")
        return text if self.config.shuffle or self.config.sentence_drop else self._tokens(text)

    def finish(self, prepared: str | dict[str, np.ndarray], rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """`tokens` int32[length] and `lengths` int32[]."""
        if not isinstance(prepared, str):
            return prepared
        return self._tokens(prepared if rng is None else self._augment(prepared, rng))

    def _tokens(self, text: str) -> dict[str, np.ndarray]:
        ids = self.tokenizer.encode(text).ids
        tokens = np.full(self.config.length, tok.pad_id(self.tokenizer), np.int32)
        tokens[: len(ids)] = ids
        return {"tokens": tokens, "lengths": np.int32(len(ids))}

    def _augment(self, text: str, rng: np.random.Generator) -> str:
        sentences = np.array(_sentences(text), dtype=object)
        if self.config.sentence_drop:
            keep = rng.random(len(sentences)) >= self.config.sentence_drop
            keep[rng.integers(len(sentences))] = True
            sentences = sentences[keep]
        if self.config.shuffle:
            sentences = rng.permutation(sentences)
        return " ".join(sentences)

    def empty(self) -> dict[str, np.ndarray]:
        """Padding only; the length is 1, so that attention has something to look at."""
        return {"tokens": np.full(self.config.length, tok.pad_id(self.tokenizer), np.int32), "lengths": np.int32(1)}

    def raw(self, value: Any) -> np.ndarray:
        """From a string."""
        if not isinstance(value, str):
            raise UserError(f"text must be a string, got {type(value).__name__}")
        return encode_text(value)

    def spec(self) -> dict[str, Any]:
        """Length, vocabulary, padding, and sentences where they are items; the tokenizer itself travels as files."""
        size, pad = tok.vocabulary_size(self.tokenizer), tok.pad_id(self.tokenizer)
        split = {"sentences": self.config.sentences} if self.config.sentences else {}
        return {"kind": "text", "length": self.config.length, "vocab_size": size, "pad_id": pad, **split}


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.;])\s+", text)
