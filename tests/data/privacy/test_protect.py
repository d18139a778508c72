"""Nothing in a data set of sensitive studies names a patient, and who has the key can still find a study."""

import json
import stat

import numpy as np
import planted
import pytest
from tiny_source import SCHEMA, TinySource, study, unreadable

from medjax.data import manifest as manifests
from medjax.data import tokenizer
from medjax.data.building.build import REJECTED, Options, build_dataset
from medjax.data.ids import hash_id, pseudonym
from medjax.data.items import FileItem
from medjax.data.manifest import SPLITS, Modality
from medjax.data.privacy import keys
from medjax.data.privacy.hiding import hide
from medjax.data.privacy.protect import Privacy, protect, whois
from medjax.data.records import decode_text
from medjax.data.sources import Columns, Schema, Table
from medjax.errors import LayoutError, UserError

KEY = b"k" * 32
COLUMNS = Columns(
    image=("image",),
    text=("report",),
    numeric=("crp",),
    label=("sick",),
    patient="patient",
    example="id",
    split="split",
    time="seen",
    identifier=("name", "born"),
)
SENSITIVE = Schema(**{**{k: getattr(SCHEMA, k) for k in SCHEMA.__dataclass_fields__}, "sensitive": True})


def build(source, directory, **options):
    options = {"id_key": KEY, "max_rejected_fraction": 0.3, **options}
    return build_dataset(source, directory, Options(**options), lambda done, total: None)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """The table of an export full of names."""
    pytest.importorskip("pydicom")
    return planted.write_export(tmp_path_factory.mktemp("export") / "files")


def table(path, **options) -> Table:
    return Table(path, COLUMNS, "planted", "CC0-1.0", **options)


def test_of_fifty_planted_patients_nothing_is_in_any_file_of_the_data_set(export, tmp_path):
    manifest = build(table(export), tmp_path / "d")
    assert planted.leaks(tmp_path / "d") == []
    assert manifest.rejected == 6 and sum(s.examples for s in manifest.splits.values()) == 44
    assert manifest.id_key == keys.fingerprint(KEY) != ""


@pytest.mark.parametrize("loose", [dict(scrub="none"), dict(sensitive=False, scrub="basic")])
def test_the_search_finds_what_an_unprotected_build_keeps(export, tmp_path, loose):
    source = table(export, **{k: v for k, v in loose.items() if k == "sensitive"})
    build(source, tmp_path / "d", scrub=loose["scrub"])
    found = planted.leaks(tmp_path / "d")
    assert any("array_record" in x for x in found) == (loose["scrub"] == "none")
    assert any(REJECTED in x for x in found) == ("sensitive" in loose)


@pytest.mark.parametrize("name", [".gz", ".zip", ".png", ".npz", ".json"])
def test_the_search_looks_into_files(tmp_path, name):
    person, path = planted.people()[3], tmp_path / f"a{name}"
    if name == ".gz":
        import gzip

        path.write_bytes(gzip.compress(person.family.encode()))
    elif name == ".zip":
        import zipfile

        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("b.txt", person.number)
    elif name == ".png":
        planted._png(tmp_path, person, 0).rename(path)
    elif name == ".npz":
        np.savez_compressed(path, np.array([person.given]))
    else:
        path.write_bytes(person.born.encode("utf-16"))
    assert planted.leaks(tmp_path)


def test_rejections_hash_the_study_and_the_owner_of_the_key_finds_it(export, tmp_path):
    build(table(export), tmp_path / "d")
    lines = [json.loads(line) for line in (tmp_path / "d" / REJECTED).read_text().splitlines()]
    person = planted.people()[20]
    (line,) = (x for x in lines if x["example"] == pseudonym(person.file, KEY))
    assert line["reason"].startswith("column 'crp' holds 'id-")
    (found,) = whois(table(export), KEY, line["example"])
    assert person.file in found and person.family in found.split(":")[-1]
    torn = next(p for i, p in enumerate(planted.people()) if i % 10 == 9)
    path = next(export.parent.glob(f"{torn.file}.*"))
    assert list(whois(table(export), KEY, pseudonym(str(path), KEY))) == [f"file {path}"]
    assert list(whois(table(export), b"another key 12345", line["example"])) == []


