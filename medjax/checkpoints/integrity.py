"""Checksums of every file of a checkpoint. Orbax notices truncation, but restores a flipped bit as it finds it."""

import json
from pathlib import Path

from medjax.data.records import sha256

FILE = "checksums.json"


def seal(directory: Path) -> None:
    """Writes checksums.json over all other files; the last thing that happens to a checkpoint."""
    sums = {str(p.relative_to(directory)): sha256(p) for p in _files(directory)}
    partial = directory / f"{FILE}.partial"
    partial.write_text(json.dumps(sums, indent=1) + "\n")
    partial.rename(directory / FILE)


def damage(directory: Path) -> str | None:
    """What is wrong with a checkpoint in a few words, or None if every file is as it was sealed."""
    path = directory / FILE
    if not path.is_file():
        return f"{FILE} is missing, the save was not finished"
    try:
        sums: dict[str, str] = json.loads(path.read_text())
    except ValueError:
        return f"{FILE} is not readable"
    for name, expected in sums.items():
        file = directory / name
        if not file.is_file():
            return f"{name} is missing"
        if sha256(file) != expected:
            return f"{name} differs from its checksum"
    extra = {str(p.relative_to(directory)) for p in _files(directory)} - set(sums)
    return f"{min(extra)} was added" if extra else None


def _files(directory: Path) -> list[Path]:
    ours = (FILE, f"{FILE}.partial")
    return sorted(p for p in directory.rglob("*") if p.is_file() and p.name not in ours)
