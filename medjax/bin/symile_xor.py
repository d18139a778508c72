"""Symile's exclusive-or experiment: python -m medjax.bin.symile_xor [--p=0.5] [--json] [--output=plot.png].

Trains linear encoders with Symile and with pairwise InfoNCE, and prints their accuracies beside the best there is; for
p = 0, 0.1, ... 1 with a plot, or for one p. configs/symile_xor.py says what is trained, and has two variants.
"""

import json

from absl import flags
from ml_collections import ConfigDict, config_flags

from medjax.benchmarks import symile_xor
from medjax.bin import cli
from medjax.config import build
from medjax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/symile_xor.py", "Recipe: configs/symile_xor.py[:variant=eight,epochs=N].", lock_config=True
)
_P = flags.DEFINE_float("p", None, "Share of samples that follow the exclusive-or; default: the whole curve.")
_JSON = flags.DEFINE_bool("json", False, "Print each point as a line of JSON too; the last line is the last point.")
_OUTPUT = flags.DEFINE_string("output", "symile_xor.png", "Where to write the plot of the curve.")


def main() -> None:
    """Runs the points, prints a table and writes the plot."""
    if not isinstance(_CONFIG.value, ConfigDict):  # the default, outside a checkout
        raise UserError("there is no configs/symile_xor.py here; pass --config=PATH/configs/symile_xor.py")
    experiment = build(symile_xor.Experiment, _CONFIG.value, "config")
    shares = _shares(experiment)
    objectives = symile_xor.OBJECTIVES
    table = [(p, experiment.optimum(p), *(symile_xor.run(experiment, name, p) for name in objectives)) for p in shares]
    columns = [f"{name} {what}" for name in objectives for what in ("accuracy", "validation loss", "logit scale")]
    cli.print_table(("p", "optimum", *columns), [_row(*row) for row in table])
    if len(shares) > 1:
        symile_xor.plot(_OUTPUT.value, *([row[i] for row in table] for i in range(4)))
        print(f"plot: {_OUTPUT.value}")
    if _JSON.value:
        for p, _, symile, pairwise in table:
            print(json.dumps({"p": p, "symile": float(symile.accuracy), "pairwise": float(pairwise.accuracy)}))


def _shares(experiment: symile_xor.Experiment) -> list[float]:
    if _P.value is not None and not 0 <= _P.value <= 1:
        raise UserError(f"--p is a share between 0 and 1, got {_P.value}")
    if experiment.variant != "mixture":
        if _P.value not in (None, 1.0):
            raise UserError(f"variant {experiment.variant!r} is an exclusive-or throughout; leave --p out")
        return [1.0]
    return [_P.value] if _P.value is not None else [i / 10 for i in range(11)]


def _row(p, optimum, *results):
    cells = [f"{p:g}", f"{optimum:.3f}"]
    for r in results:
        cells += [f"{r.accuracy:.3f} ± {r.spread:.3f}", f"{r.loss:.3f}", f"{r.scale:.1f}"]
    return cells


def run() -> None:
    """The console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
