"""Labels made image-text pairs, as UniMed-CLIP does: captions from templates, and the prompts for each class."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from medjax.data.manifest import Finding
from medjax.errors import UserError, suggest

TEMPLATES = ("a medical image of {}", "a medical scan showing {}", "{}")


def fill(templates: Sequence[str], phrase: str) -> tuple[str, ...]:
    """Each template with the phrase in place of its `{}`.

    Raises:
      UserError: a template has no `{}`.
    """
    for template in templates:
        if "{}" not in template:
            raise UserError(f"caption template {template!r} has no {{}} for the class")
    return tuple(template.replace("{}", phrase) for template in templates)


def class_findings(captions: Mapping[str, Sequence[str]], seen_in: Sequence[str]) -> dict[str, Finding]:
    """A finding for each class of which a picture has exactly one: asked for by its captions, against the captions of
    the other classes. Of two classes, `{name: captions}`, the second is the finding and the first its absence.
    """
    if len(captions) == 2:
        (_, negative), (name, positive) = captions.items()
        return {name: Finding(tuple(positive), tuple(negative), tuple(seen_in))}
    return {
        name: Finding(tuple(own), tuple(x[0] for other, x in captions.items() if other != name), tuple(seen_in))
        for name, own in captions.items()
    }


def read_captions(path: str | Path, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`{class: captions}` from a JSON file of that form; "*" may hold templates with `{}` for classes without an entry.

    Raises:
      UserError: the file is missing or no such JSON, names a class that does not exist, or leaves one out.
    """
    if not Path(path).is_file():
        raise UserError(f"caption file {path} does not exist")
    try:
        raw = json.loads(Path(path).read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"caption file {path} is not JSON: {error}") from None
    if not isinstance(raw, dict) or not all(_are_texts(x) for x in raw.values()):
        raise UserError(f'caption file {path} must hold {{"class": ["a caption", ...], ...}}, no list empty')
    for name in raw:
        if name not in (*classes, "*"):
            raise UserError(
                f"caption file {path} has captions for {name!r}, which is no class; {suggest(name, classes)}"
            )
    missing = [name for name in classes if name not in raw]
    if missing and "*" not in raw:
        raise UserError(f'caption file {path} lacks captions for {missing[0]!r}; add some, or templates under "*"')
    return {c: tuple(raw[c]) if c in raw else fill(raw["*"], phrase_of(c)) for c in classes}


def _are_texts(captions: object) -> bool:
    return isinstance(captions, list) and bool(captions) and all(isinstance(x, str) and x.strip() for x in captions)


def phrase_of(name: str) -> str:
    """A class name as words: "left_kidney" and "left-kidney" are "left kidney"."""
    return " ".join(name.replace("_", " ").replace("-", " ").split())
