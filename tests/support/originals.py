"""timm and open_clip, also where torchvision is absent."""

from importlib.util import find_spec

import pytest

pytest.importorskip("torch", reason="needs the CPU wheel of PyTorch, of Python 3.11")

for _name in ("timm", "open_clip"):
    if find_spec(_name) is None:
        pytest.skip(f"{_name} is not installed; it is in the extra `parity`", allow_module_level=True)

from medjax.benchmarks.torchvision_stub import torchvision

with torchvision():
    import open_clip
    import timm

__all__ = ["open_clip", "timm"]
