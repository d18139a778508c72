"""Turns raw files into a data set: ArrayRecord shards, a manifest and a tokenizer, split by patient.

The synthetic phantom:
    python -m medjax.bin.build_dataset --source=phantom --output=DATA
PTB-XL:
    python -m medjax.bin.build_dataset --source=ptbxl --input=PTBXL_FOLDER --output=DATA
Your own table, one row a study (columns that do not apply are left out):
    python -m medjax.bin.build_dataset --source=table --input=studies.csv --output=DATA \\
        --image_columns=frontal,lateral --ecg_columns=record --text_columns=report --numeric_columns=crp,creatinine \\
        --label_columns=pneumonia --patient_column=patient --split_column=split
Archives by their layout: --source=mimic (with --mimic_rule, also with ECGs and lab tests of MIMIC-IV), symile_mimic,
chexpert, openi, ct_rate, roco; and --source=tfds with the features of a prepared TFDS data set as columns.

Data other than the phantom and public archives are sensitive unless --nosensitive says otherwise: ids are hashed with
a secret key that stays outside of the data set, texts are scrubbed, and names in messages and lists appear hashed;
--whois tells the owner of the key who is meant.

A build that was stopped, even by a kill, goes on when the same command is given again.
"""

import os
import shlex
import sys
from pathlib import Path

from absl import flags

from medjax.bin import archive_sources, cli  # noqa: F401 - it registers its sources
from medjax.bin.progress import Progress
from medjax.bin.sources import SOURCES
from medjax.data.building.beam import beam_engine
from medjax.data.building.build import REJECTED, Engine, Options, build_dataset, protected
from medjax.data.building.splits import Splitting
from medjax.data.building.workers import write_shards
from medjax.data.manifest import Manifest
from medjax.data.privacy import keys, licence
from medjax.data.privacy.protect import FLAGGED, whois
from medjax.data.sources import Source
from medjax.errors import UserError
from medjax.storage import is_remote

_SOURCE = flags.DEFINE_enum("source", None, list(SOURCES), "What to read.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the data set; must not hold one already.")
_LIMIT = flags.DEFINE_float("max_rejected_fraction", 0.01, "Share of unreadable studies beyond which the build stops.")
_TOKENIZER = flags.DEFINE_string("tokenizer", "", "Folder of a Hugging Face fast tokenizer; default: train one.")
_VOCAB = flags.DEFINE_integer("vocab_size", 8192, "Largest vocabulary of a trained tokenizer.")
_FREQUENCY = flags.DEFINE_integer("min_frequency", 2, "How often a word piece must occur to enter the vocabulary.")
_WORKERS = flags.DEFINE_integer("workers", 0, "Processes that write shards; 0: one for each core.")
_PER_SHARD = flags.DEFINE_integer("records_per_shard", 0, "Studies in a shard; 0: by their size, at most 256 MiB.")
_INDEX = flags.DEFINE_bool("index_only", False, "Keep references to the source's files, with checksums, and no copies.")
_ENGINE = flags.DEFINE_enum("engine", "local", ["local", "beam"], "What writes the shards: processes here, or Beam.")
_BEAM_OPTIONS = flags.DEFINE_string("beam_options", "", "With --engine=beam: options of its pipeline and runner.")
_SPACE = flags.DEFINE_string(
    "patient_space", "", "What the patient ids are ids of; the same id in another space is another patient."
)
_KEY_FILE = flags.DEFINE_string(
    "id_key_file",
    "",
    "File with the secret that keys the hashes of ids, outside of the data set. Default: for sensitive data "
    "~/.config/medjax/id_key, which is made at its first use; none for others.",
)
_SCRUB = flags.DEFINE_string(
    "scrub",
    "",
    "What takes names, dates and numbers out of texts before anything else: basic (rules, no guarantee), none, or "
    "module:function of yours. Default: basic for sensitive data, none for others.",
)
_FLAGGED = flags.DEFINE_enum(
    "flagged",
    "keep",
    list(FLAGGED),
    "Pictures that may show writing, heads that may show a face: kept, refused, masked.",
)
_SAFE_NAMES = flags.DEFINE_bool(
    "file_names_are_safe", False, "The names of the source's files tell nothing of a patient; --index_only keeps them."
)
_MIN_PATIENTS = flags.DEFINE_integer(
    "min_patients", 0, "Patients who must have a word for the tokenizer to learn it; 0: 5 for sensitive data, else 1."
)
_WHOIS = flags.DEFINE_string(
    "whois", "", "Builds nothing: says which study, patient or file of the source stands behind an id-... of a message."
)
_TERMS = {
    duty: flags.DEFINE_bool(duty, None, f"The licence of the data: {what}. Default: what is known of --licence.")
    for duty, what in {
        "credentialed": "access only for those who have signed for it",
        "non_commercial": "no commercial use",
        "share_alike": "what is made from them carries the same licence",
        "attribution": "their source must be named",
    }.items()
}
_SPLIT = flags.DEFINE_enum(
    "split", "source", ["source", "random", "fold"], "The archive's splits, random ones, or folds."
)
_FRACTIONS = flags.DEFINE_list(
    "split_fractions", ["0.7", "0.1", "0.2"], "Train, validation and test share of the patients."
)
_FOLD = flags.DEFINE_string("fold", "0/5", "With --split=fold: which fold is the test split, of how many.")
_SEED = flags.DEFINE_integer("split_seed", 0, "Seed of random splits and folds.")


