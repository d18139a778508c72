"""Exports an encoder for PyTorch users: python -m medjax.bin.export --format=torch --workdir=RUN.

Writes safetensors, configuration, preprocessing, a stand-alone modeling.py and a model card, and publishes them only
if PyTorch gives the embeddings that JAX gives on real studies. `medjax.load` reads the folder back into JAX.
"""

from pathlib import Path

from absl import flags

from medjax.bin import cli
from medjax.bin.exporting import export_torch
from medjax.errors import UserError
from medjax.methods.encoder import load_run

_FORMAT = flags.DEFINE_enum("format", "torch", ["torch"], "What the export is for.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, last, or a step number.")
_DATA = flags.DEFINE_string("data", "", "Data set to compare on; default: the one the run was trained on.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder to write; default: export/torch inside the workdir.")
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-5, "Largest absolute difference of embeddings that is let pass.")
_EXAMPLES = flags.DEFINE_integer("examples", 64, "Studies to compare on.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier export at the same place.")


def main() -> None:
    """Exports, and says how well both sides agree."""
    if not _WORKDIR.value:
        raise UserError("pass --workdir, the folder of a run")
    encoder = load_run(_WORKDIR.value, _CHECKPOINT.value)
    dataset = encoder.dataset(_DATA.value)
    output = Path(_OUTPUT.value) if _OUTPUT.value else Path(_WORKDIR.value) / "export" / _FORMAT.value
    found = export_torch(
        encoder, dataset, output, _CHECKPOINT.value, _TOLERANCE.value, _EXAMPLES.value, _OVERWRITE.value
    )
    print(
        f"max_abs_difference {found.max_abs_difference:.2e} over {found.examples} studies and {found.raw_inputs} raw "
        f"inputs\nexport: {output}"
    )


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
