"""Examples come over with their pictures, and with nothing that runs or fetches."""

import numpy as np

from medjax.data.readers.image import encode_png
from medjax.evaluation.page import Page, image_tag
from medjax.evaluation.reporting.examples import examples

PNG = encode_png(np.full((3, 3), 9, np.uint8)).tobytes()


def test_cards_come_over_as_they_were(tmp_path):
    cards = [("right", f"<b>has it</b><br>3 &lt; 4{image_tag(PNG, 'a picture')}"), ("", "wrong")]
    page = Page("t")
    page.heading("Called right and wrong")
    page.heading("MI", 3)
    page.cards(cards)
    page.heading("Other")
    page.cards(cards[1:])
    page.save(tmp_path / "report.html")
    first, second = examples(tmp_path / "report.html")
    assert (first.heading, list(first.cards)) == ("Called right and wrong: MI", cards)
    assert (second.heading, list(second.cards)) == ("Other", cards[1:])
    assert len(examples(tmp_path / "report.html", most=1)) == 1
    assert examples(tmp_path / "none.html") == []


def test_somebody_elses_page_brings_no_script(tmp_path):
    evil = (
        '<h3><script>x()</script>A</h3><div class="cards"><div class="card evil" onclick="x()">a<script>x()</script>'
        '<img src="http://a/b.png"><img src="data:image/svg+xml;base64,AAAA"><img alt="&quot;x" onload="x()" '
        'src="data:image/png;base64,AAAA"><a href="javascript:x()">b</a>&lt;i&gt;</div></div><div class="card">no</div>'
    )
    (tmp_path / "report.html").write_text(evil)
    ((kind, inner),) = examples(tmp_path / "report.html")[0].cards
    assert kind == ""
    assert inner == 'ax()<img alt="&quot;x" src="data:image/png;base64,AAAA">b&lt;i&gt;'
