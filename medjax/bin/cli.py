"""What every binary shares: bad input ends in one line on stderr and exit status 2, not in a stack trace."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from medjax.errors import EXIT_BAD_INPUT, EXIT_STORAGE, StorageError, UserError, suggest


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main`."""
    absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax narrates, and warns of its own metadata
    app.run(lambda _: _guarded(main), flags_parser=_parse)


def _guarded(main: Callable[[], None]) -> None:
    try:
        main()
    except UserError as error:
        _fail(error)


def _parse(argv: list[str]) -> list[str]:
    _show_all_flags()
    try:
        _check_config(argv)
        rest = flags.FLAGS(argv)
    except (flags.Error, UserError) as error:
        _fail(error)
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}; flags start with --")
    return rest


def _show_all_flags() -> None:
    """--help lists the flags of every module of medjax.bin that the program is made of, not only of its main one."""
    for module in [name for name in sys.modules if name.startswith("medjax.bin.")]:
        for flag in flags.FLAGS.get_key_flags_for_module(module):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def _check_config(argv: list[str]) -> None:
    """Names the nearest file or key where --config or an override of it is misspelt; ml_collections gives a trace.

    Raises:
      UserError: no such file, a wrong argument after its colon, or an override of a key that the recipe lacks.
    """
    given = {}
    for flag, following in zip(argv[1:], [*argv[2:], ""], strict=False):
        if flag.startswith("-"):
            key, equals, value = flag.lstrip("-").partition("=")
            given[key] = value if equals else following
    if "config" not in given or "config" not in flags.FLAGS:
        return
    config = load_config(given["config"])
    for key in given:
        node, where = config, "config"
        for part in key.split(".")[1:] if key.startswith("config.") else ():
            if not isinstance(node, ConfigDict) or part.split("[")[0] not in node:
                options = list(node) if isinstance(node, ConfigDict) else []
                raise UserError(f"--{key}: {where} has no key {part!r}; {suggest(part, options)}")
            node, where = node[part.split("[")[0]], f"{where}.{part}"


def load_config(spec: str) -> ConfigDict:
    """The recipe of `path[:argument]`.

    Raises:
      UserError: there is no such file, or it refuses the argument.
    """
    name, _, argument = spec.partition(":")
    path = Path(name)
    if not path.is_file():
        raise UserError(f"no recipe {name}; {suggest(path.stem, [p.stem for p in path.parent.glob('*.py')])}")
    module_spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module.get_config(argument) if argument else module.get_config()


def print_table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A table on the console, columns aligned."""
    table = [[str(x) for x in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        print("  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip())


def _fail(error: object) -> None:
    say(f"error: {' '.join(str(error).split())}")
    # A process that raised would wait for the others, and they for it: leave at once.
    end(EXIT_STORAGE if isinstance(error, StorageError) else EXIT_BAD_INPUT)


def say(text: str) -> None:
    """Writes to stderr; where that cannot be written, as on the disk that is full, the exit status has to do."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def end(status: int) -> None:
    """Ends the process here and now, with all that was printed."""
    for stream in (sys.stdout, sys.stderr):  # os._exit does not
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
