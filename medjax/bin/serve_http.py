"""The HTTP side of `medjax.bin.serve`: five addresses, none of which is a path of a file.

GET / (the page), /page.css, /page.js, /api/about, /api/preview?number=N&modality=M, and POST /api/search with JSON
`{"target", "text", "files": [{"name", "data" in base64}], "like": {"number", "modality"}, "split", "label", "state",
"k"}`, of which only the target is needed. What cannot be used is answered by status 400 and `{"error": one line}`.
"""

import base64
import binascii
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from medjax.bin.serve_guard import Guard, RefusedError
from medjax.bin.serve_index import BusyError, Service
from medjax.errors import UserError, suggest

log = logging.getLogger("medjax.serve")
_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_OPTIONS = {"target": str, "text": str, "split": str, "label": str, "state": str, "k": int, "files": list, "like": dict}
_CONNECTIONS = 32
_SECONDS = 30  # for a request to arrive
_DRAIN = 5.0  # seconds
_SLACK = 65536  # bytes of a query beside its files
_MAX_FILES = 4


class Server(ThreadingHTTPServer):
    """Serves one Service. max_upload: bytes of the files of a query together."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], service: Service, guard: Guard, max_upload: int):
        self.service, self.guard, self.max_upload = service, guard, max_upload
        folder = resources.files("medjax.bin") / "serve_page"
        self.page = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _PAGE.items()}
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Handler)

    def process_request(self, request, client_address) -> None:
        """Turns away who comes when all connections are taken."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address) -> None:
        """Serves one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request, client_address) -> None:
        """A client that went away is no error of the server."""
        log.info("a connection broke off")


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version, sys_version = "medjax", ""
    timeout = _SECONDS

    def do_GET(self) -> None:
        """The page, what there is, and previews."""
        self._answer(self._get, post=False)

    def do_POST(self) -> None:
        """Searches."""
        self._answer(self._post, post=True)

    def log_message(self, format: str, *args: Any) -> None:
        """What http.server would log holds the whole address, and with it what was asked."""

    def _answer(self, work, post: bool) -> None:
        started, path = time.monotonic(), urlsplit(self.path).path
        length = self.headers.get("Content-Length", "")
        self._unread = int(length) if post and length.isdecimal() and len(length) < 12 else 0
        try:
            if post or not self._opened(path):
                self.server.guard.check(self.headers, post)
                work(path)
            status = self._status
        except (UserError, RefusedError, BusyError) as error:
            status = getattr(error, "status", 503 if isinstance(error, BusyError) else 400)
            self._json({"error": " ".join(str(error).split())}, status)
            self._drain()
        except (ConnectionError, TimeoutError):
            status, self.close_connection = 408, True
        except Exception as error:  # a bug must not show a stranger what is in memory
            status = 500
            log.error("%s in a request", type(error).__name__, exc_info=log.isEnabledFor(logging.DEBUG))
            self._json({"error": "the server failed at this request"}, status)
        known = path in _PAGE or path in ("/api/about", "/api/preview", "/api/search")
        milliseconds = 1000 * (time.monotonic() - started)
        log.info("%s %s %d %.0f ms", self.command, path if known else "(unknown)", status, milliseconds)

    def _opened(self, path: str) -> bool:
        """Takes a token from the address into a cookie, so that it stays in no history and no screenshot."""
        given = parse_qs(urlsplit(self.path).query).get("token")
        if path != "/" or not given or not self.server.guard.opens(self.headers, given[0]):
            return False
        self._send(303, b"", "text/plain", {"Set-Cookie": self.server.guard.cookie(), "Location": "/"})
        return True

    def _get(self, path: str) -> None:
        if path in self.server.page:
            self._send(200, *self.server.page[path])
        elif path == "/api/about":
            megabytes = self.server.max_upload / 2**20
            self._json({**self.server.service.about(), "max_upload_mb": megabytes, "max_files": _MAX_FILES})
        elif path == "/api/preview":
            asked = parse_qs(urlsplit(self.path).query)
            number, modality = (asked.get(k, [""])[0] for k in ("number", "modality"))
            if not (number.isascii() and number.isdigit() and len(number) < 12):
                raise UserError("the number of a study is digits")
            self._json(self.server.service.preview(int(number), modality))
        else:
            raise RefusedError(404, "there is nothing at this address")

    def _post(self, path: str) -> None:
        if path != "/api/search":
            raise RefusedError(404, "there is nothing at this address")
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(415, "send JSON, with Content-Type: application/json")
        self._json(self.server.service.search(**_query(self._body(), self.server.max_upload)))

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            raise RefusedError(411, "say the length of the query, with Content-Length")
        most = self.server.max_upload * 4 // 3 + _SLACK  # base64
        if len(length) > 15 or int(length) > most:
            raise RefusedError(413, f"files of a query may have {self.server.max_upload / 2**20:g} MB together")
        left, until, parts = int(length), time.monotonic() + _SECONDS, []
        self._unread = 0
        while left:
            part = self.rfile.read1(min(left, 2**20))
            if not part or time.monotonic() > until:
                raise ConnectionError
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _drain(self) -> None:
        """Reads on for a while what was refused: who still sends would see a broken connection and no answer."""
        until = time.monotonic() + _DRAIN
        with contextlib.suppress(OSError):
            self.connection.settimeout(_DRAIN)
            while self._unread > 0 and time.monotonic() < until and (part := self.rfile.read1(2**20)):
                self._unread -= len(part)

    def _json(self, value: Mapping[str, Any], status: int = 200) -> None:
        self._send(status, json.dumps(value, allow_nan=False).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        self._status = status
        self.send_response(status)
        own = {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in {**_HEADERS, **own, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _query(body: bytes, max_upload: int) -> dict[str, Any]:
    """The arguments of `Service.search`.

    Raises:
      UserError: it is no such JSON.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise UserError("the query is not JSON") from None
    if not isinstance(given, dict) or not isinstance(given.get("target"), str):
        raise UserError("the query must be a JSON object that names a target")
    for key, value in given.items():
        if key not in _OPTIONS:
            raise UserError(f"the query has an unknown entry; {suggest(key, _OPTIONS)}")
        if not isinstance(value, _OPTIONS[key]) or isinstance(value, bool):
            raise UserError(f"{key} of the query must be of type {_OPTIONS[key].__name__}")
    out = {k: v for k, v in given.items() if k not in ("files", "like")}
    if given.get("files"):
        out["files"] = _files(given["files"], max_upload)
    if "like" in given:
        number, modality = (given["like"].get(k) for k in ("number", "modality"))
        if type(number) is not int or not isinstance(modality, str):
            raise UserError("like of the query must be {number, modality}")
        out["like"] = number, modality
    return out


def _files(given: list, max_upload: int) -> list[tuple[str, bytes]]:
    if len(given) > _MAX_FILES:
        raise UserError(f"{len(given)} files were sent, at most {_MAX_FILES} are taken")
    out = []
    for entry in given:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in ("name", "data")):
            raise UserError("a file of the query must be {name, data in base64}")
        try:
            out.append((entry["name"], base64.b64decode(entry["data"], validate=True)))
        except (binascii.Error, ValueError):
            raise UserError("data of a file is not base64") from None
    if sum(len(content) for _, content in out) > max_upload:
        raise RefusedError(413, f"files of a query may have {max_upload / 2**20:g} MB together")
    return out
