"""Reports: tokens of fixed length; sentences in random order or left out in training."""

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
    """length: tokens, with [CLS] and [SEP]; longer reports are cut. Augmentation: shuffle puts the sentences in random
    order, sentence_drop is the probability of each to be left out (at least one stays).
    """

    kind: Literal["text"] = "text"
    length: int = 128
    shuffle: bool = False
    sentence_drop: float = 0.0


@dataclass(frozen=True)
class TextTransform:
    """uint8[n] UTF-8 -> `tokens` int32[length], padded on the right, and `length` int32[], the number of real ones."""

    config: TextConfig
    tokenizer: tokenizers.Tokenizer
    kind: ClassVar[str] = "text"

    @classmethod
    def create(cls, config: TextConfig, schema: Modality, directory: Path) -> "TextTransform":
        """Loads the data set's tokenizer."""
        tokenizer = tok.load(directory / tok.FOLDER)
        tokenizer.no_padding()
        tokenizer.enable_truncation(config.length)
        return cls(config, tokenizer)

    def prepare(self, raw: np.ndarray) -> str | dict[str, np.ndarray]:
        """The tokens, or the text itself where augmentation changes it before it is tokenised."""
        text = decode_text(raw)
        if not text.strip():
            raise UserError("the text is empty")
        return text if self.config.shuffle or self.config.sentence_drop else self._tokens(text)

    def finish(self, prepared: str | dict[str, np.ndarray], rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """`tokens` int32[length] and `length` int32[]."""
        if not isinstance(prepared, str):
            return prepared
        return self._tokens(prepared if rng is None else self._augment(prepared, rng))

    def _tokens(self, text: str) -> dict[str, np.ndarray]:
        ids = self.tokenizer.encode(text).ids
        tokens = np.full(self.config.length, tok.pad_id(self.tokenizer), np.int32)
        tokens[: len(ids)] = ids
        return {"tokens": tokens, "length": np.int32(len(ids))}

    def _augment(self, text: str, rng: np.random.Generator) -> str:
        sentences = np.array(re.split(r"(?<=[.;])\s+", text), dtype=object)
        if self.config.sentence_drop:
            keep = rng.random(len(sentences)) >= self.config.sentence_drop
            keep[rng.integers(len(sentences))] = True
            sentences = sentences[keep]
        if self.config.shuffle:
            sentences = rng.permutation(sentences)
        return " ".join(sentences)

    def empty(self) -> dict[str, np.ndarray]:
        """Padding only; the length is 1, so that attention has something to look at."""
        return {"tokens": np.full(self.config.length, tok.pad_id(self.tokenizer), np.int32), "length": np.int32(1)}

    def raw(self, value: Any) -> np.ndarray:
        """From a string."""
        if not isinstance(value, str):
            raise UserError(f"text must be a string, got {type(value).__name__}")
        return encode_text(value)

    def spec(self) -> dict[str, Any]:
        """Length, vocabulary and padding; the tokenizer itself travels as files."""
        size, pad = self.tokenizer.get_vocab_size(), tok.pad_id(self.tokenizer)
        return {"kind": "text", "length": self.config.length, "vocab_size": size, "pad_id": pad}
