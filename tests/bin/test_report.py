"""The report as a user runs it, on results that are written here."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_results import write, zero_shot

from medjax.data.readers.image import encode_png
from medjax.evaluation.page import Page, image_tag

pytestmark = pytest.mark.end_to_end
ROOT = Path(__file__).parents[2]
EVIL = "<script>alert(1)</script>"
PNG = encode_png(np.full((3, 3), 9, np.uint8)).tobytes()


def _run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "medjax.bin.report", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == status, done.stderr[-3000:]
    return done


class Reader(HTMLParser):
    """Tables as rows of cells, and what a page is made of."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.attributes, self.rows, self.words, self._in = [], [], [], "", ""
        self.feed(path.read_text())
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        self._in = tag
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self._in in ("td", "th"):
            self.rows[-1][-1] += data
        if self._in != "style":
            self.words += data


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> tuple[Path, Reader]:
    """A page of three models, two of them on the same examples, one of sensitive data."""
    folder = tmp_path_factory.mktemp("results")
    pair = {"own": {"value": 0.8, "low": 0.7, "high": 0.9}, "difference": {"value": 0.2, "low": 0.1, "high": 0.3}}
    own = write(folder / "own", zero_shot(notes=[EVIL], times=7, against={"place": "b", "findings": {"MI": pair}}))
    cards = Page("own")
    cards.heading("Called right and wrong")
    cards.cards([("right", f"called right{image_tag(PNG, 'an ECG')}")])
    cards.save(own.with_name("report.html"))
    write(folder / "other", zero_shot(name="b", mi=(0.6, 0.49, 0.7), times=3))
    hidden = write(folder / "hidden", zero_shot(name="c", digest="cc", sensitive=True, times=None))
    cards.save(hidden.with_name("report.html"))
    _run(f"--results={own},{folder}", f"--output={folder / 'out'}")
    return folder / "out", Reader(folder / "out" / "report.html")


def test_the_page_stands_alone_without_scripts(reported):
    text, reader = (reported[0] / "report.html").read_text(), reported[1]
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert not re.search(r"https?://|url\(|@import", text)
    assert all(v.startswith("data:image/png;base64,") for _, k, v in reader.attributes if k == "src")
    assert ("meta", "name", "viewport") in reader.attributes and "@media print" in text
    pictures = [v for tag, k, v in reader.attributes if tag == "img" and k == "alt"]
    assert len(pictures) == reader.tags.count("img") and all(pictures)
    assert {v for tag, k, v in reader.attributes if tag == "th" and k == "scope"} == {"col", "row"}
    assert sum(tag == "th" and k == "scope" for tag, k, _ in reader.attributes) == reader.tags.count("th")


def test_it_opens_with_whom_and_how_often(reported):
    reader = reported[1]
    assert ["d", "test", "300", "210", "7 times", "CC-BY-4.0 (attribution)"] in reader.rows
    assert ["d", "test", "300", "210", "not known", "CC-BY-4.0 (attribution)"] in reader.rows
    assert "scored 7 times" in reader.words and EVIL in reader.words
    assert "Intervals: 95 %, bootstrap over patients." in reader.words


def test_every_score_stands_beside_its_controls(reported):
    reader = reported[1]
    at = reader.rows.index(["MI", "AUROC", "0.800 [0.700, 0.900]", "0.500", "0.500", "-", "yes (chance)"])
    assert reader.rows[at - 2][3:6] == ["chance", "shuffled", "text only"]
    assert ["MI", "AUROC", "0.600 [0.490, 0.700]", "0.500", "0.500", "-", "not shown (chance)"] in reader.rows
    assert "For mean of findings that is 80 of 100 such pairs" in reader.words
    assert ["MI", "0.200 [0.100, 0.300]", "better"] in reader.rows


def test_models_on_the_same_examples_stand_side_by_side(reported):
    reader = reported[1]
    header = ["what", "score", "strongest control", "a (best, step 3)", "b (best, step 3)"]
    at = reader.rows.index(header)
    assert reader.rows[at + 2] == ["MI", "AUROC", "chance 0.500", "0.800 [0.700, 0.900]", "0.600 [0.490, 0.700]"]
    assert "Not comparable on d, test split" in reader.words


def test_examples_are_inside_unless_the_data_are_sensitive(reported):
    reader = reported[1]
    assert [v for tag, k, v in reader.attributes if k == "alt"].count("an ECG") == 1
    assert reader.words.count("called right") == 1 and "marked sensitive" in reader.words


def test_the_summary_holds_each_score_with_its_controls(reported):
    summary = json.loads((reported[0] / "summary.json").read_text())
    assert sorted(e["name"] for e in summary["evaluations"]) == ["hidden", "other", "own"]
    own = next(e for e in summary["evaluations"] if e["name"] == "own")
    score = next(s for s in own["scores"] if s["what"] == ["zero_shot", "MI", "auroc"])
    assert score["value"] == 0.8 and score["controls"] == {"chance": 0.5, "shuffled": 0.5} and score["clears"]
    assert own["data"]["times_opened"] == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "pass --workdir, the folder of a run, or --results="),
        (("--results={tmp}",), "pass --output=DIR"),
        (("--results={tmp}", "--output={tmp}/out"), "{tmp}/bad/results.json does not follow the format"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    content = zero_shot()
    content.pop("intervals")
    write(tmp_path / "bad", content)
    done = _run(*(a.format(tmp=tmp_path) for a in arguments), status=2)
    assert message.format(tmp=tmp_path) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")
