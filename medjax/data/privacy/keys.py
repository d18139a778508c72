"""The secret that keys the hashes of ids: a file of its own, outside every data set.

Whoever has the key can find out which hash belongs to which record number by trying them all, so it stays with those
who may see the record numbers; who loses it can no longer add to a data set, forget a patient, or look up a study.
"""

import hashlib
import logging
import os
import secrets
from pathlib import Path

from medjax.errors import UserError

log = logging.getLogger("medjax")
_BYTES = 32


def default_key_file() -> Path:
    """`~/.config/medjax/id_key`, or the same below $XDG_CONFIG_HOME."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "medjax" / "id_key"


def read_key(path: str | Path) -> bytes:
    """The key in a file.

    Raises:
      UserError: there is none, or it is shorter than 16 or longer than 64 bytes.
    """
    path = Path(path)
    try:
        with path.open("rb") as f:
            key = f.read(65)
    except OSError as error:
        raise UserError(f"--id_key_file={path} cannot be read: {error.strerror}; {_make(path)}") from None
    if not 16 <= len(key) <= 64:
        raise UserError(f"--id_key_file={path} is no such key; {_make(path)}")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        log.warning("the key %s can be read by others than its owner; chmod 600 it", path)
    return key


def _make(path: Path) -> str:
    return f"make one of 16 to 64 secret bytes: head -c {_BYTES} /dev/urandom > {path}"


def default_key() -> bytes:
    """The key in the default file, which is made at its first use, readable by its owner alone; the log says so.

    Raises:
      UserError: it can be neither read nor made.
    """
    path = default_key_file()
    if not path.exists():
        _create(path)
    return read_key(path)


def _create(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(secrets.token_bytes(_BYTES))
        try:
            os.link(new, path)  # whole or not at all, and never over the key of a process that was faster
        except FileExistsError:
            return
        finally:
            new.unlink()
    except OSError as error:
        raise UserError(
            f"no key for the ids can be made at {path} ({error.strerror}); make one elsewhere, outside the data set, "
            "and pass --id_key_file"
        ) from None
    log.warning(
        "a secret key for the hashes of ids was made at %s. Keep it, outside of every data set: without it no study "
        "can be looked up, added or forgotten",
        path,
    )


def check_outside(key_file: str | Path, directory: Path) -> None:
    """Raises UserError where the key lies in the folder of the data set."""
    if Path(key_file).resolve().is_relative_to(directory.resolve()):
        raise UserError(f"the key {key_file} lies in the data set {directory}; keep it elsewhere, and not beside it")


def fingerprint(key: bytes) -> str:
    """16 hexadecimal digits that tell whether two data sets share a key, and nothing else; empty without a key."""
    return hashlib.blake2b(b"medjax id key", digest_size=8, key=key).hexdigest() if key else ""
