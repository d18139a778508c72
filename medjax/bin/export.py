"""Exports an encoder for PyTorch users: python -m medjax.bin.export --workdir=RUN [--format=...].

--format=torch (default): all modalities, with heads and preprocessing, as safetensors, configuration and a stand-alone
modeling.py. `medjax.torch.load` reads the folder without JAX, `medjax.load` reads it back into JAX.

--format=huggingface: the tower of one --modality, which `transformers.AutoModel` loads together with its tokenizer or
image processor, or an image and a text tower with their projections as CLIPModel or VisionTextDualEncoderModel.
--format=open_clip: an image and a text tower with their projections, which `open_clip` loads from inside the folder.
`medjax.convert.load_pretrained` reads both of these back.

Weights that come from data of restricted licences are exported with --acknowledge_licence; the terms go with them.
--sketch adds sketch.npz, of which `medjax.bin.contamination` asks whether a data set holds near-duplicates of the
training data. Its salt is in it: who can guess an item can confirm that it was among them (`medjax.evaluation.sketch`).
Each is published only if PyTorch computes what JAX computes on real studies, and holds a model card.
"""

import dataclasses
from pathlib import Path

from absl import flags

from medjax.bin import cli
from medjax.bin.export_metrics import measured
from medjax.bin.exporting import export_torch
from medjax.bin.exporting_hub import Wanted, export_hub
from medjax.bin.exporting_open_clip import export_open_clip
from medjax.bin.sketching import sketch_of
from medjax.checkpoints.mirror import readable
from medjax.data.privacy.licence import check_free
from medjax.errors import UserError
from medjax.methods.encoder import WEIGHTS, chosen_weights, load_run
from medjax.storage import is_remote
from medjax.training.rundir import run_terms

# Format -> (what writes it, the largest difference that is let pass).
_FORMATS = {"torch": (export_torch, 1e-5), "huggingface": (export_hub, 2e-5), "open_clip": (export_open_clip, 1e-5)}

_FORMAT = flags.DEFINE_enum("format", "torch", list(_FORMATS), "For whom: medjax.torch, transformers or open_clip.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, last, or a step number.")
_WEIGHTS = flags.DEFINE_enum(
    "weights", "", ["", *WEIGHTS], "Parameters or their moving average; default: those that the run validated with."
)
_MODALITY = flags.DEFINE_list(
    "modality", [], "Of huggingface and open_clip: one, or an image and a text; default: all."
)
_LORA = flags.DEFINE_enum("lora", "merge", ["merge", "separate"], "Low-rank weights: merged, or an adapter of peft.")
_DATA = flags.DEFINE_string("data", "", "Data set to compare on; default: the one the run was trained on.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder to write; default: export/FORMAT inside the workdir.")
_TOLERANCE = flags.DEFINE_float(
    "tolerance", None, "Largest absolute difference that is let pass; default: 1e-5 of embeddings, 2e-5 of features."
)
_EXAMPLES = flags.DEFINE_integer("examples", 64, "Studies to compare on.")
_LICENSE = flags.DEFINE_string("license", "", "Licence of the weights for the model card, as Hugging Face names it.")
_ACKNOWLEDGE = flags.DEFINE_bool(
    "acknowledge_licence", False, "Export although the data are credentialed, non-commercial, or of unknown terms."
)
_SKETCH = flags.DEFINE_bool("sketch", False, "Add a sketch of the training data, to find near-duplicates by.")
_SKETCH_TEXTS = flags.DEFINE_bool(
    "sketch_texts", False, "Sketch reports and lab values of sensitive data, too, though these can be guessed."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier export at the same place.")


def main() -> None:
    """Exports, and says how well both sides agree."""
    if not _WORKDIR.value:
        raise UserError("pass --workdir, the folder of a run")
    export, tolerance = _FORMATS[_FORMAT.value]
    chosen = {} if export is export_torch else {"wanted": Wanted(_MODALITY.value, _LORA.value == "separate")}
    if _MODALITY.value and not chosen:
        raise UserError("--format=torch exports all modalities; leave --modality out")
    if _LORA.value == "separate" and export is not export_hub:
        raise UserError("--lora=separate goes with --format=huggingface")
    if is_remote(_WORKDIR.value) and not _OUTPUT.value:
        raise UserError(f"pass --output=DIR, a folder of this machine: exports are not written to {_WORKDIR.value}")
    terms = run_terms(readable(_WORKDIR.value))
    if not _ACKNOWLEDGE.value:
        check_free(terms)
    encoder = load_run(_WORKDIR.value, _CHECKPOINT.value, _WEIGHTS.value)
    dataset = encoder.dataset(_DATA.value)
    output = Path(_OUTPUT.value) if _OUTPUT.value else Path(_WORKDIR.value) / "export" / _FORMAT.value
    tolerance = tolerance if _TOLERANCE.value is None else _TOLERANCE.value
    metrics = list(measured(readable(_WORKDIR.value), encoder.step, chosen_weights(encoder.config, _WEIGHTS.value)))
    extra = {"metrics": metrics, "license": _LICENSE.value or None, "terms": dataclasses.asdict(terms)}
    options = (encoder, dataset, output, _CHECKPOINT.value, tolerance, _EXAMPLES.value, _OVERWRITE.value, extra)
    sketch = sketch_of(encoder, _SKETCH_TEXTS.value) if _SKETCH.value or _SKETCH_TEXTS.value else None
    found = export(*options, **chosen)
    if sketch:
        sketch.save(output)
    print(
        f"max_abs_difference {found.max_abs_difference:.2e} over {found.examples} studies and {found.raw_inputs} raw "
        f"inputs\nexport: {output}"
    )


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