def test_ids_are_those_of_the_key_and_pseudonyms_stand_for_them(tmp_path):
    assert not np.array_equal(hash_id("a", KEY), hash_id("a", b"another key 12345"))
    name = pseudonym("a", KEY)
    assert np.array_equal(hash_id(name, KEY), hash_id("a", KEY)) and pseudonym(name, KEY) == name
    source = protect(TinySource([study("s", "train", "p")], SENSITIVE), Privacy(KEY))
    (protected,) = source.studies()
    assert (protected.name, protected.patient) == (pseudonym("s", KEY), pseudonym("p", KEY))
    assert np.array_equal(hash_id(protected.read().patient_id, KEY), hash_id("p", KEY))


def test_sensitive_data_without_a_key_are_refused_and_others_left_alone():
    with pytest.raises(UserError, match="need a key"):
        protect(TinySource([], SENSITIVE), Privacy())
    open_source = TinySource([study("s", "train")])
    assert protect(open_source, Privacy()) is open_source


def test_an_index_of_sensitive_files_needs_a_word(tmp_path):
    with pytest.raises(UserError, match="--file_names_are_safe"):
        protect(TinySource([], SENSITIVE), Privacy(KEY), index_only=True)
    item = FileItem("image", tmp_path / "a.png")
    given = [study("s", "train", labs=[item])]
    kept = protect(TinySource(given, SENSITIVE), Privacy(KEY, file_names=True), index_only=True)
    assert kept.studies()[0].read().items["labs"] == [item]


def test_identifiers_of_a_study_leave_its_text_only():
    words = "Effusion known to Quinlan since 7 July 1901; quinlan, MRN 4711."
    given = study("4711", "train", words=words)
    given = type(given)("4711", "p", "train", given.read, ("Quinlan^Ada", "1901-07-07"))
    other = study("other", "train", words="Quinlan procedure")
    texts = [
        decode_text(s.read().items["text"][0])
        for s in protect(TinySource([given, other], SENSITIVE), Privacy(KEY)).studies()
    ]
    assert texts == ["Effusion known to [name] since [date]; [name], MRN [name].", "Quinlan procedure"]


def test_a_scrubber_of_ones_own_sees_the_identifiers(monkeypatch):
    import types

    module = types.ModuleType("mine")
    module.scrub = lambda text, identifiers: f"{text} without {sorted(identifiers)}"
    monkeypatch.setitem(__import__("sys").modules, "mine", module)
    given = type(study("s", "train"))("s", "p", "train", study("s", "train").read, ("Ada",))
    (protected,) = protect(TinySource([given], SENSITIVE), Privacy(KEY, scrub="mine:scrub")).studies()
    assert "without ['Ada'" in decode_text(protected.read().items["text"][0])
    for wrong in ("mine:none", "nowhere:f", "thorough"):
        with pytest.raises(UserError, match=f"--scrub={wrong}"):
            protect(TinySource([given], SENSITIVE), Privacy(KEY, scrub=wrong))


def test_flagged_studies_are_counted_refused_or_masked(tmp_path):
    schema = Schema("x", "x", "CC0-1.0", {"image": Modality("image")})
    bright = np.zeros((40, 40), np.uint8)
    bright[2:5, 2:20], bright[20, 20] = 255, 255

    def flagged(name, split):
        made = study(name, split, text=[], labs=[])

        def read():
            example = made.read()
            example.items, example.labels, example.flags = {"image": [_png(bright)]}, {}, ("burned-in text",)
            return example

        return type(made)(name, name, split, read)

    source = TinySource([flagged(s, s) for s in SPLITS], schema)
    kept = build(source, tmp_path / "keep")
    assert any("3 studies may show burned-in text" in note for note in kept.notes)
    with pytest.raises(UserError, match="flagged: burned-in text"):
        build(source, tmp_path / "reject", flagged="reject")
    from medjax.data.readers.image import decode

    (masked,) = protect(source, Privacy(KEY, flagged="mask")).studies()[0].read().items["image"]
    out = np.asarray(decode(masked))
    assert out.shape == (40, 40) and out[2:5, 2:20].max() == 0 and out[20, 20] == 255


def _png(pixels):
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return np.frombuffer(out.getvalue(), np.uint8)


