"""The files that the records of an index-only data set refer to: found, compared with what they were, and read."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.readers import VERIFYING, files_of, reader
from medjax.data.remote import borrowed
from medjax.errors import UserError
from medjax.storage import is_remote


class SourceFiles:
    """The folder of a source, here or in an object store.

    check: when a file is compared with its checksum. "first": when this process first reads it, and afterwards only if
    its size, time or inode have changed; "always". A remote file is compared every time, since it comes anew.
    only_decoded: items are decoded and not kept, so that metadata need not be taken out of pictures.
    """

    def __init__(self, root: str | os.PathLike, check: str = "first", only_decoded: bool = False):
        self._root, self._always, self._known = os.fspath(root), check == "always", set[int]()
        self._only_decoded = only_decoded
        self._resolved = None if is_remote(self._root) else Path(self._root).resolve()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": set()}

    def decoded(self) -> "SourceFiles":
        """The same, for who decodes the items and keeps nothing else of them."""
        return SourceFiles(self._root, "always" if self._always else "first", only_decoded=True)

    def load(self, reference: np.ndarray) -> Any:
        """The raw item behind a reference, uint8[n] of JSON (see `medjax.data.items`).

        Raises:
          UserError: the reference is damaged or leaves the folder, or its file is missing, changed or unreadable.
        """
        try:
            kept = json.loads(reference.tobytes())
            name, options, path = kept["reader"], kept["options"], os.fspath(kept["path"])
            expected = kept["bytes"], kept["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"a reference to a file is damaged ({error}); build the data set again") from None
        if name in VERIFYING:  # what the checksum says is as it was when the data set was built
            options = {**options, "verified": True, "only_decoded": self._only_decoded}
        if self._resolved is None:
            with borrowed(self._root, path) as copy:
                self._compare(copy, path, expected)
                return reader(name)(copy, options)
        file = (self._resolved / path).resolve()
        if not file.is_relative_to(self._resolved):
            raise UserError(f"the reference {path} leaves the folder of the source; build the data set again")
        state = hash((path, *_state(file)))
        if self._always or state not in self._known:
            self._compare(file, path, expected)
            self._known.add(state)
        return reader(name)(file, options)

    @staticmethod
    def _compare(file: Path, path: str, expected: tuple[int, str]) -> None:
        if checksum(file) != expected:
            raise UserError(f"file {path} has changed since the data set was built; restore it or build again")


def _state(path: Path) -> list[tuple[int, int, int]]:
    """Size, time and inode of the files behind a path."""
    found = [file.stat() for file in files_of(path)]
    return [(s.st_size, s.st_mtime_ns, s.st_ino) for s in found]


def checksum(path: Path) -> tuple[int, str]:
    """Bytes and SHA-256 of the files that stand behind a path, in the order of their names.

    Raises:
      UserError: there are none.
    """
    size, digest = 0, hashlib.sha256()
    for file in files_of(path):
        try:
            with file.open("rb") as f:
                while block := f.read(2**20):
                    digest.update(block)
                    size += len(block)
        except OSError as error:
            raise UserError(f"file {file} cannot be read: {error.strerror}") from None
    return size, digest.hexdigest()
