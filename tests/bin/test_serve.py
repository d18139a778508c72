"""The page's server: what it finds, what it refuses, and that it tells nobody else."""

import base64
import http.client
import io
import json
import logging
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from served import LABELS, NASTY, make_service, serving, vector

from medjax.bin.serve_guard import COOKIE, Guard, RefusedError
from medjax.bin.serve_index import check_data, check_encoder
from medjax.errors import UserError
from medjax.evaluation import store

ROOT = Path(__file__).parents[2]
TOKEN = "correct horse battery staple"


@pytest.fixture(scope="module")
def server():
    with serving(make_service()) as found:
        yield found


def ask(server, method, path, body=None, headers=None):
    """Status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def search(server, headers=None, **query):
    """Status and JSON of a search."""
    headers = {"Content-Type": "application/json", **(headers or {})}
    status, _, content = ask(server, "POST", "/api/search", json.dumps(query), headers)
    return status, json.loads(content)


def numbers(found) -> list[int]:
    return [study["number"] for study in found["results"]]


def png(rng) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def sent(name: str, content: bytes) -> dict:
    return {"name": name, "data": base64.b64encode(content).decode()}


def best(server, query, target, k, keep=True) -> list[int]:
    table = server.service.table
    scores = np.where(table.present[target] & keep, table.embeddings[target].astype(np.float64) @ query, -np.inf)
    return np.argsort(-scores, kind="stable")[:k].tolist()


def test_a_text_finds_what_numpy_finds(server):
    status, found = search(server, target="ecg", text="effusion", k=9)
    assert status == 200 and found["rule"] == "inner product" and found["query"] == ["text"]
    assert numbers(found) == best(server, vector(np.frombuffer(b"effusion", np.uint8)), "ecg", 9)
    table, first = server.service.table, found["results"][0]
    assert first["id"] == "id-" + table.ids[first["number"]].tobytes().hex()
    assert found["matching"] == table.present["ecg"].sum()


def test_filters_by_split_and_finding(server):
    query, service = vector("mass"), server.service
    keep = (service.split_of == "test") & (service.table.labels[:, 0] == 0)
    _, found = search(server, target="image", text="mass", split="test", label="effusion", state="absent", k=50)
    assert found["matching"] == keep.sum() > 0
    assert numbers(found) == best(server, query, "image", keep.sum(), keep)
    assert {s["split"] for s in found["results"]} == {"test"}


def test_picture_and_text_are_scored_jointly(server, rng):
    picture = png(rng)
    _, found = search(server, target="ecg", text="mass", files=[sent("a.png", picture)], k=6)
    assert found["rule"] == "joint score" and found["query"] == ["image", "text"]
    assert numbers(found) == best(server, vector("mass") * vector(picture), "ecg", 6)
    _, found = search(server, target="text", text="mass", files=[sent("a.png", picture)], k=6)
    assert found["rule"] == "mean inner product"
    assert numbers(found) == best(server, vector("mass") + vector(picture), "text", 6)


def test_neighbours_leave_out_the_study_itself_and_mark_its_patient(server):
    table = server.service.table
    _, found = search(server, target="image", like={"number": 4, "modality": "image"}, k=200)
    expected = best(server, table.embeddings["image"][4], "image", len(table), np.arange(len(table)) != 4)
    assert numbers(found) == expected[:-1] and found["matching"] == len(table) - 1
    assert [s["number"] for s in found["results"] if s["same_patient"]] == [5]


def test_without_a_query_nothing_is_scored_and_without_an_encoder_neighbours_work():
    with serving(make_service(encoder=False)) as server:
        _, found = search(server, target="image", k=3)
        assert numbers(found) == [0, 1, 2] and {s["score"] for s in found["results"]} == {None}
        status, answer = search(server, target="image", text="mass")
        assert status == 400 and "no encoder" in answer["error"]
        assert search(server, target="image", like={"number": 0, "modality": "text"})[0] == 200
        about = json.loads(ask(server, "GET", "/api/about")[2])
        assert not about["text"] and not about["files"]


def test_attributes_of_sensitive_data_are_not_shown(server):
    with serving(make_service(sensitive=True)) as other:
        assert search(other, target="image", k=1)[1]["results"][0]["attributes"] == {}
    assert search(server, target="image", k=1)[1]["results"][0]["attributes"].keys() == {"sex"}


def test_every_answer_forbids_foreign_content_and_what_came_in_is_only_ever_json(server):
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/api/about", "application/json")):
        status, headers, content = ask(server, "GET", path)
        assert status == 200 and headers.get_content_type() == kind
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        assert (NASTY in json.loads(content)["labels"]) if kind.endswith("json") else NASTY.encode() not in content


def test_the_page_loads_nothing_from_elsewhere_and_writes_no_html():
    folder = ROOT / "medjax" / "bin" / "serve_page"
    text = "".join(p.read_text() for p in folder.iterdir())
    assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\son\w+=", text)
    assert not re.search(r"<script(?! src=\"/page.js\" defer></script>)|<style|style=", text)


@pytest.mark.parametrize(
    "path",
    ["/../setup.py", "/index.json", "/page.html", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/api/../page.css"],
)
def test_no_path_leads_to_a_file(server, path):
    status, _, content = ask(server, "GET", path)
    assert status == 404 and json.loads(content) == {"error": "there is nothing at this address"}


@pytest.mark.parametrize("number", ["-1", "50", "../0", "1e3", "", "99999999999999"])
def test_previews_are_of_studies_of_the_index_alone(server, number):
    status, _, content = ask(server, "GET", f"/api/preview?number={number}&modality=image")
    assert status == 400 and "stud" in json.loads(content)["error"]


def test_a_preview_says_that_the_data_set_is_not_here(server):
    assert json.loads(ask(server, "GET", "/api/preview?number=0&modality=image")[2]).keys() == {"withheld"}
    status, _, content = ask(server, "GET", "/api/preview?number=0&modality=imgae")
    assert status == 400 and "did you mean 'image'" in json.loads(content)["error"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "8.8.8.8", "[::", ""])
def test_another_name_of_this_server_is_refused(server, host):
    assert ask(server, "GET", "/api/about", headers={"Host": host})[0] == 403


@pytest.mark.parametrize("host", ["localhost:9", "127.0.0.1", "[::1]:8765"])
def test_its_own_names_are_not(server, host):
    assert ask(server, "GET", "/api/about", headers={"Host": host})[0] == 200


def test_pages_of_other_sites_cannot_search(server):
    assert search(server, {"Origin": "http://evil.example"}, target="image")[0] == 403
    assert search(server, {"Origin": "null"}, target="image")[0] == 403
    assert search(server, {"Sec-Fetch-Site": "cross-site"}, target="image")[0] == 403
    here = f"127.0.0.1:{server.server_address[1]}"
    assert search(server, {"Origin": f"http://{here}"}, target="image")[0] == 200
    assert search(server, {"Content-Type": "text/plain"}, target="image")[0] == 415


def test_only_who_knows_the_token_is_answered():
    with serving(make_service(), TOKEN) as server:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer \xe9"},
            {"Cookie": f"{COOKIE}=x"},
        ):
            assert ask(server, "GET", "/", headers=headers)[0] == 401
            assert search(server, headers, target="image")[0] == 401
        assert search(server, {"Authorization": f"Bearer {TOKEN}"}, target="image")[0] == 200
        assert ask(server, "GET", "/?token=wrong")[0] == 401
        status, headers, _ = ask(server, "GET", f"/?token={TOKEN.replace(' ', '%20')}")
        cookie = headers["Set-Cookie"]
        assert status == 303 and headers["Location"] == "/" and "HttpOnly; SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert ask(server, "GET", "/api/about", headers={"Cookie": cookie.split(";")[0]})[0] == 200
        assert ask(server, "GET", f"/api/about?token={TOKEN.replace(' ', '%20')}")[0] == 401


def test_elsewhere_numbers_and_own_names_are_hosts_but_other_names_are_not():
    guard = Guard("0.0.0.0", TOKEN)
    known = {"Authorization": f"Bearer {TOKEN}"}
    for host in ("192.168.0.7:8765", socket.gethostname()):
        guard.check({"Host": host, **known}, False)
    with pytest.raises(RefusedError, match="Host"):
        guard.check({"Host": "evil.example", **known}, False)


def test_too_large_an_upload_is_refused_before_and_after_it_is_decoded(server):
    large = sent("a.png", bytes(4 * 2**20))
    status, answer = search(server, target="image", files=[large])
    assert status == 413 and "1 MB" in answer["error"]
    status, answer = search(server, target="image", files=[sent("a.png", bytes(2**20 + 1))])
    assert status == 413 and "1 MB" in answer["error"]
    headers = {"Content-Type": "application/json", "Content-Length": "9" * 30}
    assert ask(server, "POST", "/api/search", b"{}", headers)[0] == 413


@pytest.mark.parametrize(
    ("query", "match"),
    [
        ({"files": [sent("../a.png", b"x")]}, "name that is not taken"),
        ({"files": [sent("a.html", b"<script>")]}, "a.html is of no type"),
        ({"files": [sent("a.png", b"\x89PNG\r\n\x1a\nbroken")]}, "image a.png"),
        ({"files": [{"name": "a.png", "data": "!"}]}, "not base64"),
        ({"files": [sent("a.png", b"x")] * 5}, "at most 4"),
        ({"text": "x" * 5000}, "limit is 4000"),
        ({"text": 3}, "text of the query must be of type str"),
        ({"k": 0}, "between 1 and"),
        ({"k": True}, "type int"),
        ({"target": "imgae"}, "did you mean 'image'"),
        ({"split": "tset"}, "did you mean 'test'"),
        ({"label": "effusio"}, "did you mean 'effusion'"),
        ({"label": LABELS[0], "state": "maybe"}, "unknown state"),
        ({"like": {"number": 50, "modality": "image"}}, "no study 50"),
        ({"like": {"number": 1.5, "modality": "image"}}, "like of the query"),
        ({"texts": ""}, "did you mean 'text'"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(server, query, match):
    status, answer = search(server, **{"target": "image", **query})
    assert status == 400 and match in answer["error"] and "\n" not in answer["error"]
    assert "/tmp" not in answer["error"]


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"{}", b"[" * 10**5, b"\xff", b'{"target": NaN}'])
def test_a_body_that_is_no_query(server, body):
    assert ask(server, "POST", "/api/search", body, {"Content-Type": "application/json"})[0] == 400


def test_the_log_holds_no_content(server, caplog):
    with caplog.at_level(logging.INFO, "medjax.serve"):
        search(server, target="image", text="the name of a patient")
        ask(server, "GET", "/the/name/of/a/patient?token=secret")
        until = time.monotonic() + 20
        while len(caplog.messages) < 2 and time.monotonic() < until:  # written once the answer is out
            time.sleep(0.01)
    lines = sorted(re.sub(r"\d+ ms", "N ms", line) for line in caplog.messages)
    assert lines == ["GET (unknown) 404 N ms", "POST /api/search 200 N ms"]


def test_a_failure_of_the_server_shows_nothing_of_it(server, monkeypatch):
    monkeypatch.setattr(type(server.service), "about", lambda self: 1 / 0)
    status, _, content = ask(server, "GET", "/api/about")
    assert status == 500 and json.loads(content) == {"error": "the server failed at this request"}


def test_another_data_set_is_refused():
    other = SimpleNamespace(manifest=SimpleNamespace(name="other", digest=lambda: "ab" * 32))
    index = make_service().index
    index.about["data"]["manifest_sha256"] = "cd" * 32
    with pytest.raises(UserError, match=r"manifest cdcdcdcdcdcd.*'other' .manifest abababababab"):
        check_data(index, other)


@pytest.fixture(scope="module")
def embedded(phantom_run, tmp_path_factory) -> Path:
    """The index of the test split of the phantom run."""
    folder = tmp_path_factory.mktemp("index")
    command = [sys.executable, "-m", "medjax.bin.embed", f"--workdir={phantom_run}", f"--output={folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.end_to_end
def test_the_program_finds_what_the_library_finds(phantom_run, embedded):
    import medjax

    command = [sys.executable, "-m", "medjax.bin.serve", f"--index={embedded}", f"--workdir={phantom_run}", "--port=0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = next(line for line in process.stdout if line.startswith("open "))
        port = int(re.fullmatch(r"open http://127\.0\.0\.1:(\d+)/\n", address)[1])
        server = SimpleNamespace(server_address=("127.0.0.1", port))
        status, found = search(server, target="image", text="the heart is enlarged", k=10)
        _, _, shown = ask(server, "GET", f"/api/preview?number={found['results'][0]['number']}&modality=image")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    table = store.read(embedded, "test")
    scores = table.embeddings["image"] @ medjax.load(phantom_run).embed({"text": "the heart is enlarged"})["text"]
    expected = np.sort(scores[table.present["image"]])[::-1][:10]
    np.testing.assert_allclose([s["score"] for s in found["results"]], expected, atol=1e-4)
    np.testing.assert_allclose(scores[numbers(found)], expected, atol=1e-4)
    assert status == 200 and json.loads(shown)["picture"].startswith("data:image/png;base64,")


@pytest.mark.slow
@pytest.mark.end_to_end
def test_an_index_of_another_encoder_is_refused(phantom_run, embedded):
    import medjax

    encoder, index, tables = (
        medjax.load(phantom_run),
        store.read_index(embedded),
        {"test": store.read(embedded, "test")},
    )
    dataset = encoder.dataset()
    check_encoder(index, tables, encoder, dataset)
    with pytest.raises(UserError, match="embedded at step 4, and the encoder is of step 3"):
        check_encoder(index, tables, replace(encoder, step=3), dataset)
    untrained = replace(medjax.load(phantom_run, "untrained"), step=encoder.step)
    other = jax.tree.map(lambda x: -x if x.ndim > 1 else x, untrained.params)
    with pytest.raises(UserError, match="otherwise than the index has them"):
        check_encoder(index, tables, replace(untrained, params=other), dataset)
