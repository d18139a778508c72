"""medjax: contrastive and self-supervised pre-training of encoders for any number of medical modalities, in JAX."""

__version__ = "0.1.0"


def load(directory: str, checkpoint: str = "best", weights: str = ""):
    """The encoder of a run or of an export; see `medjax.methods.encoder.Encoder.embed`.

    directory: the workdir of `medjax.bin.train`, or a folder written by `medjax.bin.export`. checkpoint: of a run:
    "best", "last" or a step number. weights: of a run: "raw", or "ema" for their moving average; by default those that
    it validated with.
    """
    from pathlib import Path

    if (Path(directory) / "medjax_export.json").is_file():
        from medjax.methods.exported import load_export

        return load_export(directory)
    from medjax.methods.encoder import load_run

    return load_run(directory, checkpoint, weights)