def test_a_face_is_cut_from_the_front_of_a_head_and_the_back_stays():
    from medjax.data.privacy.masking import mask_face
    from medjax.data.volumes import Volume

    values = np.full((20, 20, 20), -1000, np.int16)
    values[2:18, 2:18, 2:18] = 40
    out = mask_face(Volume(values, (1.0, 1.0, 1.0), "HU")).values
    assert (out[2:12, 2:6] == -1000).all() and (out[:, 8:] == values[:, 8:]).all()
    assert (out[15:] == values[15:]).all()  # the top of the head


@pytest.mark.parametrize(
    ("message", "gone", "kept"),
    [
        ("image /x/Ada Lovelace/1.png does not exist", ("Ada", "Lovelace", "png", "/"), "does not exist"),
        ("column 'crp' holds 'Lovelace', which is no number", ("Lovelace",), "which is no number"),
        ("study-1 is damaged", ("study-1",), "is damaged"),
        ("image 2020-03-04 and 12345678 cannot be read", ("2020", "5678"), "cannot be read"),
    ],
)
def test_messages_keep_their_own_words_and_no_others(message, gone, kept):
    hidden = hide(message, KEY, ["study-1"], ["crp"])
    assert kept in hidden and "id-" in hidden and not any(word in hidden for word in gone)
    assert hidden == hide(message, KEY, ["study-1"], ["crp"])


def test_errors_of_the_source_as_a_whole_stay_readable(export):
    wrong = Table(export, Columns(text=("repot",)), "planted", "CC0-1.0")
    with pytest.raises(LayoutError, match="did you mean 'report'"):
        protect(wrong, Privacy(KEY)).studies()


def test_an_unreadable_study_of_other_data_is_named(tmp_path):
    given = [*(study(s, s) for s in SPLITS), unreadable("torn", "train")]
    build(TinySource(given), tmp_path)
    assert "torn is damaged" in (tmp_path / REJECTED).read_text()


def test_the_default_key_is_made_once_for_its_owner_alone(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    first = keys.default_key()
    path = tmp_path / "config" / "medjax" / "id_key"
    assert str(path) in caplog.text and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first == keys.default_key() == path.read_bytes() and len(first) == 32
    assert keys.fingerprint(first) != keys.fingerprint(KEY) and first.hex() not in keys.fingerprint(first)


def test_a_key_inside_the_data_set_is_refused(tmp_path):
    with pytest.raises(UserError, match="keep it elsewhere"):
        keys.check_outside(tmp_path / "d" / "key", tmp_path / "d")
    keys.check_outside(tmp_path / "key", tmp_path / "d")


def test_dates_of_a_table_are_days_since_the_first_study_of_its_patient(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("patient,seen,crp\na,2020-03-01,1\nb,1999-01-01,1\na,2020-02-28,1\n")
    source = Table(path, Columns(numeric=("crp",), patient="patient", time="seen"), "t", "CC0-1.0")
    assert [s.read().time for s in source.studies()] == [2.0, 0.0, 0.0]


def test_words_of_few_patients_are_not_learnt(tmp_path):
    words = [f"effusion w{'abcdefghij'[i]}xyz" for i in range(10)] + ["effusion of quinlan"] * 9
    given = [study(f"t{i}", "train", patient=f"p{min(i, 13)}", words=w) for i, w in enumerate(words)]
    source = TinySource([*given, *(study(s, s) for s in SPLITS[1:])], SENSITIVE)
    build(source, tmp_path / "d", scrub="none")
    vocabulary = tokenizer.load(tmp_path / "d" / tokenizer.FOLDER).get_vocab()
    assert "effusion" in vocabulary and "quinlan" not in vocabulary
    assert not [piece for piece in vocabulary if "xyz" in piece or "quin" in piece or "##yz" in piece]
    assert {"q", "##x"} <= set(vocabulary)


def test_manifests_from_before_still_open(tmp_path):
    build(TinySource([study(s, s) for s in SPLITS]), tmp_path)
    raw = json.loads((tmp_path / manifests.FILE).read_text())
    for new in ("terms", "id_key"):
        del raw[new]
    (tmp_path / manifests.FILE).write_text(json.dumps(raw))
    assert manifests.load(tmp_path).id_key == "" and manifests.load(tmp_path).terms is None
