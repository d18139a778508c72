"""A small server in memory that speaks as much of the JSON API of Google Cloud Storage as gcsfs and TensorStore use."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Fault:
    """What goes wrong for requests whose "METHOD path" matches: a status, or "stall", "truncate", "garble"."""

    pattern: str
    kind: int | str
    times: int


class FakeGcs(ThreadingHTTPServer):
    """objects: `{bucket: {name: (bytes, generation)}}`. requests: "METHOD path" of all."""

    daemon_threads = True

    def __init__(self, *buckets: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = {bucket: {} for bucket in buckets}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock, self.over = threading.RLock(), threading.Event()
        self._generation = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def fail(self, pattern: str, kind: int | str, times: int = 1) -> None:
        """Answers the next `times` requests that match with a fault."""
        self.faults.append(Fault(pattern, kind, times))

    def fault(self, request: str) -> int | str | None:
        """What goes wrong with this request."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault.kind
        return None

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """Writes an object."""
        with self.lock:
            self._generation += 1
            self.objects[bucket][name] = (data, self._generation)

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """Of the objects under a prefix."""
        with self.lock:
            return sorted(n for n in self.objects[bucket] if n.startswith(prefix))

    def stop(self) -> None:
        """Ends the server and what it has stalled."""
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """Clients that gave up are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeGcs

    def log_message(self, *_) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {k: v[-1] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        kind = self.server.fault(f"{self.command} {unquote(self.path)}")
        if kind == "stall":
            self.server.over.wait(60)
            self.close_connection = True
        elif isinstance(kind, int):
            self._reply(kind, {"error": {"code": kind, "message": "injected"}})
        else:
            self._route(parts.path, query, body, kind)

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _route(self, path: str, query: dict[str, str], body: bytes, fault: str | None) -> None:
        found = re.fullmatch(r"(?:/(upload|download))?(?:/storage/v1)?/b/([^/]+)(?:/o(?:/(.*))?)?/?", path)
        if found is None or found[2] not in self.server.objects:
            return self._reply(404, {"error": {"code": 404, "message": f"no {path}"}})
        kind, bucket, name = found[1], found[2], found[3]
        with self.server.lock:
            if kind == "upload":
                return self._upload(bucket, query, body)
            if name is None:
                return self._list(bucket, query) if "/o" in path else self._reply(200, {"name": bucket})
            for verb in ("/rewriteTo/b/", "/moveTo/o/"):
                if self.command == "POST" and verb in name:
                    return self._copy(bucket, *name.split(verb), verb)
            return self._object(bucket, unquote(name), query, fault)

    def _object(self, bucket: str, name: str, query: dict[str, str], fault: str | None) -> None:
        objects = self.server.objects[bucket]
        if not self._generation_fits(objects.get(name), query):
            return None
        if name not in objects:
            return self._reply(404, {"error": {"code": 404, "message": f"No such object: {bucket}/{name}"}})
        data, generation = objects[name]
        if self.command == "DELETE":
            del objects[name]
            return self._reply(204, b"")
        if query.get("alt") != "media":
            return self._reply(200, _about(bucket, name, data, generation))
        status, headers = 200, {"x-goog-generation": str(generation), "x-goog-stored-content-length": str(len(data))}
        if asked := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first = int(asked[1]) if asked[1] else max(len(data) - int(asked[2]), 0)
            last = min(int(asked[2]), len(data) - 1) if asked[1] and asked[2] else len(data) - 1
            if first >= len(data):
                return self._reply(416, b"")
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            status, data = 206, data[first : last + 1]
        if fault == "garble" and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        return self._reply(status, data, headers, truncate=fault == "truncate")

    def _generation_fits(self, there: tuple[bytes, int] | None, query: dict[str, str]) -> bool:
        now = there[1] if there else 0
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != now:
            self._reply(412, {"error": {"code": 412, "message": "precondition"}})
            return False
        if "ifGenerationNotMatch" in query and int(query["ifGenerationNotMatch"]) == now:
            self._reply(304, b"")
            return False
        return True

    def _upload(self, bucket: str, query: dict[str, str], body: bytes) -> None:
        how, name = query.get("uploadType"), query.get("name", "")
        if how == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            about, media = (
                p.split(b"\n\n", 1) for p in body.replace(b"\r\n\r\n", b"\n\n", 2).split(b"--" + boundary)[1:3]
            )
            name, body = name or json.loads(about[1])["name"], media[1].removesuffix(b"\n").removesuffix(b"\r")
        if not self._generation_fits(self.server.objects[bucket].get(name), query):
            return None
        if how == "resumable" and self.command == "POST" and "offset" not in query:
            name = name or json.loads(body)["name"]
            where = f"{self.server.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&offset=0&name={name}"
            return self._reply(200, b"", {"Location": where})
        if how == "resumable":
            asked = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers["Content-Range"])
            before = self.server.objects[bucket].get(name, (b"", 0))[0] if int(asked[1] or 0) else b""
            body = before[: int(asked[1] or 0)] + body
            if asked[2] == "*" or len(body) < int(asked[2]):
                self.server.put(bucket, name, body)
                return self._reply(308, b"", {"Range": f"bytes=0-{len(body) - 1}"})
        self.server.put(bucket, name, body)
        return self._reply(200, _about(bucket, name, *self.server.objects[bucket][name]))

    def _copy(self, bucket: str, source: str, target: str, verb: str) -> None:
        source, objects = unquote(source), self.server.objects[bucket]
        if source not in objects:
            return self._reply(404, {"error": {"code": 404, "message": f"No such object: {bucket}/{source}"}})
        to, name = target.split("/o/", 1) if verb == "/rewriteTo/b/" else (bucket, target)
        self.server.put(to, unquote(name), objects[source][0])
        about = _about(to, unquote(name), *self.server.objects[to][unquote(name)])
        if verb == "/moveTo/o/":
            del objects[source]
            return self._reply(200, about)
        return self._reply(200, {"kind": "storage#rewriteResponse", "done": True, "resource": about})

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, prefixes, after = [], set(), query.get("pageToken") or query.get("startOffset") or ""
        names = [n for n in self.server.names(bucket, prefix) if n >= after]
        most, following = int(query.get("maxResults", 1000)), None
        for name in names:
            if len(items) + len(prefixes) >= most:
                following = name
                break
            head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if cut:
                prefixes.add(prefix + head + delimiter)
            else:
                items.append(_about(bucket, name, *self.server.objects[bucket][name]))
        found = {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}
        self._reply(200, found | ({"nextPageToken": following} if following else {}))

    def _reply(self, status: int, body, headers: dict[str, str] | None = None, truncate: bool = False) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(body, bytes) else "application/json")
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if truncate:
            data, self.close_connection = data[: len(data) // 2], True
        with contextlib.suppress(OSError):
            self.wfile.write(data if status not in (204, 304) else b"")


def _about(bucket: str, name: str, data: bytes, generation: int) -> dict:
    return {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/{generation}",
        "bucket": bucket,
        "name": name,
        "size": str(len(data)),
        "generation": str(generation),
        "metageneration": "1",
        "timeCreated": _DATE,
        "updated": _DATE,
        "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
    }
