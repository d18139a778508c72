"""Files on this machine and in object stores (gs://, s3://), with time-outs and a bounded number of attempts."""

import functools
import hashlib
import importlib.util
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from medjax.errors import StorageError, UserError
from medjax.retries import Retries, with_retries

__all__ = [
    *("Retries", "as_path", "absolute", "fetch", "is_remote", "local_path", "read_bytes", "size", "sizes"),
    *("with_retries", "write_bytes"),
]

log = logging.getLogger("medjax")
PART = 2**25  # bytes of one request
# scheme -> (module that fsspec needs, our extra or the package)
_SCHEMES = {"gs": ("gcsfs", "medjax[gcs]"), "s3": ("s3fs", "s3fs")}
_SOCKET_SECONDS = 30
_SLOWEST = 2**20  # bytes a second of an upload that is given more time


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is one of an object store, and no file of this machine."""
    return "://" in os.fspath(path)


def as_path(path: str | os.PathLike) -> Any:
    """A path with the methods of `pathlib.Path`: that itself, or `etils.epath.Path` for an object store.

    Raises:
      UserError: an unknown scheme, or the package that reads it is not installed.
    """
    text = os.fspath(path)
    if not is_remote(text):
        return Path(text)
    scheme = text.partition("://")[0]
    if scheme not in _SCHEMES:
        raise UserError(f"{text}: unknown scheme {scheme}://; valid: {', '.join(f'{s}://' for s in _SCHEMES)}")
    _set_up(scheme)
    from etils import epath

    return epath.Path(text)


def absolute(path: str | os.PathLike) -> str:
    """A path that means the same in every folder."""
    return os.fspath(path) if is_remote(path) else str(Path(path).absolute())


def local_path(path: str | os.PathLike, what: str) -> Path:
    """The path of a program that works on this machine's files alone.

    Raises:
      UserError: it is one of an object store.
    """
    text = os.fspath(path)
    if is_remote(text):
        raise UserError(f"{what} works on local folders, not on {text}; copy it first: gcloud storage cp -r {text} .")
    return Path(text)


@functools.cache
def _set_up(scheme: str) -> None:
    """Time-outs for the libraries that read and write behind `etils.epath`, Orbax and TensorStore."""
    module, package = _SCHEMES[scheme]
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{scheme}:// needs the package {module}; pip install '{package}'")
    if scheme != "gs":
        return
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks another service about every bucket
    os.environ.setdefault("TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS", str(_SOCKET_SECONDS))
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", str(2 * _SOCKET_SECONDS))
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "256")
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it prints a trace for what `with_retries` says in a line
    import aiohttp
    import fsspec.config

    seconds = min(_SOCKET_SECONDS, Retries.default().timeout or _SOCKET_SECONDS)
    silence = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
    # Listings that are kept show a reader the checkpoints of an hour ago.
    fsspec.config.conf["gcs"] = {
        "requests_timeout": silence,
        "use_listings_cache": False,
        "consistency": "md5",
        **({"token": "anon"} if os.environ.get("STORAGE_EMULATOR_HOST") else {}),
        **fsspec.config.conf.get("gcs", {}),
    }


def _filesystem(path: str | os.PathLike) -> tuple[Any, str]:
    """The fsspec file system of an object store, and the path as it takes it."""
    import fsspec

    text = os.fspath(as_path(path))
    return fsspec.core.url_to_fs(text)


def read_bytes(path: str | os.PathLike, retries: Retries | None = None) -> bytes:
    """A whole file.

    Raises:
      FileNotFoundError: there is none. StorageError: see `with_retries`.
    """
    if not is_remote(path):
        return with_retries(Path(path).read_bytes, f"reading {path}", retries)
    files, name = _filesystem(path)
    return with_retries(lambda: files.cat_file(name), f"reading {path}", retries)


def size(path: str | os.PathLike, retries: Retries | None = None) -> int:
    """Bytes of a file; FileNotFoundError if there is none."""
    if not is_remote(path):
        return Path(path).stat().st_size
    files, name = _filesystem(path)
    return int(with_retries(lambda: files.info(name), f"looking at {path}", retries)["size"])


def write_bytes(path: str | os.PathLike, data: bytes, new: bool = False, retries: Retries | None = None) -> None:
    """Writes a whole file; of an object store no reader sees a part of it, and what arrived is compared by MD5.

    new: only if there is none; where an attempt was lost on its way back, a file with the same bytes is the one that it
    wrote.

    Raises:
      FileExistsError: `new`, and there is one. StorageError: see `with_retries`.
    """
    if not is_remote(path):
        mode = "xb" if new else "wb"
        with Path(path).open(mode) as f:
            f.write(data)
        return
    files, name = _filesystem(path)
    more = {"mode": "create"} if new else {}
    retries = retries or Retries.default()
    if retries.timeout:
        retries = replace(retries, timeout=retries.timeout + len(data) / _SLOWEST)
    try:
        with_retries(lambda: files.pipe_file(name, data, **more), f"writing {path}", retries)
    except FileExistsError:
        if not new or read_bytes(path, retries) != data:
            raise


def sizes(folder: str | os.PathLike, retries: Retries | None = None) -> dict[str, int]:
    """Bytes of every file under a folder of an object store, by the path within it; empty where there is none."""
    files, name = _filesystem(folder)
    try:
        found = with_retries(lambda: files.find(name, detail=True), f"listing {folder}", retries)
    except FileNotFoundError:
        return {}
    prefix = name.rstrip("/") + "/"
    return {
        key.removeprefix(prefix): int(info["size"])
        for key, info in found.items()
        if key.startswith(prefix) and info.get("type") != "directory" and not key.endswith("/")
    }


def fetch(remote: str | os.PathLike, local: Path, sha256: str = "", retries: Retries | None = None) -> None:
    """Copies a file of an object store, part by part; what a stopped copy has got, the next one goes on from where
    there is a checksum to tell whether it fits.

    A copy that differs from the checksum is made once more, from the start.

    Raises:
      FileNotFoundError: there is none.
      StorageError: see `with_retries`; or the second copy differs from `sha256`, too.
    """
    local.parent.mkdir(parents=True, exist_ok=True)
    part = local.with_name(f"{local.name}.part")
    if not sha256:  # it may have been written anew since
        part.unlink(missing_ok=True)
    for last in (False, True):
        digest = _fetch_parts(remote, part, retries)
        if not sha256 or digest == sha256:
            part.replace(local)
            return
        part.unlink()
        if last:
            raise StorageError(f"{remote} differs from its checksum, twice; it is damaged, write it again")
        log.warning("%s differs from its checksum; it is fetched once more", remote)


def _fetch_parts(remote: str | os.PathLike, part: Path, retries: Retries | None) -> str:
    """Appends what is missing; returns the SHA-256 of the whole."""
    files, name = _filesystem(remote)
    total = size(remote, retries)
    if part.exists() and part.stat().st_size > total:
        part.unlink()
    done = part.stat().st_size if part.exists() else 0
    with part.open("ab") as f:
        while done < total:
            end = min(done + PART, total)
            data = with_retries(
                lambda start=done, end=end: _exactly(files, name, start, end), f"reading {remote}", retries
            )
            f.write(data)
            done = end
        f.flush()
        os.fsync(f.fileno())
    with part.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _exactly(files: Any, name: str, start: int, end: int) -> bytes:
    data = files.cat_file(name, start=start, end=end)
    if len(data) != end - start:
        raise OSError(f"{len(data)} bytes came of {end - start}")
    return data
