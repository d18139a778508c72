"""A self-contained HTML page: text, tables and figures, all inline."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

_CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c1c1c;max-width:1150px;margin:2em auto;padding:0 1em}
h1{font-size:1.6em;margin-bottom:.2em} h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #ddd}
h3{font-size:1em;margin-top:1.4em}
table{border-collapse:collapse;margin:.6em 0;font-size:.93em}
th,td{padding:.25em .8em .25em 0;text-align:left;vertical-align:top}
th{border-bottom:1px solid #888;font-weight:600} tr:nth-child(even) td{background:#f7f7f7}
img{max-width:100%;height:auto} .note{background:#fff6e0;border-left:4px solid #e0a800;padding:.5em .9em;margin:.6em 0}
.cards{display:flex;flex-wrap:wrap;gap:.7em}
.card{border:1px solid #ddd;border-radius:4px;padding:.5em;width:220px;font-size:.82em}
.card.query{background:#eef4fb} .card.right{border-color:#2e8b57;border-width:2px} .small{color:#666;font-size:.85em}
code{background:#f2f2f2;padding:0 .2em}
"""


class Page:
    """Builds a page from top to bottom."""

    def __init__(self, title: str, subtitle: str = ""):
        self._title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="small">{html.escape(subtitle)}</p>']

    def heading(self, text: str, level: int = 2) -> None:
        """A heading; level 2 or 3."""
        self._parts.append(f"<h{level}>{html.escape(text)}</h{level}>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def note(self, text: str) -> None:
        """A paragraph that must be seen."""
        self._parts.append(f'<p class="note">{html.escape(text)}</p>')

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table of anything that prints well."""
        cells = "".join(f"<th>{html.escape(str(x))}</th>" for x in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(str(x))}</td>" for x in row) + "</tr>" for row in rows)
        self._parts.append(f"<table><tr>{cells}</tr>{body}</table>")

    def figure(self, png: bytes, caption: str = "") -> None:
        """A picture with a caption, which is also its text for those who cannot see it."""
        self._parts.append(f'<p>{image_tag(png, caption)}<br><span class="small">{html.escape(caption)}</span></p>')

    def cards(self, cards: Sequence[tuple[str, str]]) -> None:
        """Boxes in a row: (CSS class, inner HTML already escaped)."""
        self._parts.append(
            '<div class="cards">' + "".join(f'<div class="card {c}">{x}</div>' for c, x in cards) + "</div>"
        )

    def link(self, target: str, text: str) -> None:
        """A paragraph that leads to another file; `target` is relative to the page."""
        self._parts.append(f'<p><a href="{html.escape(target, quote=True)}">{html.escape(text)}</a></p>')

    def save(self, path: Path) -> None:
        """Writes the file."""
        head = f'<meta charset="utf-8"><title>{html.escape(self._title)}</title><style>{_CSS}</style>'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(self._parts)}</body></html>\n")


def image_tag(png: bytes, alt: str = "") -> str:
    """An inline picture."""
    return f'<img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
