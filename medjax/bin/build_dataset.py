"""Turns raw files into a data set: ArrayRecord shards, a manifest and a tokenizer, split by patient.

The synthetic phantom:
    python -m medjax.bin.build_dataset --source=phantom --output=DATA
PTB-XL:
    python -m medjax.bin.build_dataset --source=ptbxl --input=PTBXL_FOLDER --output=DATA
Your own table, one row a study (columns that do not apply are left out):
    python -m medjax.bin.build_dataset --source=table --input=studies.csv --output=DATA \\
        --image_columns=frontal,lateral --ecg_columns=record --text_columns=report --numeric_columns=crp,creatinine \\
        --label_columns=pneumonia --patient_column=patient --split_column=split
"""

import os
import sys
from pathlib import Path

from absl import flags

from medjax.bin import cli
from medjax.data.build import REJECTED, Options, build_dataset
from medjax.data.manifest import Manifest
from medjax.data.sources import PTBXL, Columns, MedMNIST, Phantom, Source, Table
from medjax.data.splits import Splitting
from medjax.errors import UserError

_SOURCE = flags.DEFINE_enum("source", None, ["phantom", "ptbxl", "table", "medmnist"], "What to read.")
_INPUT = flags.DEFINE_string("input", "", "Folder (ptbxl), CSV file (table) or .npz file (medmnist).")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the data set; must not hold one already.")
_LIMIT = flags.DEFINE_float("max_rejected_fraction", 0.01, "Share of unreadable studies beyond which the build stops.")
_TOKENIZER = flags.DEFINE_string("tokenizer", "", "Folder of a Hugging Face fast tokenizer; default: train one.")
_VOCAB = flags.DEFINE_integer("vocab_size", 8192, "Largest vocabulary of a trained tokenizer.")
_FREQUENCY = flags.DEFINE_integer("min_frequency", 2, "How often a word piece must occur to enter the vocabulary.")
_WORKERS = flags.DEFINE_integer("workers", 0, "Processes that read studies; 0: one for each core.")
_KEY_FILE = flags.DEFINE_string("id_key_file", "", "File with a secret that keys the hashes of ids; keep it elsewhere.")
_SPLIT = flags.DEFINE_enum(
    "split", "source", ["source", "random", "fold"], "The archive's splits, random ones, or folds."
)
_FRACTIONS = flags.DEFINE_list(
    "split_fractions", ["0.7", "0.1", "0.2"], "Train, validation and test share of the patients."
)
_FOLD = flags.DEFINE_string("fold", "0/5", "With --split=fold: which fold is the test split, of how many.")
_SEED = flags.DEFINE_integer("split_seed", 0, "Seed of random splits and folds.")

_PATIENTS = flags.DEFINE_integer("patients", 2000, "phantom: number of patients.")
_SIZE = flags.DEFINE_integer("image_size", 64, "phantom: pixels a side.")
_PHANTOM_SEED = flags.DEFINE_integer("seed", 0, "phantom: seed of everything.")
_RATE = flags.DEFINE_float("ecg_rate", 100.0, "ptbxl, table: samples per second in the records.")
_DATASET = flags.DEFINE_string("dataset", "pneumoniamnist", "medmnist: which data set, for its captions.")
_NAME = flags.DEFINE_string("name", "table", "table: name of the data set.")
_LICENCE = flags.DEFINE_string("licence", "unknown", "table: its licence.")
_SENSITIVE = flags.DEFINE_bool("sensitive", True, "table: whether reports must show no pictures and no text.")
_PROMPTS = flags.DEFINE_string(
    "prompts", "", 'table: JSON {label: {"positive": [...], "negative": [...]}} for zero-shot.'
)
_IMAGES = flags.DEFINE_list("image_columns", [], "table: columns with image files; several are views of one study.")
_ECGS = flags.DEFINE_list("ecg_columns", [], "table: columns with WFDB records, without their ending.")
_TEXTS = flags.DEFINE_list("text_columns", [], "table: columns with reports.")
_NUMBERS = flags.DEFINE_list("numeric_columns", [], "table: columns with lab values; empty cells are missing.")
_LABELS = flags.DEFINE_list("label_columns", [], "table: columns with 0, 1 or nothing.")
_PATIENT = flags.DEFINE_string("patient_column", "", "table: column with the patient; default: every row is one.")
_EXAMPLE = flags.DEFINE_string("id_column", "", "table: column that names the study.")
_SPLIT_COLUMN = flags.DEFINE_string("split_column", "", "table: column with train, validation (val) or test.")
_TIME = flags.DEFINE_string("time_column", "", "table: column with days since a patient's reference date.")


def main() -> None:
    """Builds the data set and prints what it holds."""
    if not _SOURCE.value or not _OUTPUT.value:
        raise UserError("pass --source=phantom|ptbxl|table|medmnist and --output=DIR")
    directory = Path(_OUTPUT.value)
    manifest = build_dataset(_source(), directory, _options(), _progress)
    sys.stderr.write("\n" if sys.stderr.isatty() else "")
    print(_summary(manifest, directory))


def _source() -> Source:
    if _SOURCE.value == "phantom":
        return Phantom(_PATIENTS.value, _SIZE.value, _PHANTOM_SEED.value)
    if not _INPUT.value:
        raise UserError(f"--source={_SOURCE.value} needs --input")
    path = Path(_INPUT.value)
    if _SOURCE.value == "ptbxl":
        return PTBXL(path, _RATE.value)
    if _SOURCE.value == "medmnist":
        return MedMNIST(path, _DATASET.value)
    columns = Columns(
        image=tuple(_IMAGES.value),
        ecg=tuple(_ECGS.value),
        text=tuple(_TEXTS.value),
        numeric=tuple(_NUMBERS.value),
        label=tuple(_LABELS.value),
        patient=_PATIENT.value,
        example=_EXAMPLE.value,
        split=_SPLIT_COLUMN.value,
        time=_TIME.value,
    )
    return Table(path, columns, _NAME.value, _LICENCE.value, _RATE.value, _PROMPTS.value, _SENSITIVE.value)


def _options() -> Options:
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
        id_key=_id_key(),
    )


def _id_key() -> bytes:
    if not _KEY_FILE.value:
        return b""
    path = Path(_KEY_FILE.value)
    if not path.is_file() or not 16 <= path.stat().st_size <= 64:
        raise UserError(
            f"--id_key_file={path} must be a file of 16 to 64 secret bytes; head -c 32 /dev/urandom > {path}"
        )
    return path.read_bytes()


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done}/{total} studies\x1b[K")
    elif done == total or done % 1000 == 0:
        sys.stderr.write(f"{done}/{total} studies\n")
    sys.stderr.flush()


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
