"""Pages escape what they are given and need no other file."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from medjax.data.readers.image import encode_png
from medjax.evaluation.page import Page, image_tag

EVIL = "<script>alert('x')</script> & \"quotes\""
PNG = encode_png(np.full((3, 3), 9, np.uint8)).tobytes()


class Reader(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words += data


def read(page, tmp_path) -> Reader:
    page.save(tmp_path / "deep" / "page.html")
    reader = Reader()
    reader.feed((tmp_path / "deep" / "page.html").read_text())
    return reader


@pytest.mark.parametrize(
    "fill",
    [
        lambda p: p.heading(EVIL),
        lambda p: p.text(EVIL),
        lambda p: p.note(EVIL),
        lambda p: p.table([EVIL], [[EVIL]]),
        lambda p: p.figure(PNG, EVIL),
    ],
)
def test_text_is_shown_and_never_run(fill, tmp_path):
    page = Page(EVIL, EVIL)
    fill(page)
    reader = read(page, tmp_path)
    assert "script" not in reader.tags
    assert reader.words.count(EVIL) >= 4  # title, heading, subtitle and what was filled in


def test_nothing_is_fetched(tmp_path):
    page = Page("title")
    page.figure(PNG, "a figure")
    page.cards([("query", image_tag(PNG, "card"))])
    reader = read(page, tmp_path)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    sources = [v for k, v in reader.attributes if k in ("src", "href")]
    assert len(sources) == 2 and all(s.startswith("data:image/png;base64,") for s in sources)
    assert "url(" not in (tmp_path / "deep" / "page.html").read_text()


def test_a_picture_is_inline_bit_for_bit():
    encoded = re.search(r"base64,([^\"]+)\"", image_tag(PNG, 'a "quoted" text')).group(1)
    assert base64.b64decode(encoded) == PNG


def test_a_link_is_escaped(tmp_path):
    page = Page("title")
    page.link('a"><script>.html', EVIL)
    reader = read(page, tmp_path)
    assert ("href", 'a"><script>.html') in reader.attributes
    assert "script" not in reader.tags and EVIL in reader.words
