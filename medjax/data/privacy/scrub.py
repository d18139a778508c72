"""Taking names, numbers and dates out of free text before it is tokenised or stored: a help, and no guarantee.

A scrubber is any function `(text, identifiers) -> text`; identifiers are the strings that the source itself declares
as naming the patient of this very study (names, record numbers, dates). What is taken out is replaced by a word in
brackets that says what it was, such as `[date]`, so that sentences stay readable and the vocabulary gains one word.
"""

import datetime
import importlib
import re
from collections.abc import Callable, Sequence

from medjax.errors import UserError

Scrubber = Callable[[str, Sequence[str]], str]

_MONTH = (
    r"(?:(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)\.?|May|MAY)"  # "grade 3 may represent" is no date
)
_TITLE = r"(?:(?i:drs?|doctor|prof(?:essor)?|mrs|frau|nurse)|Mr|MR\.|Ms|Miss|Mme|Herr|Sra?)"
_CAPITAL = r"(?:[A-Z]\.[ \t]*)*[^\W\d_a-zß-öø-ÿ][^\W\d_]+"
_NAME = rf"{_CAPITAL}(?:[ \t,-]+{_CAPITAL}){{0,2}}"
# In this order: what is longer or surer first. Dates of two numbers (3/4) are left: they are grades and fractions too.
_RULES: tuple[tuple[str, str], ...] = (
    ("email", r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    ("url", r"\b(?i:https?://|www\.)\S+"),
    ("date", r"\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ]\d{1,2}:\d{2}(?::\d{2})?(?:\.\d+)?)?\b"),
    ("date", r"\b\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})\b"),
    ("date", rf"\b\d{{1,2}}(?:st|nd|rd|th)?\.?[\s-](?:of\s+)?{_MONTH}(?:,?[\s-]+\d{{4}})?\b"),
    ("date", rf"\b{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{4}})?\b"),
    ("date", rf"\b{_MONTH},?\s+\d{{4}}\b"),
    ("date", r"\b(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\b"),
    ("number", r"\b(?i:MRN|MR#|ID|no\.|accession|acc|case|chart|record|SSN|NHS)(?![^\W_])[\s.:#-]*"
     r"(?i:no\.?|number)?[\s.:#-]*(?=[\w-]*\d)[\w-]{3,}"),
    ("phone", r"(?<![\w.])(?:\+\d{1,3}[\s.-]?)?(?:\(\d{2,5}\)[\s.-]?|\d{2,5}[\s.-])\d{2,4}[\s.-]?\d{3,5}(?!\w|[.-]\d)"),
    ("number", r"\b[A-Za-z]{0,4}[-_]?\d{5,}\b"),
    ("name", rf"\b{_TITLE}(?:\.\s*|:\s*|\s+)(?:{_NAME}|(?<=[Dd]r\.\s)[^\W\d_]+)"),
    ("name", rf"\b(?i:patient|name|patient'?s?\s+name)\s*:\s*{_NAME}"),
)  # fmt: skip
_COMPILED = tuple((f"[{what}]", re.compile(pattern)) for what, pattern in _RULES)
_FORMATS = ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y")
_SHORTEST = 3  # letters or digits of a part of an identifier that is looked for by itself


def keep(text: str, identifiers: Sequence[str] = ()) -> str:
    """Leaves the text as it is."""
    return text


def basic(text: str, identifiers: Sequence[str] = ()) -> str:
    """Takes out the identifiers of the study, then e-mail addresses, links, dates, telephone numbers, record numbers
    (five digits or more), and names after a title.

    Names that stand alone and are not declared stay, as do years, ages and times of day.
    """
    text = without(text, identifiers)
    for word, pattern in _COMPILED:
        text = pattern.sub(word, text)
    return text


def without(text: str, identifiers: Sequence[str]) -> str:
    """Takes out declared identifiers in any capitals: whole, in their parts of three letters or more, dates in any of
    their usual forms."""
    for word, dates in (("[date]", True), ("[name]", False)):
        found = {form for x in identifiers if (as_date(x.strip()) is not None) == dates for form in _forms(x)}
        if found:
            forms = "|".join(re.escape(form) for form in sorted(found, key=lambda x: (-len(x), x)))
            text = re.sub(rf"(?<![^\W_])(?:{forms})(?![^\W_])", word, text, flags=re.I)
    return text


def _forms(identifier: str) -> set[str]:
    """What of an identifier is looked for: itself, its parts (DICOM joins those of a name by ^), a date's spellings."""
    identifier = identifier.strip()
    if date := as_date(identifier):
        month, day = date.strftime("%B"), date.day
        written = (f"{day} {month} {date.year}", f"{month} {day}, {date.year}", f"{day} {month[:3]} {date.year}")
        short = (f"{date.day}.{date.month}.{date.year}", f"{date.month}/{date.day}/{date.year}")
        return {identifier, *(date.strftime(f) for f in _FORMATS), *written, *short}
    parts = [p for p in re.split(r"[\s^,;=_/.-]+", identifier) if len(p) >= _SHORTEST]
    whole = {identifier, " ".join(re.split(r"[\s^,;=]+", identifier))}
    return {x for x in (*whole, *parts) if len(x) >= 2}


def as_date(text: str) -> datetime.date | None:
    """A day written as in ISO 8601 (also with a time behind it) or in another usual way, else None."""
    for form in _FORMATS:
        try:
            return datetime.datetime.strptime(text[:10].strip(), form).date()
        except ValueError:
            continue
    return None


_BUILT_IN: dict[str, Scrubber] = {"basic": basic, "none": keep}


def make_scrubber(name: str) -> Scrubber:
    """The scrubber of `--scrub`: "basic", "none", or `module:function` of yours.

    Raises:
      UserError: there is no such module or function.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise UserError(f"--scrub={name} is none of {', '.join(_BUILT_IN)}, nor module:function of your own")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"--scrub={name} cannot be imported ({error}); is its folder in PYTHONPATH?") from None
    if not callable(found):
        raise UserError(f"--scrub={name} is no function of (text, identifiers)")
    return found
