"""The page in a browser. MEDJAX_TEST_CHROMIUM names a Python that has QtWebEngine, which is Chromium: an environment
with PySide6-Addons 6.8, apart from that of the tests."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from served import NASTY, make_service, serving, vector

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict:
    """What `browse.py` saw."""
    python = os.environ.get("MEDJAX_TEST_CHROMIUM", "")
    if not python:
        pytest.skip("MEDJAX_TEST_CHROMIUM does not name a Python with QtWebEngine (pip install PySide6-Addons==6.8.3)")
    picture = tmp_path_factory.mktemp("page") / "page.png"
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_DISABLE_SANDBOX": "1"}
    with serving(make_service()) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        command = [python, str(SUPPORT / "browse.py"), address, str(picture)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert picture.stat().st_size > 10_000
    return json.loads(done.stdout.splitlines()[-1])


def order(query, keep=True) -> list[int]:
    table = make_service().table
    scores = np.where(keep, table.embeddings["image"].astype(np.float64) @ query, -np.inf)
    return np.argsort(-scores, kind="stable").tolist()


def test_a_typed_query_shows_what_numpy_finds(seen):
    steps = seen["steps"]
    assert steps["start"]["numbers"] == list(range(24)) and "not" in steps["start"]["rule"]
    assert steps["text"]["numbers"] == order(vector("effusion"))[:24]
    assert steps["text"]["status"] == "The best 24 of 50 studies with image, by text"
    assert steps["text"]["rule"].startswith("Score: inner product")


def test_a_click_shows_the_neighbours_and_moves_the_focus_there(seen):
    service, step = make_service(), seen["steps"]["neighbours"]
    clicked = order(vector("effusion"))[2]
    others = np.arange(len(service.table)) != clicked
    assert step["numbers"] == order(service.table.embeddings["image"][clicked], others)[:24]
    assert step["like"] == "id-" + service.table.ids[clicked].tobytes().hex() and step["focus"] == "results"
    kept = others & (service.split_of == "test")
    expected = order(service.table.embeddings["image"][clicked], kept)[: kept.sum()]
    assert seen["steps"]["filtered"]["numbers"] == expected


def test_an_error_is_shown_in_place_of_results(seen):
    step = seen["steps"]["error"]
    assert step["error"] == "there is no study 10000; the index has 50" and not step["numbers"] and not step["status"]


def test_words_of_the_data_are_shown_as_words_and_nothing_was_stopped_or_failed(seen):
    for step in seen["steps"].values():
        assert step["title"] == f"Search {NASTY}" and step["foreign"] == 0
        assert step["notes"] == NASTY
    assert [c for c in seen["complaints"] if "400" not in c] == []
