"""Files that say in which words labels are asked for, in JSON.

Pairs: `{label: {"positive": [...], "negative": [...]}}`, as in the manifest of a data set.

Or an object of these keys, the names of which no label may have:
* "templates": ["a chest X-ray of {}"] and "classes": {label: ["pneumonia", "lung infection"]}: every name in every
  template is a prompt for presence; "negative_templates": ["no {}"] makes those for absence, which only some rules
  need;
* "pairs": {label: ...}: as above, beside the classes;
* "groups": {"rhythm": ["sinus_rhythm", "atrial_fibrillation"]}: labels of the file that exclude each other, of which
  the one whose prompts for presence fit best is called.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medjax.config import build
from medjax.data.manifest import Finding
from medjax.errors import UserError, suggest

KEYS = ("templates", "negative_templates", "classes", "pairs", "groups")


@dataclass(frozen=True)
class PromptSet:
    """findings: `{label: Finding}`, whose negative prompts may be empty. groups: `{name: labels of findings}`."""

    findings: dict[str, Finding]
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, labels: Sequence[str]) -> "PromptSet":
        """The part that a data set with these labels can be asked: findings it labels, groups it labels all of."""
        findings = {k: f for k, f in self.findings.items() if k in labels}
        return PromptSet(findings, {k: g for k, g in self.groups.items() if set(g) <= set(findings)})

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {k: {"positive": list(f.positive), "negative": list(f.negative)} for k, f in self.findings.items()}


@dataclass(frozen=True)
class _Pair:
    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()
    seen_in: tuple[str, ...] = ()
    joint: bool = False


@dataclass(frozen=True)
class _File:
    templates: tuple[str, ...] = ("{}",)
    negative_templates: tuple[str, ...] = ()
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pairs: dict[str, _Pair] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_prompt_file(path: str | Path, labels: Sequence[str], known: Mapping[str, Finding] | None = None) -> PromptSet:
    """The prompts of a file. labels: those there are. known: findings of the data set, which say for classes in which
    modalities they show.

    Raises:
      UserError: names the file and the key: it is missing, no JSON, has an unknown key or label (with the nearest), an
        empty list or prompt, a template without its one {}, a group of fewer than two or of labels without prompts.
    """
    raw = _read(Path(path))
    if not set(raw) & (set(KEYS) - set(labels)):
        near = [k for k in raw if k not in labels]
        if near:
            raise UserError(f"{path}: {near[0]!r} is no label and no key; {suggest(near[0], (*labels, *KEYS))}")
        raw = {"pairs": raw}
    file = build(_File, raw, str(path))
    _check(file, path, labels)
    findings = {k: Finding(p.positive, p.negative, p.seen_in, p.joint) for k, p in file.pairs.items()}
    for label, names in file.classes.items():
        about = (known or {}).get(label, Finding((), ()))
        positive, negative = (
            tuple(t.replace("{}", name) for name in names for t in templates)
            for templates in (file.templates, file.negative_templates)
        )
        findings[label] = Finding(positive, negative, about.seen_in, about.joint)
    return PromptSet(findings, dict(file.groups))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*.json")] if path.parent.is_dir() else []
        raise UserError(f"prompt file {path} does not exist" + (f"; {suggest(path.name, near)}" if near else ""))
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"prompt file {path} is not JSON: {error}") from None
    if not isinstance(raw, dict) or not raw:
        raise UserError(f'prompt file {path} must hold an object such as {{"LABEL": {{"positive": ["..."], ...}}}}')
    return raw


def _check(file: _File, path: str | Path, labels: Sequence[str]) -> None:
    asked = [*file.pairs, *file.classes]
    for kind, names in (("pairs", file.pairs), ("classes", file.classes)):
        for name in names:
            if name not in labels:
                raise UserError(f"{path}: {kind} names {name!r}, which is no label; {suggest(name, labels)}")
    if both := set(file.pairs) & set(file.classes):
        raise UserError(f"{path}: {', '.join(sorted(both))} is in pairs and in classes; keep one")
    if not asked:
        raise UserError(f"{path} asks for no label; give classes or pairs")
    for kind in ("templates", "negative_templates"):
        for template in getattr(file, kind):
            if template.count("{}") != 1:
                raise UserError(f"{path}: {kind} holds {template!r}; a template has one {{}} for the name")
    lists = {f"classes.{k}": v for k, v in file.classes.items()}
    lists |= {f"pairs.{k}.positive": p.positive for k, p in file.pairs.items()} | {"templates": file.templates}
    for where, texts in lists.items():
        if not texts:
            raise UserError(f"{path}: {where} is an empty list; give at least one prompt")
    lists |= {f"pairs.{k}.negative": p.negative for k, p in file.pairs.items()}
    if empty := [where for where, texts in lists.items() if any(not t.strip() for t in texts)]:
        raise UserError(f"{path}: {empty[0]} holds an empty prompt")
    for name, members in file.groups.items():
        for member in members:
            if member not in asked:
                raise UserError(
                    f"{path}: groups.{name} names {member!r}, which has no prompts; {suggest(member, asked)}"
                )
        if len(set(members)) < max(2, len(members)):
            raise UserError(f"{path}: groups.{name} needs two or more different labels")
