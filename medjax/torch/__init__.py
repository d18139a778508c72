"""medjax encoders for PyTorch users; nothing here imports JAX."""

from pathlib import Path

from medjax.torch.modeling import Encoder

__all__ = ["Encoder", "load"]


def load(directory: str | Path, device: str = "cpu") -> Encoder:
    """The encoder of a folder written by `medjax.bin.export --format=torch`, in evaluation mode.

    Raises:
      FileNotFoundError: the folder is not such an export.
      RuntimeError: its weights do not fit its config.json; every mismatch is named.
    """
    return Encoder.from_pretrained(directory, device)
