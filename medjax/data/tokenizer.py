"""Tokenizers in the Hugging Face layout: WordPiece trained on a data set's own training reports, or brought along."""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from medjax.errors import UserError

FOLDER = "tokenizer"
MAX_UNKNOWN = 0.2
MIN_PATIENTS = 5  # of a word of sensitive texts
_CHUNK = 1000
_FILE, _CONFIG, _VOCABULARY = "tokenizer.json", "tokenizer_config.json", "vocab.txt"
_ROLES = ("pad", "unk", "cls", "sep", "mask")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train(
    texts: Iterable[str],
    directory: Path,
    vocab_size: int,
    min_frequency: int,
    patients: Iterable[Hashable] | None = None,
    min_patients: int = 1,
) -> int:
    """Trains on lower-cased texts and writes `directory/tokenizer`; returns the vocabulary's size.

    A word piece seen fewer than `min_frequency` times does not enter the vocabulary. Nor does a word, whole or in
    pieces longer than a letter that other words do not have, that stands in the texts of fewer than `min_patients`
    patients: rare words are often names and record numbers, which a vocabulary would tell to whoever gets the model.
    Texts are gone through once, and only their words are kept.

    patients: of each text, as any hashable; by default every text is of a patient of its own.
    """
    counts, letters = _count(texts, patients, min_patients)
    vocabulary = _learn(counts, letters, vocab_size, min_frequency).get_vocab()
    tokenizer = _untrained(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(_SPECIAL))
    ends = [("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / _FILE))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": token for name, token in zip(_ROLES, _SPECIAL, strict=True)},
    }
    (folder / _CONFIG).write_text(json.dumps(config, indent=1) + "\n")
    return tokenizer.get_vocab_size()


def _untrained(model: models.Model) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _count(texts: Iterable[str], patients: Iterable[Hashable] | None, least: int) -> tuple[dict[str, int], set[str]]:
    """How often each word occurs that at least `least` patients have, and the letters of all words; a letter within a
    word is written ##letter."""
    normal, counts, letters = _untrained(models.WordPiece(unk_token="[UNK]")), Counter(), set()
    of: dict[str, set[Hashable]] = {}
    every = itertools.count() if patients is None else patients
    for text, patient in zip(texts, every, strict=patients is not None):
        words = [word for word, _ in normal.pre_tokenizer.pre_tokenize_str(normal.normalizer.normalize_str(text))]
        counts.update(words)
        for word in set(words):
            found = of.setdefault(word, set())
            if len(found) < least:
                found.add(patient)
    for word in counts:
        letters |= {word[0], *(f"##{letter}" for letter in word[1:])}
    return {word: n for word, n in counts.items() if len(of[word]) >= least}, letters


def _learn(counts: Mapping[str, int], letters: set[str], vocab_size: int, min_frequency: int) -> tokenizers.Tokenizer:
    """A tokenizer with the same vocabulary in every process that is given the same words."""
    tokenizer = _untrained(models.WordPiece(unk_token="[UNK]"))
    # The trainer numbers inner letters in the order of a randomly seeded hash map and breaks ties by number: without
    # numbers given here every run would learn other pieces. The limit would drop letters at random where they tie.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*_SPECIAL, *sorted(x for x in letters if x.startswith("##") and len(x) > 2)],
        initial_alphabet=sorted({x[-1] for x in letters}),
        limit_alphabet=2**20,
        show_progress=False,
    )
    repeated = (" ".join([word] * min(_CHUNK, n - i)) for word, n in counts.items() for i in range(0, n, _CHUNK))
    tokenizer.train_from_iterator(repeated, trainer)
    return tokenizer


def adopt(source: str | Path, directory: Path) -> int:
    """Copies the tokenizer of a folder, and nothing else, to `directory/tokenizer`; returns the vocabulary's size."""
    source, folder = Path(source), directory / FOLDER
    tokenizer = load(source)
    folder.mkdir(parents=True, exist_ok=True)
    if (source / _FILE).is_file():
        shutil.copyfile(source / _FILE, folder / _FILE)
    else:
        tokenizer.save(str(folder / _FILE))
    if (source / _CONFIG).is_file():
        shutil.copyfile(source / _CONFIG, folder / _CONFIG)
    return vocabulary_size(tokenizer)


