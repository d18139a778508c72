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
th,td{padding:.25em .9em .25em .2em;text-align:left;vertical-align:top}
th{border-bottom:1px solid #888;font-weight:600} tr:nth-child(even) td{background:#f7f7f7}
img{max-width:100%;height:auto} .note{background:#fff6e0;border-left:4px solid #e0a800;padding:.5em .9em;margin:.6em 0}
.cards{display:flex;flex-wrap:wrap;gap:.7em}
.card{border:1px solid #ddd;border-radius:4px;padding:.5em;width:220px;font-size:.82em}
.card.query{background:#eef4fb} .card.right{border-color:#2e8b57;border-width:2px} .small{color:#666;font-size:.85em}
code{background:#f2f2f2;padding:0 .2em} h4{font-size:.93em;margin:1em 0 .3em}
tbody th{font-weight:400;border:0} tr:nth-child(even) th[scope=row]{background:#f7f7f7} li{margin:.3em 0}
.wide{overflow-x:auto} .whole{white-space:nowrap} details{margin:.6em 0} summary{cursor:pointer;color:#1f5fa8}
@media (max-width:600px){body{margin:.6em auto;font-size:16px} .card{width:44%} table{font-size:.85em}}
@media print{body{max-width:none;margin:0;font-size:10pt} .wide{overflow:visible} h2,h3,h4{break-after:avoid}
tr,img,.card,.note{break-inside:avoid} details::details-content{content-visibility:visible;height:auto}
.note,.card.right,.card.query,td,th{print-color-adjust:exact;-webkit-print-color-adjust:exact} a{color:inherit}}
"""


class Page:
    """Builds a page from top to bottom."""

    def __init__(self, title: str, subtitle: str = ""):
        self._title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="small">{html.escape(subtitle)}</p>']

    def heading(self, text: str, level: int = 2) -> None:
        """A heading; level 2, 3 or 4."""
        self._parts.append(f"<h{level}>{html.escape(text)}</h{level}>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def note(self, text: str) -> None:
        """A paragraph that must be seen."""
        self._parts.append(f'<p class="note">{html.escape(text)}</p>')

    def small(self, text: str) -> None:
        """A paragraph of lesser weight."""
        self._parts.append(f'<p class="small">{html.escape(text)}</p>')

    def list(self, items: Sequence[str]) -> None:
        """Points, one below the other."""
        self._parts.append("<ul>" + "".join(f"<li>{html.escape(x)}</li>" for x in items) + "</ul>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table of anything that prints well; the first cell of a row is its heading."""
        self._parts.append(_table(header, rows))

    def details(self, summary: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table that opens at a click, and in print is open."""
        self._parts.append(f"<details><summary>{html.escape(summary)}</summary>{_table(header, rows)}</details>")

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
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        head += f"<title>{html.escape(self._title)}</title><style>{_CSS}</style>"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(self._parts)}</body></html>\n")


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    top = "".join(f'<th scope="col">{html.escape(str(x))}</th>' for x in header)
    body = "".join(f"<tr>{''.join(_cell(i, x) for i, x in enumerate(row))}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(column: int, content: object) -> str:
    text = html.escape(str(content))
    whole = ' class="whole"' if text.endswith("]") and len(text) < 32 else ""  # an interval stays on one line
    return f"<td{whole}>{text}</td>" if column else f'<th scope="row">{text}</th>'


def image_tag(png: bytes, alt: str = "") -> str:
    """An inline picture."""
    return f'<img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
