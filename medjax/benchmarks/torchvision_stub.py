"""open_clip and timm where torchvision is absent: their models need nothing of it, their imports do.

PyPI's torchvision fits only PyTorch with CUDA; beside the CPU wheel it fails to import, and transformers with it.
"""

import enum
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

_MODULES = ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc", ".datasets", ".utils")


class _Anything(types.ModuleType):
    """A module that has a class of every name."""

    __path__ = ()

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        value = enum.Enum(name, "NEAREST BILINEAR BICUBIC BOX HAMMING LANCZOS") if name == "InterpolationMode" else None
        setattr(self, name, value or type(name, (), {}))
        return getattr(self, name)


@contextmanager
def torchvision() -> Iterator[None]:
    """Torchvision, or an empty one while imports run; nothing is to find it later."""
    import transformers.utils

    if transformers.utils.is_torchvision_available():
        yield
        return
    modules = {f"torchvision{name}": _Anything(f"torchvision{name}") for name in _MODULES}
    for name, module in modules.items():
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(modules[parent], last, module)
    sys.modules |= modules
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
