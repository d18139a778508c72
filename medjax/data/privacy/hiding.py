"""Messages about sensitive data: they keep the words that medjax itself says, and everything else appears hashed."""

import ast
import errno
import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path

import medjax.data
from medjax.data.ids import pseudonym

_ERRNO = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR, errno.ENOTDIR, errno.ENOSPC)
_ERRORS = ("UserError", "LayoutError")
_EDGES = "\"'`()[]{}<>,;:.!?"
_WORD = re.compile(r"[^\W\d][\w-]*")
_HASHED = re.compile(r"id-[0-9a-f]{16}")
_LONG = re.compile(r"\d{5,}|\d+[-/.]\d+[-/.]\d+")


def hide(message: str, key: bytes, known: Iterable[str] = (), public: Iterable[str] = ()) -> str:
    """The message with keyed hashes in place of whatever may come from the data.

    Kept are words that occur in medjax's own error messages, those of `public` texts (names of columns and labels), and
    numbers of up to four digits that are no dates. `known` strings (study, patient, declared identifiers) and every
    other word, path, file name or long number become `id-` and 16 hexadecimal digits; neighbours become one.
    """
    for text in sorted({t for t in known if t.strip()}, key=lambda x: (-len(x), x)):
        message = re.sub(rf"(?<![^\W_]){re.escape(text)}(?![^\W_])", lambda m: pseudonym(m[0], key), message)
    words = _vocabulary() | {word for text in public for word in _WORD.findall(text)}
    out: list[str] = []
    hidden: list[str] = []
    for token in [*message.split(), ""]:
        if token and not _is_public(token, words):
            hidden.append(token)
            continue
        if hidden:
            out.append(_hashed(" ".join(hidden), key))
            hidden = []
        out.append(token)
    return " ".join(out).rstrip()


def _hashed(text: str, key: bytes) -> str:
    core = text.strip(_EDGES) or text
    before, _, after = text.partition(core)
    return f"{before}{pseudonym(core, key)}{after}"


def _is_public(token: str, words: set[str]) -> bool:
    token = _HASHED.sub("", token)
    core = token.strip(_EDGES)
    if core in words:
        return True
    if re.search(r"[/\\@]|\w\.[^\W\d]", core) or _LONG.search(core):
        return False  # a path, a file name, a date, a record number
    return all(word in words for word in _WORD.findall(core)) and core.isascii()


@functools.cache
def _vocabulary() -> set[str]:
    """The words in the messages of the errors that medjax.data raises, and of the system's about files."""
    texts = [os.strerror(code) for code in _ERRNO]
    for path in sorted(Path(medjax.data.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ERRORS:
                inner = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
                texts += [value for value in inner if isinstance(value, str)]
    return {word for text in texts for word in (*_WORD.findall(text), *(t.strip(_EDGES) for t in text.split()))}
