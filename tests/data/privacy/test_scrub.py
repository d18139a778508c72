"""Rules that take names, numbers and dates out of reports, and leave findings alone."""

import pytest

from medjax.data.privacy.scrub import as_date, basic, without


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("born 1950-02-03, seen 03/04/2019 and 3.4.19", "born [date], seen [date] and [date]"),
        ("on 12 March 2020, March 12, 2020 and Jan 3", "on [date], [date] and [date]"),
        ("studied 20190403 at 10:30", "studied [date] at 10:30"),
        ("MRN 00471155, accession: AC-99881", "[number], [number]"),
        ("record 12345678", "[number]"),
        ("call (030) 1234-5678 or +44 20 7946 0958.", "call [phone] or [phone]."),
        ("write to a.b@c.org or https://x.org/p/1", "write to [email] or [url]"),
        ("Dr. Smith-Jones and Prof. J. Müller agree", "[name] and [name] agree"),
        ("read by DR SMITH.", "read by [name]."),
        ("dr. house said", "[name] said"),
        ("Patient: Ada Lovelace, well", "[name], well"),
    ],
)
def test_what_names_somebody_is_taken_out(text, expected):
    assert basic(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Lesion of 12.5 x 3.4 mm at T4/5, grade 3/4.",
        "Heart rate 72 bpm, QTc 440 ms, blood pressure 120/80.",
        "Grade 3 may represent malignancy; marked 3 mm decrease, separate 2 mm nodule.",
        "MR BRAIN: no 3 mm nodule. Patient rotated.",
        "Compared with 2019; 4.5-5.0 cm within 24-48 hours; 512 x 512 pixels.",
        "Sinus rhythm. ST elevation in V1-V4, 1200-1500 mL.",
    ],
)
def test_findings_stay(text):
    assert basic(text) == text


def test_declared_identifiers_go_in_any_form():
    text = "Lovelace, ADA was born on 10 December 1815 (12/10/1815). Mr Lovelaces' shadow. ada-negative."
    out = without(text, ["Lovelace^Ada", "1815-12-10"])
    assert out == "[name], [name] was born on [date] ([date]). Mr Lovelaces' shadow. [name]-negative."
    assert without(text, []) == text


def test_dates_are_read_as_usually_written():
    assert as_date("2020-03-04T10:00:00") == as_date("20200304") == as_date("04.03.2020")
    assert as_date("Ada") is None and as_date("2020-99-99") is None
