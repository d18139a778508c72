"""Whether what a checkpoint holds is what a configuration asks for; every difference is named at once."""

from typing import Any

import jax
import jax.numpy as jnp

_SHOWN = 20  # of each kind; who changed a width sees the pattern

WAY_OUT = "to start a new run from its weights instead: --config.warm_start.dir=RUN with another --workdir"


def differences(stored: Any, wanted: Any, cast: bool = False) -> list[str]:
    """What differs between two trees of shapes and dtypes, in words; empty where the one can be read as the other.

    A named tuple of an optimizer and the dict that is stored of it have the same paths. cast: floating-point numbers
    may have another dtype.
    """
    have, want = _leaves(stored), _leaves(wanted)
    both = [n for n in want if n in have]
    shapes = [
        f"{n} {list(have[n].shape)} there, {list(want[n].shape)} here" for n in both if have[n].shape != want[n].shape
    ]
    dtypes = [
        f"{n} is {have[n].dtype} in the checkpoint and {want[n].dtype} in the configuration"
        for n in both
        if not _readable(have[n].dtype, want[n].dtype, cast)
    ]
    return [
        *_said("shapes differ", shapes),
        *_said("dtypes differ (config.train.restore_cast=True converts floating-point numbers)", dtypes),
        *_said("the checkpoint lacks", [n for n in want if n not in have]),
        *_said("the configuration has no place for", [n for n in have if n not in want]),
    ]


def only_optimizer_differs(stored: Any, wanted: Any) -> bool:
    """Whether all that differs is the optimizer's state."""
    have, want = _leaves(stored), _leaves(wanted)
    differ = {n for n in {*have, *want} if n not in have or n not in want or have[n].shape != want[n].shape}
    return bool(differ) and all(n.startswith("rest/optimizer/") for n in differ)


def _readable(have: Any, want: Any, cast: bool) -> bool:
    floats = jnp.issubdtype(have, jnp.floating) and jnp.issubdtype(want, jnp.floating)
    return have == want or (cast and floats)


def _said(what: str, names: list[str]) -> list[str]:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{what}: {', '.join(names[:_SHOWN])}{more}"] if names else []


def _leaves(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
