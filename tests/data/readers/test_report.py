"""Reports fall into their sections whatever the order and the spelling of the headings, and no word gets lost."""

import pytest

from medjax.data.readers.report import choose, description, read_report, sections
from medjax.errors import UserError

FULL = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with cough  // pneumonia?

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  ___

 FINDINGS:

 The lungs are clear.  Heart size: normal.
 There is no effusion.

 IMPRESSION:

 No acute process.
"""


def test_headings_in_capitals_name_their_sections():
    assert sections(FULL) == {
        "": "FINAL REPORT",
        "examination": "CHEST (PA AND LAT)",
        "indication": "___ year old woman with cough // pneumonia?",
        "technique": "Chest PA and lateral",
        "findings": "The lungs are clear. Heart size: normal. There is no effusion.",
        "impression": "No acute process.",
    }  # the comparison is a blank that de-identification left


def test_any_order_gives_the_same_sections():
    a = "FINDINGS: Clear.\nIMPRESSION: Normal.\nHISTORY: Cough."
    b = "HISTORY: Cough.\nIMPRESSION: Normal.\nFINDINGS: Clear."
    assert sections(a) == sections(b) == {"findings": "Clear.", "impression": "Normal.", "history": "Cough."}


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("CONCLUSION", "impression"),
        ("Impression", "impression"),
        ("impressions ", "impression"),
        ("FINDINGS AND IMPRESSION", "findings"),
        ("FINDINGS/IMPRESSION", "findings"),
        ("REASON FOR EXAM", "indication"),
        ("CLINICAL HISTORY", "history"),
        ("Comparison", "comparison"),
        ("RECOMMENDATION(S)", "recommendation(s)"),
        ("CHEST FINDINGS", "findings"),
        ("WET READ", "wet read"),
        ("___ CHEST RADIOGRAPH", "chest radiograph"),
    ],
)
def test_headings_with_one_meaning_have_one_name(heading, name):
    assert sections(f"{heading}: The text.") == {name: "The text."}


def test_a_report_without_line_breaks_is_split_at_known_headings_in_capitals():
    flat = " ".join(FULL.split())
    assert {k: v for k, v in sections(flat).items() if k} == {k: v for k, v in sections(FULL).items() if k}
    assert sections("FINDINGS: Clear. In summary: normal. Study: limited.") == {
        "findings": "Clear. In summary: normal. Study: limited."
    }


def test_headings_of_organs_stay_in_the_findings():
    report = "TECHNIQUE: CT.\nFINDINGS:\nLUNGS: Clear.\nHEART: Large.\nIMPRESSION: Cardiomegaly.\nADDENDUM: None."
    assert sections(report) == {
        "technique": "CT.",
        "findings": "LUNGS: Clear. HEART: Large.",
        "impression": "Cardiomegaly. ADDENDUM: None.",
    }


def test_a_section_that_comes_twice_is_joined_and_an_empty_one_left_out():
    assert sections("FINDINGS: One.\nHISTORY:\nFINDINGS: Two.\nCOMPARISON: ___, _____.") == {"findings": "One. Two."}
    assert sections("") == sections(" \n\n___\n") == {}


def test_blanks_of_any_length_are_one():
    assert sections("FINDINGS: Seen by Dr. _______ on __.")["findings"] == "Seen by Dr. ___ on ___."


def test_no_word_is_lost():
    words = FULL.replace("COMPARISON:  ___", "").split()
    headings = {"EXAMINATION:", "INDICATION:", "TECHNIQUE:", "FINDINGS:", "IMPRESSION:"}
    assert " ".join(sections(FULL).values()).split() == [w for w in words if w not in headings]


def test_the_description_is_findings_and_impression():
    assert description(FULL) == "The lungs are clear. Heart size: normal. There is no effusion. No acute process."
    assert choose(FULL, ("impression",)) == "No acute process."
    assert choose(FULL, ("impression", "technique")) == "No acute process. Chest PA and lateral"


@pytest.mark.parametrize(
    "report",
    [
        "EXAM: Chest.\n\nCOMPARISON: ___.\n\nThe lungs are clear.",
        "EXAM: Chest.\n\nPA AND LATERAL VIEWS OF THE CHEST: The lungs are clear.\n",
        "The lungs are clear.",
        "Chest.\n \t\nThe lungs\nare clear.\n\n___\n\n",
    ],
)
def test_without_findings_and_impression_the_last_paragraph_describes(report):
    assert description(report) == "The lungs are clear."
    assert choose(report, ("history",)) == ""


def test_nothing_describes_a_report_of_blanks():
    assert description("___\n\nFINDINGS: ___") == ""


def test_a_long_line_of_capitals_is_split_in_reasonable_time():
    report = "A" * 500_000 + "\n" + "FINDINGS " * 50_000
    assert sections(report) == {"": " ".join(report.split())}


def test_files_are_read_as_utf8_or_latin1(tmp_path):
    for coding in ("utf-8", "utf-8-sig", "latin-1"):
        (tmp_path / "r.txt").write_bytes("FINDINGS: Größe.".encode(coding))
        assert sections(read_report(tmp_path / "r.txt")) == {"findings": "Größe."}


@pytest.mark.parametrize(("data", "message"), [(b"a\0b", "is not text"), (b"a" * (2**20 + 1), "more than 1048576")])
def test_files_that_are_no_reports_are_refused(tmp_path, data, message):
    (tmp_path / "r.txt").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_report(tmp_path / "r.txt")
    with pytest.raises(UserError, match=r"none\.txt does not exist"):
        read_report(tmp_path / "none.txt")
