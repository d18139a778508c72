"""A WordPiece tokenizer in the Hugging Face layout: trained on a data set's own training reports, or brought along."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from medjax.errors import UserError

FOLDER = "tokenizer"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MAX_UNKNOWN = 0.2


def train(texts: Iterable[str], directory: Path, vocab_size: int, min_frequency: int) -> int:
    """Trains on lower-cased texts and writes `directory/tokenizer`; returns the vocabulary's size.

    A word piece seen fewer than `min_frequency` times does not enter the vocabulary, so that rare words, names among
    them, do not either.
    """
    vocabulary = _learn(list(texts), vocab_size, min_frequency).get_vocab()
    tokenizer = _untrained(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(_SPECIAL))
    ends = [("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": token for name, token in zip(("pad", "unk", "cls", "sep", "mask"), _SPECIAL, strict=True)},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return tokenizer.get_vocab_size()


def _untrained(model: models.Model) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _learn(texts: list[str], vocab_size: int, min_frequency: int) -> tokenizers.Tokenizer:
    """A tokenizer with the same vocabulary in every process that is given the same texts."""
    tokenizer = _untrained(models.WordPiece(unk_token="[UNK]"))
    pieces = (tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)) for text in texts)
    # The trainer numbers inner letters in the order of a randomly seeded hash map and breaks ties by number: without
    # numbers given here every run would learn other pieces. The limit would drop letters at random where they tie.
    inner = sorted({f"##{letter}" for text in pieces for word, _ in text for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*_SPECIAL, *inner],
        limit_alphabet=2**20,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def adopt(source: str | Path, directory: Path) -> int:
    """Copies a tokenizer directory that the user brings; returns the vocabulary's size."""
    tokenizer = load(source)
    shutil.copytree(source, directory / FOLDER, dirs_exist_ok=True)
    return tokenizer.get_vocab_size()


def load(folder: str | Path) -> tokenizers.Tokenizer:
    """Loads `folder/tokenizer.json`.

    Raises:
      UserError: there is none.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise UserError(
            f"no tokenizer at {path}; give the folder of a Hugging Face fast tokenizer (with tokenizer.json)"
        )
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises plain Exception
        raise UserError(f"{path} is not a tokenizer: {error}") from None


def pad_id(tokenizer: tokenizers.Tokenizer) -> int:
    """The id of the padding token, under any of its usual names."""
    for name in ("[PAD]", "<pad>", "<|endoftext|>"):
        if (found := tokenizer.token_to_id(name)) is not None:
            return found
    return 0


def check_vocabulary(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> None:
    """Raises UserError where more than a fifth of the pieces of `texts` are unknown: the wrong tokenizer."""
    unknown = next((u for name in ("[UNK]", "<unk>") if (u := tokenizer.token_to_id(name)) is not None), None)
    if unknown is None:
        return
    ids = [i for encoding in tokenizer.encode_batch(list(texts)) for i in encoding.ids]
    share = ids.count(unknown) / max(len(ids), 1)
    if share > _MAX_UNKNOWN:
        raise UserError(
            f"the tokenizer knows too little of these reports: {share:.0%} of the pieces are unknown (limit "
            f"{_MAX_UNKNOWN:.0%}); give one of their language, or leave --tokenizer out to train one"
        )
