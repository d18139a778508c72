"""Reports become tokens of fixed length; sentences move as wholes."""

import json

import numpy as np
import pytest

from medjax.data import tokenizer
from medjax.data.manifest import Modality
from medjax.data.records import decode_text, encode_text
from medjax.data.transforms.text import TextConfig, TextTransform
from medjax.errors import UserError

SENTENCES = ("left pleural effusion.", "the heart is enlarged.", "regular sinus rhythm;", "no focal opacity.")
REPORT = " ".join(SENTENCES)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.train([REPORT] * 2, folder, 500, 1)
    return folder


@pytest.fixture(scope="module")
def make(directory):
    return lambda **options: TextTransform.create(TextConfig(**options), Modality("text"), directory)


def finish(t, text, seed=None):
    return t.finish(t.prepare(encode_text(text)), None if seed is None else np.random.default_rng(seed))


def words(t, tokens) -> list[str]:
    return [t.tokenizer.id_to_token(int(i)) for i in tokens["tokens"][: tokens["lengths"]]]


def test_tokens_stand_between_their_marks_and_padding(make):
    t = make(length=12)
    got = finish(t, "Left effusion.")
    assert words(t, got) == ["[CLS]", "left", "effusion", ".", "[SEP]"]
    assert got["lengths"] == 5 and got["tokens"].shape == (12,) and got["tokens"].dtype == np.int32
    assert np.all(got["tokens"][5:] == t.spec()["pad_id"])


def test_a_long_report_is_cut_and_keeps_its_end_mark(make):
    short, long = make(length=6), make(length=64)
    got, whole = words(short, finish(short, REPORT)), words(long, finish(long, REPORT))
    assert len(got) == 6 and got[-1] == "[SEP]"
    assert got[:-1] == whole[:5]


def test_shuffling_moves_whole_sentences(make):
    t = make(length=64, shuffle=True)
    orders = set()
    for seed in range(60):
        pieces = " ".join(words(t, finish(t, REPORT, seed))[1:-1])
        starts = [pieces.index(" ".join(words(t, finish(t, s))[1:-1])) for s in SENTENCES]
        orders.add(tuple(np.argsort(starts)))
    assert len(orders) > 15
    assert len(words(t, finish(t, REPORT))) == len(words(t, finish(t, REPORT, 0)))


def test_leaving_sentences_out_keeps_their_order_and_at_least_one(make):
    t = make(length=64, sentence_drop=0.95)
    whole = [" ".join(words(t, finish(t, s))[1:-1]) for s in SENTENCES]
    alone = set()
    for seed in range(80):
        pieces = " ".join(words(t, finish(t, REPORT, seed))[1:-1])
        kept = [s for s in whole if s in pieces]
        assert kept and pieces == " ".join(kept)
        alone |= {kept[0]} if len(kept) == 1 else set()
    assert alone == set(whole)


def test_sentences_become_items_in_order(make):
    t = make(length=64, sentences=3)
    parts = t.split(encode_text(REPORT))
    assert tuple(decode_text(p) for p in parts) == SENTENCES
    assert t.items == 3 and t.spec()["sentences"] == 3
    assert words(t, t.finish(t.prepare(parts[1]), None)) == ["[CLS]", "the", "heart", "is", "enlarged", ".", "[SEP]"]
    whole = make(length=64)
    assert [decode_text(p) for p in whole.split(encode_text(REPORT))] == [REPORT]
    assert whole.items == 1


@pytest.mark.parametrize("options", [dict(sentences=-1), dict(sentences=2, shuffle=True), dict(sentence_sample=-1),
                                     dict(sentences=2, sentence_drop=0.1), dict(sentences=2, sentence_sample=1),
                                     dict(one_section=True), dict(one_section=True, sections=("a",))])  # fmt: skip
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError, match=r"sentence|section"):
        TextConfig(**options)


def pieces(t, text, seed=None) -> str:
    return " ".join(words(t, finish(t, text, seed))[1:-1])


@pytest.mark.parametrize("number", [1, 2, 9])
def test_a_sample_of_sentences_keeps_their_order(make, number):
    t = make(length=64, sentence_sample=number)
    whole = [pieces(t, s) for s in SENTENCES]
    seen = set()
    for seed in range(60):
        kept = [s for s in whole if s in pieces(t, REPORT, seed)]
        assert pieces(t, REPORT, seed) == " ".join(kept) and len(kept) == min(number, 4)
        seen.add(tuple(kept))
    assert len(seen) == {1: 4, 2: 6, 9: 1}[number]
    assert pieces(t, REPORT) == " ".join(whole)  # without random numbers


SECTIONS = (
    "EXAMINATION: left heart.\n\nIMPRESSION: no focal opacity.\n\nFINDINGS: the heart is enlarged. left effusion."
)


