"""From a source to a data set: read every study, split by patient, write records, manifest and tokenizer.

A build writes whole shards, each under its name only when it is complete and with a receipt beside it. After a kill the
same command goes on with the shards that have none. Neither that, nor the number of workers, nor the engine changes a
byte. Plan and receipts, which hold the texts of the training split, are removed at the end.
"""

import fcntl
import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from medjax.data import tokenizer
from medjax.data.building import plan as plans
from medjax.data.building.describe import describe_modalities, describe_splits
from medjax.data.building.plan import Options, Plan, make_plan
from medjax.data.building.shards import RECEIPT, Encoder, Receipt, ShardTask
from medjax.data.building.workers import write_shards
from medjax.data.manifest import FILE, SPLITS, Manifest, read
from medjax.data.privacy import licence
from medjax.data.privacy.keys import default_key, fingerprint
from medjax.data.privacy.protect import Privacy, protect
from medjax.data.records import UNFINISHED, write_file
from medjax.data.sources.base import Source
from medjax.errors import UserError

log = logging.getLogger("medjax")
REJECTED = "rejected.jsonl"
_TRIED = 200  # texts that a tokenizer must mostly know
_LOCK = ".build.lock"
# (encoder, tasks, rejections allowed, workers, tick) -> receipts in any order.
Engine = Callable[[Encoder, Sequence[ShardTask], int, int, Callable[[int], None]], Iterable[Receipt]]


def build_dataset(
    source: Source,
    directory: Path,
    options: Options,
    report: Callable[[int, int], None],
    engine: Engine = write_shards,
    say: Callable[[str], None] = log.info,
) -> Manifest:
    """Builds the data set in `directory`, or goes on with a build that was stopped; the manifest is written last.

    report: called with (studies done, studies in all). engine: what writes the shards, by default `options.workers`
    processes. say: called with a line on what will be written, before it is.

    Raises:
      UserError: a data set is there already, or part of another build, or one that is running; the disk is too small;
        too many studies are unreadable (listed in rejected.jsonl), a patient stands in two splits, or a split is empty.
    """
    _check_free(directory)
    source, options = protected(source, options)
    if options.tokenizer:
        tokenizer.load(options.tokenizer)  # before hours of reading, not after
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        _check_free(directory)  # another process may just have finished
        plan = make_plan(source, directory, options)
        complete = _complete(plan, directory)
        done = sum(r.studies for r in complete.values())
        say(f"{plan}" + (f", of which {done} are written already" if done else ""))
        plan.check_space(directory, done)
        _write(plan, directory, complete, report, engine)
        manifest = _finish(plan, directory)
        manifest.save(directory)
        _clean(directory)
    return read(directory)  # as everyone will see it: JSON turns a rate of 100 into 100.0, and the digest with it


def protected(source: Source, options: Options) -> tuple[Source, Options]:
    """The source as it may be stored, and the options with the key of its ids.

    Raises:
      UserError: see `medjax.data.privacy.protect.protect`.
    """
    key = options.id_key or (default_key() if source.schema.sensitive else b"")
    rules = Privacy(key, options.scrub, options.flagged, options.file_names_are_safe)
    return protect(source, rules, options.index_only), replace(options, id_key=key)


