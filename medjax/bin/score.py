"""Scores other programs' outputs: python -m medjax.bin.score --task=TASK --inputs=A[,B] --output=DIR.

task         inputs                                               beside them
predictions  tables: score/NAME and label/NAME (0, 1 or empty)    --validation=TABLE, to choose thresholds on
multiclass   tables: score/CLASS and label (the true class)
ordinal      tables: grade/NAME and label/NAME (whole numbers)
reports      tables: generated and reference; perhaps label/NAME  --workdir or --export, an encoder that reads text
images       folders of pictures                                  --reference=FOLDER; perhaps --workdir or --export
grounding    folders of maps [H, W], .npy or pictures             --reference=FOLDER of masks or boxes.json;
                                                                  --validation=MAPS,REFERENCE, for Dice's threshold
segmentation folders of masks, .npy, .nii.gz or pictures          --reference=FOLDER

Tables (.csv, .tsv, .jsonl, .parquet; predictions also .npz) may have a column `patient`; for folders --patients is a
table of `file` and `patient`. Files belong together by their names without the ending. Several inputs make one table
and a mean; --reference then names one for each, or one for all. Every score has its interval and its controls.
"""

from pathlib import Path

from absl import flags

from medjax.bin import cli, score_folders, score_tables
from medjax.bin.score_predictions import score_predictions
from medjax.bin.score_result import Scored, publish
from medjax.errors import UserError
from medjax.methods.encoder import Encoder, load_run
from medjax.methods.exported import load_export

_TABLES, _FOLDERS = ("multiclass", "ordinal", "reports"), ("images", "grounding", "segmentation")
_TASK = flags.DEFINE_enum("task", "predictions", ["predictions", *_TABLES, *_FOLDERS], "What is scored; see above.")
_INPUTS = flags.DEFINE_list("inputs", [], "Tables or folders, as the task needs them.")
_REFERENCE = flags.DEFINE_list("reference", [], "Of folders what they should be: one for each input, or one for all.")
_VALIDATION = flags.DEFINE_list("validation", [], "What thresholds are chosen on: a table, or MAPS,REFERENCE.")
_PATIENTS = flags.DEFINE_string("patients", "", "Of folders a table of file and patient.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder of results.json and report.html.")
_WORKDIR = flags.DEFINE_string("workdir", "", "A run whose encoder compares pictures or reports.")
_EXPORT = flags.DEFINE_string("export", "", "In place of --workdir: a folder written by medjax.bin.export.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "Of the run: best, last, untrained, or a step number.")


def main() -> None:
    """Scores, prints a table, writes results.json and report.html."""
    if not _INPUTS.value or not _OUTPUT.value:
        raise UserError("pass --inputs=A[,B] and --output=DIR")
    names = [Path(x).stem for x in _INPUTS.value]
    if len(set(names)) < len(names):
        raise UserError(f"--inputs names two files {max(names, key=names.count)!r}; rename one")
    _check_flags()
    output = Path(_OUTPUT.value)
    if _TASK.value == "predictions":
        score_predictions(dict(zip(names, _INPUTS.value, strict=True)), "".join(_VALIDATION.value[:1]), output)
        return
    encoder, left_out = _encoder(), {}
    if _TASK.value == "images" and encoder is None:
        left_out["Frechet distance and recall of the embeddings"] = "no encoder; pass --workdir or --export"
    if _TASK.value == "grounding" and not _VALIDATION.value:
        left_out["dice"] = "no validation maps to choose a threshold on"
    references = _REFERENCE.value * (len(names) if len(_REFERENCE.value) == 1 else 1)
    found = {
        name: _one(given, references[i] if references else "", encoder, i)
        for i, (name, given) in enumerate(zip(names, _INPUTS.value, strict=True))
    }
    publish(_TASK.value, found, output, left_out)


def _one(given: str, reference: str, encoder: Encoder | None, seed: int) -> Scored:
    """seed: of the bootstrap; each input has its own, so that their mean draws them independently."""
    match _TASK.value:
        case "multiclass":
            return score_tables.classes(given, seed)
        case "ordinal":
            return score_tables.ordinal(given, seed)
        case "reports":
            return score_tables.reports(given, encoder, seed)
        case "images":
            return score_folders.images(given, reference, _PATIENTS.value, encoder, seed)
        case "segmentation":
            return score_folders.segmentation(given, reference, _PATIENTS.value, seed)
    validation = tuple(_VALIDATION.value) or None
    return score_folders.grounding_maps(given, reference, _PATIENTS.value, validation, seed)


def _check_flags() -> None:
    task, references = _TASK.value, len(_REFERENCE.value)
    if task in _FOLDERS and references not in (1, len(_INPUTS.value)):
        raise UserError(f"--task={task} needs --reference, one or one for each of {len(_INPUTS.value)} inputs")
    if task not in _FOLDERS and (references or _PATIENTS.value):
        raise UserError(f"--reference and --patients belong to folders; --task={task} reads both from columns")
    expected = {"predictions": (0, 1), "grounding": (0, 2)}.get(task, (0,))
    if len(_VALIDATION.value) not in expected:
        how = {"predictions": "one table", "grounding": "MAPS,REFERENCE"}.get(task, "nothing")
        raise UserError(f"--validation of --task={task} takes {how}, got {','.join(_VALIDATION.value)}")
    if (_WORKDIR.value or _EXPORT.value) and task not in ("images", "reports"):
        raise UserError(f"--task={task} uses no encoder; leave out --workdir and --export")


def _encoder() -> Encoder | None:
    if _WORKDIR.value and _EXPORT.value:
        raise UserError("pass --workdir or --export, not both")
    if _EXPORT.value:
        return load_export(_EXPORT.value)
    return load_run(_WORKDIR.value, _CHECKPOINT.value) if _WORKDIR.value else None


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