def load(folder: str | Path) -> tokenizers.Tokenizer:
    """Loads `folder/tokenizer.json`, or BERT's older `vocab.txt` with `tokenizer_config.json`.

    Lengths stored with it do not apply: texts are neither cut nor filled up, but its padding is set to its own token.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    folder = Path(folder)
    config = _read_config(folder / _CONFIG)
    if (folder / _FILE).is_file():
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(folder / _FILE))
        except Exception as error:  # the Rust side raises plain Exception
            raise UserError(f"{folder / _FILE} is not a tokenizer: {error}") from None
    elif (folder / _VOCABULARY).is_file():
        tokenizer = _word_pieces(folder / _VOCABULARY, config)
    else:
        raise UserError(
            f"no tokenizer at {folder / _FILE}, nor BERT's {_VOCABULARY} beside it; give the folder of a fast "
            "tokenizer of Hugging Face (AutoTokenizer.from_pretrained(...).save_pretrained(folder) writes one)"
        )
    tokenizer.no_truncation()
    number, token = _padding(tokenizer, config)
    tokenizer.enable_padding(pad_id=number, pad_token=token)  # without a length a single text stays as it is
    return tokenizer


def has_tokenizer(folder: str | Path) -> bool:
    """Whether `load` would find one."""
    return any((Path(folder) / name).is_file() for name in (_FILE, _VOCABULARY))


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); copy it again") from None


def _word_pieces(path: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """BERT's tokenizer as its slow files describe it."""
    names = {name: _content(config.get(f"{name}_token", token)) for name, token in zip(_ROLES, _SPECIAL, strict=True)}
    vocabulary = {word: i for i, word in enumerate(path.read_text("utf-8").rstrip("\n").split("\n"))}
    if missing := [names[role] for role in ("unk", "cls", "sep") if names[role] not in vocabulary]:
        raise UserError(f"{path} lacks {', '.join(missing)}; it is no vocabulary of BERT")
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=names["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([token for token in names.values() if token in vocabulary])
    first, last = ((names[role], vocabulary[names[role]]) for role in ("cls", "sep"))
    tokenizer.post_processor = processors.BertProcessing(last, first)
    return tokenizer


def _content(token: Any) -> str:
    """Special tokens stand in configurations as strings, or as dicts of their properties."""
    return token["content"] if isinstance(token, Mapping) else token


def _padding(tokenizer: tokenizers.Tokenizer, config: Mapping[str, Any]) -> tuple[int, str]:
    """The padding token as the configuration names it, else as stored, else under any of its usual names."""
    if config.get("pad_token"):
        token = _content(config["pad_token"])
        if (number := tokenizer.token_to_id(token)) is not None:
            return number, token
    if tokenizer.padding:
        return tokenizer.padding["pad_id"], tokenizer.padding["pad_token"]
    for name in ("[PAD]", "<pad>", "<|endoftext|>"):
        if (number := tokenizer.token_to_id(name)) is not None:
            return number, name
    return 0, tokenizer.id_to_token(0) or "[PAD]"


def pad_id(tokenizer: tokenizers.Tokenizer) -> int:
    """The id of the padding token of a tokenizer that `load` returned."""
    return tokenizer.padding["pad_id"]


def vocabulary_size(tokenizer: tokenizers.Tokenizer) -> int:
    """How many rows a table of its pieces needs; ids may leave gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def unknown_share(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> float:
    """The share of the pieces of texts that the tokenizer does not know; 0 where it knows every byte."""
    unknown = next((u for name in ("[UNK]", "<unk>") if (u := tokenizer.token_to_id(name)) is not None), None)
    ids = [i for text in texts for i in tokenizer.encode(text, add_special_tokens=False).ids]
    return ids.count(unknown) / max(len(ids), 1)


def check_vocabulary(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> None:
    """Raises UserError where more than a fifth of the pieces of `texts` are unknown: the wrong tokenizer."""
    share = unknown_share(tokenizer, texts)
    if share > MAX_UNKNOWN:
        raise UserError(
            f"the tokenizer knows too little of these reports: {share:.0%} of the pieces are unknown (limit "
            f"{MAX_UNKNOWN:.0%}); give one of their language, or leave --tokenizer out to train one"
        )
