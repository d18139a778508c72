"""The trained tokenizer is the same in every process, and a wrong one is noticed."""

import subprocess
import sys

import pytest

from medjax.data import tokenizer
from medjax.errors import UserError

TEXTS = [
    f"study {i}: {w} effusion, no {v} opacity" for i, (w, v) in enumerate([("left", "focal"), ("right", "new")] * 9)
]
# Every letter pair occurs equally often: the order in which ties are broken decides what is learnt.
TIES = ["abcdefgh bcdefgha cdefghab defghabc efghabcd fghabcde ghabcdef habcdefg"] * 4


def train(texts, directory, vocab_size=200, min_frequency=2):
    tokenizer.train(texts, directory, vocab_size, min_frequency)
    return tokenizer.load(directory / tokenizer.FOLDER)


def test_special_tokens_come_first_and_padding_is_zero(tmp_path):
    trained = train(TEXTS, tmp_path)
    assert [trained.token_to_id(t) for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [0, 1, 2, 3, 4]
    assert tokenizer.pad_id(trained) == 0


def test_text_is_lower_cased_and_framed(tmp_path):
    trained = train(TEXTS, tmp_path)
    tokens = trained.encode("LEFT Effusion").tokens
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert tokens == trained.encode("left effusion").tokens


def test_training_text_has_no_unknown_piece_and_reads_back(tmp_path):
    trained = train(TEXTS, tmp_path)
    unknown = trained.token_to_id("[UNK]")
    for text in TEXTS:
        encoding = trained.encode(text)
        assert unknown not in encoding.ids
        pieces = "".join(t.removeprefix("##") for t in encoding.tokens[1:-1])
        assert pieces == text.replace(" ", "")


def test_the_vocabulary_keeps_to_its_size(tmp_path):
    assert train(TEXTS, tmp_path, vocab_size=60).get_vocab_size() <= 60


def test_a_word_said_once_is_no_entry(tmp_path):
    trained = train([*TEXTS, "seen by Quinlan"], tmp_path)
    assert "effusion" in trained.get_vocab()
    assert "quinlan" not in trained.get_vocab()


def test_the_order_of_texts_does_not_matter(tmp_path):
    (tmp_path / "b").mkdir()
    assert train(TEXTS, tmp_path).get_vocab() == train(TEXTS[::-1], tmp_path / "b").get_vocab()


def test_every_process_learns_the_same_vocabulary(tmp_path):
    script = (
        "import sys; from pathlib import Path; from medjax.data import tokenizer\n"
        "tokenizer.train(sys.argv[2:], Path(sys.argv[1]), 60, 2)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "there"), *TIES], check=True, timeout=120)
    files = [(tmp_path / "there" / tokenizer.FOLDER / "tokenizer.json").read_bytes()]
    for i in range(3):
        tokenizer.train(TIES, tmp_path / str(i), 60, 2)
        files.append((tmp_path / str(i) / tokenizer.FOLDER / "tokenizer.json").read_bytes())
    assert len(set(files)) == 1


def test_no_tokenizer_is_an_error_that_names_the_path(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer at .*tokenizer\.json"):
        tokenizer.load(tmp_path)


def test_a_damaged_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer"):
        tokenizer.load(tmp_path)


def test_a_tokenizer_that_does_not_know_the_words_is_refused(tmp_path):
    trained = train(TEXTS, tmp_path)
    tokenizer.check_vocabulary(trained, TEXTS)
    with pytest.raises(UserError, match="knows too little of these reports"):
        tokenizer.check_vocabulary(trained, ["肺野清晰"])
