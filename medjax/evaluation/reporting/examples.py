"""Examples right and wrong, taken over from an evaluation's own report.html: text and inline pictures, nothing else."""

import html
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

_PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+")
_CLASSES = ("query", "right")


@dataclass(frozen=True)
class Row:
    """heading: that of the report above it. cards: (CSS class, inner HTML), as `Page.cards` takes them."""

    heading: str
    cards: tuple[tuple[str, str], ...]


def examples(report: Path, most: int = 24) -> list[Row]:
    """The first rows of cards of a report; none where there is no report or it shows no examples.

    A report may be anybody's: words are escaped, of elements only `b`, `br` and pictures that lie inside stay.
    """
    if not report.is_file():
        return []
    reader = _Reader()
    reader.feed(report.read_text(errors="replace"))
    return [Row(h, tuple(c)) for h, c in reader.rows if c][:most]


class _Reader(HTMLParser):
    """Follows the div elements of `Page.cards`."""

    def __init__(self):
        super().__init__()
        self.rows: list[tuple[str, list[tuple[str, str]]]] = []
        self._headings, self._heading, self._into = {2: "", 3: ""}, 0, 0
        self._divs: list[str] = []

    def handle_starttag(self, tag, attrs):
        attrs = {k: v or "" for k, v in attrs}
        if tag in ("h2", "h3"):
            self._heading = int(tag[1])
            self._headings |= {k: "" for k in self._headings if k >= self._heading}
        elif tag == "div":
            names = attrs.get("class", "").split()
            kind = "cards" if "cards" in names else "card" if "card" in names and "cards" in self._divs else ""
            self._divs.append(kind)
            if kind == "cards":
                self.rows.append((": ".join(h for h in self._headings.values() if h), []))
            elif kind == "card":
                self.rows[-1][1].append((" ".join(n for n in names if n in _CLASSES), ""))
        elif "card" in self._divs and tag in ("b", "br"):
            self._write(f"<{tag}>")
        elif "card" in self._divs and tag == "img" and _PICTURE.fullmatch(attrs.get("src", "")):
            alt = html.escape(attrs.get("alt", ""), quote=True)
            self._write(f'<img alt="{alt}" src="{attrs["src"]}">')

    def handle_endtag(self, tag):
        if tag in ("h2", "h3"):
            self._heading = 0
        elif tag == "div" and self._divs:
            self._divs.pop()
        elif tag == "b" and "card" in self._divs:
            self._write("</b>")

    def handle_data(self, data):
        if self._heading:
            self._headings[self._heading] += data
        elif "card" in self._divs:
            self._write(html.escape(data))

    def _write(self, text: str) -> None:
        kind, before = self.rows[-1][1][-1]
        self.rows[-1][1][-1] = (kind, before + text)
