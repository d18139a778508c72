"""How often a split has been looked at: who tries often enough finds a good score by chance."""

import json
import os
from pathlib import Path

from medjax.data.privacy.keys import default_key_file


def ledger() -> Path:
    """`openings.jsonl` beside the user's other medjax files; holds hashes of manifests and no name of anything."""
    return default_key_file().with_name("openings.jsonl")


def opened(digest: str, split: str, program: str) -> int | None:
    """Notes that `program` scores this split of the data set with this manifest digest, and returns how often that
    has happened on this account, this time included; None where the ledger cannot be written or read.

    One program counts once a call; embedding a split without its scores being seen does not count.
    """
    path, mark = ledger(), {"data": digest[:32], "split": split}
    line = json.dumps({**mark, "program": program}) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(out, line.encode())  # one write, so that lines of several programs never mix
        finally:
            os.close(out)
        rows = [json.loads(row) for row in path.read_text().splitlines()]
    except (OSError, ValueError):
        return None
    return sum(all(row.get(k) == v for k, v in mark.items()) for row in rows)