def through(t, text, seed=None) -> list[str]:
    items = [t.finish(t.prepare(x), None if seed is None else np.random.default_rng(seed)) for x in
             t.split(encode_text(text))]  # fmt: skip
    return [" ".join(words(t, x)[1:-1]) for x in items]


def test_sections_are_chosen_in_the_order_asked(make):
    findings, impression = "the heart is enlarged . left effusion .", "no focal opacity ."
    both = make(length=64, sections=("findings", "impression"))
    assert through(both, SECTIONS) == [f"{findings} {impression}"]
    assert through(make(length=64, sections=("impression",)), SECTIONS) == [impression]
    assert both.spec()["sections"] == ["findings", "impression"] and "sections" not in make().spec()
    by_sentence = make(length=64, sections=("findings",), sentences=3)
    assert through(by_sentence, SECTIONS) == ["the heart is enlarged .", "left effusion ."]


def test_a_report_without_these_sections_stays_whole(make):
    t = make(length=64, sections=("findings",))
    assert through(t, REPORT) == through(make(length=64), REPORT)


def test_one_section_is_taken_at_random_in_training_only(make):
    t = make(length=64, sections=("findings", "impression"), one_section=True)
    findings, impression = "the heart is enlarged . left effusion .", "no focal opacity ."
    assert through(t, SECTIONS) == [f"{findings} {impression}"]
    taken = [through(t, SECTIONS, seed)[0] for seed in range(60)]
    assert set(taken) == {findings, impression} and 15 < taken.count(findings) < 45


def test_an_absent_report_has_one_token_to_look_at(make):
    empty = make(length=12).empty()
    assert empty["lengths"] == 1 and np.all(empty["tokens"] == 0)


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_text_is_refused(make, text):
    with pytest.raises(UserError, match="the text is empty"):
        make(length=12).prepare(encode_text(text))
    (part,) = make(length=12, sentences=2).split(encode_text(text))
    assert decode_text(part) == text  # left for `prepare` to refuse


def test_what_is_no_string_is_refused(make):
    with pytest.raises(UserError, match="must be a string, got int"):
        make(length=12).raw(3)


def test_limits_stored_in_a_tokenizer_do_not_apply(make, directory, tmp_path):
    brought = tokenizer.load(directory / tokenizer.FOLDER)
    brought.enable_padding(length=40)
    brought.enable_truncation(3)
    (tmp_path / tokenizer.FOLDER).mkdir()
    brought.save(str(tmp_path / tokenizer.FOLDER / "tokenizer.json"))
    t = TextTransform.create(TextConfig(length=20), Modality("text"), tmp_path)
    got, expected = finish(t, REPORT), finish(make(length=20), REPORT)
    np.testing.assert_array_equal(got["tokens"], expected["tokens"])
    assert got["lengths"] == expected["lengths"]


WORDS = (
    "[PAD]",
    "</s>",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "heart",
    "is",
    "en",
    "##larged",
    "Left",
    "left",
    ".",
)


def bert_folder(path, **config):
    path.mkdir()
    (path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(b"weights")
    return path


def test_another_tokenizer_than_the_data_sets_is_read_where_one_is_named(make, tmp_path):
    t = make(length=9, tokenizer=str(bert_folder(tmp_path / "bert")))
    got = finish(t, "The heart is ENLARGED.")
    assert words(t, got) == ["[CLS]", "the", "heart", "is", "en", "##larged", ".", "[SEP]"]
    assert t.spec()["vocab_size"] == len(WORDS) != make(length=9).spec()["vocab_size"]


def test_older_files_of_bert_read_as_transformers_reads_them(tmp_path):
    transformers = pytest.importorskip("transformers")
    for lower in (True, False):
        folder = bert_folder(tmp_path / str(lower), do_lower_case=lower, tokenizer_class="BertTokenizer")
        theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), tokenizer.load(folder)
        for text in ("Left heart is enlarged.", "  LÉFT [MASK] heart, 心 ", "[SEP]x"):
            assert ours.encode(text).ids == theirs(text)["input_ids"]


def test_the_padding_is_the_one_that_the_tokenizer_names(make, tmp_path):
    for i, token in enumerate(("</s>", {"content": "</s>", "lstrip": False})):
        t = make(length=12, tokenizer=str(bert_folder(tmp_path / str(i), pad_token=token)))
        assert t.spec()["pad_id"] == 1
        assert np.all(t.empty()["tokens"] == 1) and np.all(finish(t, "heart")["tokens"][3:] == 1)


def test_a_tokenizer_is_copied_without_the_model_beside_it(make, tmp_path):
    tokenizer.adopt(bert_folder(tmp_path / "bert", pad_token="</s>"), tmp_path)
    copy = tmp_path / tokenizer.FOLDER
    assert {p.name for p in copy.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    there, here = (make(length=12, tokenizer=str(folder)) for folder in (tmp_path / "bert", copy))
    assert here.spec() == there.spec()
    np.testing.assert_array_equal(finish(here, REPORT)["tokens"], finish(there, REPORT)["tokens"])