def _check_free(directory: Path) -> None:
    if (directory / FILE).exists():
        _clean(directory)  # of a build that was killed when all was done
        raise UserError(f"there is a data set at {directory} already; remove it or choose another --output")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Refuses a second build in the same folder; the system frees the lock of a process that was killed."""
    with (directory / _LOCK).open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"another process builds in {directory} now; wait for it or choose another --output"
            ) from None
        try:
            yield
        finally:
            (directory / _LOCK).unlink(missing_ok=True)


def _complete(plan: Plan, directory: Path) -> dict[str, Receipt]:
    """The receipts of shards that an earlier build has written; what it left unfinished is removed."""
    for path in directory.glob(f".*{UNFINISHED}"):
        path.unlink()
    return {task.stem: receipt for task in plan.tasks if (receipt := _receipt(task, directory))}


def _write(
    plan: Plan, directory: Path, complete: dict[str, Receipt], report: Callable[[int, int], None], engine: Engine
) -> None:
    """Writes the other shards."""
    done, rejected = 0, sum(len(r.rejected) for r in complete.values())

    def tick(count: int) -> None:
        nonlocal done
        if count:
            done += count
            report(done, plan.studies)

    if rejected > plan.rejections_allowed:
        raise _too_many(plan, directory, rejected)
    tick(sum(r.studies for r in complete.values()))
    tasks = [task for task in plan.tasks if task.stem not in complete]
    for receipt in engine(plan.encoder, tasks, plan.rejections_allowed - rejected, plan.options.workers, tick):
        rejected += len(receipt.rejected)
        if rejected > plan.rejections_allowed:
            raise _too_many(plan, directory, rejected, receipt)


def _receipt(task: ShardTask, directory: Path) -> Receipt | None:
    """Of a shard that is complete, files and all."""
    path = directory / f"{task.stem}{RECEIPT}"
    if not path.is_file():
        return None
    receipt = Receipt.load(path)
    files = [x for x in (receipt.shard, (receipt.shard or {}).get("chunks")) if x]
    sizes = [(directory / x["file"], x["bytes"]) for x in files]
    return receipt if all(file.is_file() and file.stat().st_size == n for file, n in sizes) else None


def _too_many(plan: Plan, directory: Path, count: int, last: Receipt | None = None) -> UserError:
    """The error that stops the build, after all that were rejected so far have been listed."""
    receipts = [r for task in plan.tasks if (r := _receipt(task, directory))]
    rejected = [x for r in receipts + ([last] if last and not last.complete else []) for x in r.rejected]
    _list_rejected(rejected, directory)
    return UserError(
        f"{count} of {plan.studies} studies are unreadable, more than --max_rejected_fraction="
        f"{plan.options.max_rejected_fraction}; the last: {rejected[-1]['reason']}; all are listed in "
        f"{directory / REJECTED}"
    )


def _list_rejected(rejected: Iterable[dict[str, str]], directory: Path) -> None:
    write_file(directory / REJECTED, "".join(json.dumps(x) + "\n" for x in rejected).encode())


def _finish(plan: Plan, directory: Path) -> Manifest:
    """Makes of the receipts what is no shard: the list of rejected studies, patients' ids, tokenizer and manifest."""
    receipts: dict[str, list[Receipt]] = {s: [] for s in SPLITS}
    for task in plan.tasks:
        receipt = Receipt.load(directory / f"{task.stem}{RECEIPT}")
        receipts[task.split].append(replace(receipt, texts=[]))  # they are read again one shard at a time
    rejected = [x for split in SPLITS for r in receipts[split] for x in r.rejected]
    _list_rejected(rejected, directory)
    schema = plan.source.schema
    splits = describe_splits(receipts, schema, directory)
    return Manifest(
        name=schema.name,
        source=schema.source,
        licence=schema.licence,
        terms=plan.options.terms or licence.of(schema),
        synthetic=schema.synthetic,
        sensitive=schema.sensitive,
        texts_from_labels=schema.texts_from_labels,
        patients_known=schema.patients_known,
        patient_space=plan.options.patient_space or schema.patient_space,
        id_key=fingerprint(plan.options.id_key),
        index_only=plan.options.index_only,
        modalities=describe_modalities(receipts["train"], schema),
        labels=schema.labels,
        attributes=schema.attributes,
        findings=schema.findings,
        splits=splits,
        notes=(*schema.notes, *_flag_notes([r for split in SPLITS for r in receipts[split]], plan.options)),
        rejected=len(rejected),
        tokenizer=_tokenizer(plan, directory),
    )


def _flag_notes(receipts: Sequence[Receipt], options: Options) -> list[str]:
    """What readers warned of, and what was done."""
    counts = sum((r.flagged for r in receipts), Counter())
    done = "what was found by rule is blank" if options.flagged == "mask" else "they are as they were"
    return [f"{n} studies may show {what}; {done}." for what, n in sorted(counts.items())]


def _tokenizer(plan: Plan, directory: Path) -> str | None:
    if not any(x.kind == "text" for x in plan.source.schema.modalities.values()):
        return None
    options = plan.options
    if options.tokenizer:
        tokenizer.adopt(options.tokenizer, directory)
    else:
        patients, texts = itertools.tee(_texts(plan, directory))
        tokenizer.train(
            (text for _, text in texts),
            directory,
            options.vocab_size,
            options.min_frequency,
            patients=(patient for patient, _ in patients),
            min_patients=plan.min_patients,
        )
    some = [text for _, text in itertools.islice(_texts(plan, directory), _TRIED)]
    tokenizer.check_vocabulary(tokenizer.load(directory / tokenizer.FOLDER), some)
    return tokenizer.FOLDER


def _texts(plan: Plan, directory: Path) -> Iterator[tuple[int, str]]:
    """(hashed patient, text) of the training split."""
    for task in plan.tasks:
        if task.split == "train":
            yield from Receipt.load(directory / f"{task.stem}{RECEIPT}").texts


def _clean(directory: Path) -> None:
    """Removes what only a build needs; the receipts hold texts."""
    left = (*directory.glob(f"*{RECEIPT}"), *directory.glob(f".*{UNFINISHED}"))
    for path in (*left, directory / plans.FILE, directory / _LOCK):
        path.unlink(missing_ok=True)
