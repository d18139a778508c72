"""Radiology reports: their sections by heading, and the part that describes the picture."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from medjax.errors import UserError

MAX_BYTES = 2**20  # a megabyte of report is no report

_HEADINGS = {
    "findings": "findings, finding, findings and impression, findings/impression, impression and findings, description",
    "impression": "impression, impressions, conclusion, conclusions, opinion, summary",
    "indication": "indication, indications, clinical indication, indication for study, reason for exam, "
    "reason for examination, reason for this examination, reason for study, reason for the study",
    "history": "history, clinical history, clinical information, patient history, clinical data",
    "technique": "technique, techniques, protocol, procedure",
    "comparison": "comparison, comparisons, comparison study, comparison exam, prior studies",
    "examination": "examination, exam, study, type of examination, exam type",
    "recommendation": "recommendation, recommendations",
    "notification": "notification, notifications",
}
_NAMES = {name: section for section, names in _HEADINGS.items() for name in names.split(", ")}
_DESCRIBES = ("findings", "impression")
_KNOWN = "|".join(re.escape(name) for name in sorted(_NAMES, key=len, reverse=True))
# At the start of a line any words in capitals, or a known heading in any case; inside a line, as in reports that lost
# their line breaks, a known heading in capitals after a space.
_HEADING = re.compile(
    rf"^[ \t]*(?P<words>[A-Z_][A-Z0-9_ /&,()'-]{{1,60}}|(?i:{_KNOWN}))[ \t]*:"
    rf"|(?<=\s)(?P<inside>{_KNOWN.upper()})[ \t]*:",
    re.MULTILINE,
)
_ENDS_KNOWN = re.compile(rf"(?:^|.* )({_KNOWN})")
_BLANK = re.compile(r"_{2,}")
_WORD = re.compile(r"[^\W_]")


def read_report(path: str | Path) -> str:
    """The text of a report file, UTF-8 or, as older archives have it, Latin-1.

    Raises:
      UserError: the file is missing, larger than a megabyte, or not text.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"report {path} does not exist")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"report {path} has {path.stat().st_size} bytes, more than {MAX_BYTES}; it is no report")
    raw = path.read_bytes()
    if b"\0" in raw:
        raise UserError(f"report {path} is not text; remove or replace it")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def sections(report: str) -> dict[str, str]:
    """`{section: text}` in the order of the report, white space made single.

    Headings with the same meaning have one name: findings, impression, indication, history, technique, comparison,
    examination, recommendation, notification ("Conclusion:" is the impression, "FINDINGS AND IMPRESSION:" the
    findings); other headings in capitals keep theirs, in lower case. Under findings and impression such a heading is
    part of the text ("LUNGS: clear."). What stands before the first heading has the name "". A section that comes twice
    is joined; one without a word, or with only what de-identification left of it ("___"), is left out.
    """
    out: dict[str, str] = {}
    for name, text in _parts(report):
        if _WORD.search(text):
            out[name] = f"{out[name]} {text}" if name in out else text
    return out


def _parts(report: str) -> list[tuple[str, str]]:
    marks = [(0, 0, "")]
    for found in _HEADING.finditer(report):
        heading = " ".join(_BLANK.sub(" ", found["words"] or found["inside"]).lower().split())
        known = _ENDS_KNOWN.fullmatch(heading)
        if known or marks[-1][2] not in _DESCRIBES:
            marks.append((found.start(), found.end(), _NAMES[known[1]] if known else heading))
    marks.append((len(report), len(report), ""))
    texts = [" ".join(_BLANK.sub("___", report[at:end]).split()) for (_, at, _), (end, _, _) in pairwise(marks)]
    return [(name, text) for (_, _, name), text in zip(marks, texts, strict=False)]


def choose(report: str, names: Sequence[str]) -> str:
    """The named sections, one after the other. Of a report with neither findings nor impression, where one of them is
    asked for, the last paragraph stands for it, without its heading; "" if nothing is left.
    """
    parts = sections(report)
    chosen = [parts[name] for name in names if name in parts]
    if set(names) & set(_DESCRIBES) and not set(parts) & set(_DESCRIBES):
        chosen.append(_last_paragraph(report))
    return " ".join(x for x in chosen if x)


def description(report: str) -> str:
    """Findings and impression."""
    return choose(report, _DESCRIBES)


def _last_paragraph(report: str) -> str:
    paragraphs = [p for p in re.split(r"\n[ \t]*\n", report) if _WORD.search(p)]
    return next((text for _, text in reversed(_parts(paragraphs[-1])) if _WORD.search(text)), "") if paragraphs else ""
