"""The folders of a store: which steps there are, which may go, what is kept aside, what killed saves left behind.

A step that goes is first marked by an empty file beside it, `<step>.deleting`: what a kill leaves half deleted is then
known from what was damaged.
"""

import logging
import time
from collections.abc import Iterable

from etils import epath

from medjax.checkpoints import integrity
from medjax.storage import is_remote

log = logging.getLogger("medjax")

DAMAGED = "damaged"
_DELETING = ".deleting"
_PLACEHOLDER = ".folder"
_TEMPORARY = ".orbax-checkpoint-tmp"
_UNFINISHED = 3  # of those set aside: saves that a kill cut short, of which there may be many


def steps(directory: epath.Path) -> list[int]:
    """Steps that are on disk, sound or not, in order; empty where there is no folder."""
    try:
        names = {p.name for p in directory.iterdir()}
    except FileNotFoundError:
        return []
    decimal = (n for n in names if n.isdecimal() and n.isascii() and f"{n}{_DELETING}" not in names)
    return sorted(int(n) for n in decimal if n == str(int(n)))


def kept(sealed: Iterable[int], newest: int, keep: int, keep_every: int) -> set[int]:
    """Which sealed steps stay: the latest `keep`, multiples of `keep_every` (0: none), in any case `newest`."""
    ordered = sorted(sealed)
    return {newest, *ordered[-keep:], *(s for s in ordered if keep_every and s % keep_every == 0)}


def prune(directory: epath.Path, newest: int, keep: int, keep_every: int) -> None:
    """Deletes the sealed steps that are no longer kept, once `newest` is sealed; unsealed ones are left alone."""
    sealed = [s for s in steps(directory) if (directory / str(s) / integrity.FILE).exists()]
    for step in sorted(set(sealed) - kept(sealed, newest, keep, keep_every)):
        try:
            _delete(directory, step)
        except OSError as error:  # the new one is safe, so training may go on; the next save tries again
            log.warning("checkpoint %s could not be deleted: %s", directory / str(step), error)


def _delete(directory: epath.Path, step: int) -> None:
    mark = directory / f"{step}{_DELETING}"
    mark.touch()
    (directory / str(step)).rmtree(missing_ok=True)
    mark.unlink()


def clean(directory: epath.Path) -> None:
    """Deletes what killed programs left: temporary folders of saves, and steps of which the deletion had begun."""
    if not directory.exists():
        return
    for path in list(directory.iterdir()):
        if path.name.endswith(_DELETING) and path.name.removesuffix(_DELETING).isdecimal():
            _delete(directory, int(path.name.removesuffix(_DELETING)))
        elif _TEMPORARY in path.name:
            log.info("%s is what a save left that was cut short; it is deleted", path)
            path.rmtree(missing_ok=True)


def set_aside(directory: epath.Path, step: int, why: str) -> None:
    """Moves a step to the folder "damaged" as `<step>-<time>`, and says so in the log. why: "is damaged (...)".

    What was sealed once is never deleted there; of saves that were not finished the newest few stay.
    """
    folder, aside = directory / str(step), directory / DAMAGED
    name = f"{step}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    target = next(p for p in (aside / name, *(aside / f"{name}-{i}" for i in range(2, 1000))) if not p.exists())
    try:
        aside.mkdir(exist_ok=True)
        if is_remote(aside):  # which has no empty folders, and nothing can be moved to one that is not there
            (aside / _PLACEHOLDER).touch()
        folder.rename(target)
    except OSError as error:
        log.warning("checkpoint %s %s; it is passed over and cannot be moved: %s", step, why, error)
        return
    log.warning("checkpoint %s %s; it is kept in %s", step, why, target)
    _bound(aside)


def _bound(aside: epath.Path) -> None:
    unfinished = [p for p in aside.iterdir() if p.is_dir() and not (p / integrity.FILE).exists()]
    for old in sorted(unfinished, key=lambda p: (p.name.partition("-")[2], p.name))[:-_UNFINISHED]:
        log.warning("%s was never finished, and %d newer ones like it are kept; it is deleted", old, _UNFINISHED)
        old.rmtree(missing_ok=True)