def main() -> None:
    """Builds the data set and prints what it holds."""
    if _SOURCE.value and _WHOIS.value:
        _look_up()
        return
    if not _SOURCE.value or not _OUTPUT.value:
        raise UserError(f"pass --source={'|'.join(SOURCES)} and --output=DIR")
    if is_remote(_OUTPUT.value):
        raise UserError(
            f"--output={_OUTPUT.value} is no folder of this machine: build it here, and copy it with gcloud storage "
            f"cp -r DATA {_OUTPUT.value}; data sets are read from there"
        )
    directory = Path(_OUTPUT.value)
    source, engine = SOURCES[_SOURCE.value](), _engine()
    options = _options(source)
    manifest = build_dataset(source, directory, options, Progress("studies"), engine, _say)
    print(_summary(manifest, directory))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _look_up() -> None:
    """Prints what a pseudonym stands for."""
    source = SOURCES[_SOURCE.value]()
    _, options = protected(source, Options(id_key=_id_key()))
    found = list(whois(source, options.id_key, _WHOIS.value))
    print("\n".join(found) or f"nothing in this source is {_WHOIS.value} under this key")


def _options(source: Source) -> Options:
    try:
        fractions = tuple(float(x) for x in _FRACTIONS.value)
        fold, folds = (int(x) for x in _FOLD.value.split("/"))
    except ValueError:
        raise UserError("--split_fractions is three numbers such as 0.7,0.1,0.2 and --fold is such as 0/5") from None
    return Options(
        splitting=Splitting(_SPLIT.value, fractions, fold, folds, _SEED.value),
        max_rejected_fraction=_LIMIT.value,
        tokenizer=_TOKENIZER.value,
        vocab_size=_VOCAB.value,
        min_frequency=_FREQUENCY.value,
        workers=_WORKERS.value or os.cpu_count() or 1,
        records_per_shard=_PER_SHARD.value,
        index_only=_INDEX.value,
        patient_space=_SPACE.value,
        id_key=_id_key(),
        scrub=_SCRUB.value,
        flagged=_FLAGGED.value,
        file_names_are_safe=_SAFE_NAMES.value,
        min_patients=_MIN_PATIENTS.value,
        terms=licence.declare(licence.of(source.schema), **{duty: flag.value for duty, flag in _TERMS.items()}),
    )


def _id_key() -> bytes:
    if not _KEY_FILE.value:
        return b""
    if _OUTPUT.value:
        keys.check_outside(_KEY_FILE.value, Path(_OUTPUT.value))
    return keys.read_key(_KEY_FILE.value)


def _engine() -> Engine:
    if _ENGINE.value == "beam":
        return beam_engine(shlex.split(_BEAM_OPTIONS.value))
    if _BEAM_OPTIONS.value:
        raise UserError("--beam_options are for --engine=beam")
    return write_shards


def _summary(manifest: Manifest, directory: Path) -> str:
    lines = [f"{manifest.name} in {directory}" + (" (synthetic)" if manifest.synthetic else "")]
    for name, split in manifest.splits.items():
        present = ", ".join(f"{n} {m}" for m, n in split.present.items())
        lines.append(f"  {name}: {split.examples} studies of {split.patients} patients; {present}")
    if manifest.rejected:
        lines.append(f"  {manifest.rejected} studies were rejected, see {directory / REJECTED}")
    lines += [f"  {note}" for note in manifest.notes]
    return "\n".join(lines)


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
