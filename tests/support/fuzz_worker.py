"""Reads mutated files in a process with little memory and no way out, and prints what came of it.

    python fuzz_worker.py FORMAT[,FORMAT...] COUNT SEED FOLDER

Prints a JSON object a format: how many files were read and refused, and `broken`, what must not happen: other
exceptions than UserError, messages of several lines, files opened outside the folder, pickles, connections, processes,
and single reads that take more than 20 seconds.
"""

import json
import os
import resource
import shutil
import signal
import sys
import warnings
from pathlib import Path

import numpy as np

from medjax.data.readers import reader
from medjax.errors import UserError

_MEMORY = 6 * 2**30  # address space; libraries alone map more than a gigabyte
_SECONDS = 20
_BIG = tuple(n.to_bytes(4, order) for n in (0x7FFFFFFF, 0xFFFFFFFF, 0x40000000) for order in ("little", "big"))


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four of: a flipped bit, a random byte, a huge number, digits made huge, a cut, a block twice or moved."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not out:
            break
        # Headers lie in front, and damage there goes deepest.
        at = int(rng.integers(min(len(out), 400) if rng.random() < 0.6 else len(out)))
        kind = int(rng.integers(7))
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.integers(256))
        elif kind == 2:
            out[at : at + 4] = _BIG[int(rng.integers(len(_BIG)))]
        elif kind == 3:
            digits = [i for i, b in enumerate(out[:2000]) if 48 <= b <= 57]
            if digits:
                i = digits[int(rng.integers(len(digits)))]
                out[i : i + 1] = rng.choice([b"99999999999", b"-1", b"1e308", b"nan", b"0"])
        elif kind == 4:
            del out[at:]
        elif kind == 5:
            block = out[at : at + int(rng.integers(1, 64))]
            out[at:at] = block * int(rng.integers(1, 4))
        else:
            del out[at : at + int(rng.integers(1, 32))]
    return bytes(out)


def read(kind: str, path: Path) -> object:
    """What a program would read of a file of this format."""
    if kind == "table":
        from medjax.data.readers.table import read_table

        return read_table(path)
    if kind == "npz":
        from medjax.data.sources import MedMNIST

        return [study.read() for study in MedMNIST(path).studies()]
    if kind == "webdataset":
        from medjax.data.sources import WebDataset

        return [study.read() for study in WebDataset(str(path)).studies()]
    rate = {"rate": 100.0}
    options = {"wfdb": rate, "edf": rate, "csv_ecg": {**rate, "file_rate": 100.0, "unit": "mV"}}
    item = reader(kind)(path, options.get(kind, {}))
    if kind == "image":
        from medjax.data.readers.image import decode

        decode(item)
    return item


class Guard:
    """Notes what an audit hook sees while a file is read: hooks cannot be taken away again."""

    def __init__(self, folder: Path):
        self.on, self.seen = False, []
        system = ("/usr", "/proc", "/sys", "/etc", "/dev/null")
        self._allowed = (str(folder), sys.prefix, sys.base_prefix, *system)
        self._code = str(Path(__file__).parent.parent.parent)
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple) -> None:
        if not self.on:
            return
        if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(args[0]))
            writes = isinstance(args[1], str) and set(args[1]) & set("wax+")
            inside = path.startswith(self._allowed) or (path.startswith(self._code) and path.endswith((".py", ".pyc")))
            if not inside or (writes and "__pycache__" not in path and path != "/dev/null"):
                self.seen.append(f"opened {path} {args[1]}")
        elif event in ("pickle.find_class", "socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.remove"):
            self.seen.append(f"{event} {args!r:.120}")


def _late(*_):
    raise TimeoutError(f"more than {_SECONDS} seconds")


def main(kind: str, count: int, seed: int, folder: Path, guard: Guard) -> dict:
    """Reads `count` mutated files of one format and says what came of it."""
    from fuzz_seeds import SEEDS

    rng = np.random.default_rng([seed, sorted(SEEDS).index(kind)])
    sound, damaged = folder / kind / "sound", folder / kind / "damaged"
    sound.mkdir(parents=True)
    names = SEEDS[kind](sound, rng)
    for name in names:
        read(kind, sound / name)  # a sound file is read, and everything is imported
    out = {"format": kind, "read": 0, "refused": 0, "broken": []}
    for i in range(count):
        name = names[int(rng.integers(len(names)))]
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(sound, damaged)
        parts = sorted(p for p in damaged.rglob("*") if p.is_file() and name in str(p.relative_to(damaged)))
        victim = parts[int(rng.integers(len(parts)))]
        victim.write_bytes(mutate(victim.read_bytes(), rng))
        result, broken = _attempt(kind, damaged / name, guard)
        if result:
            out[result] += 1
        out["broken"] += [f"{i} {name}: {what}" for what in broken]
    return out


def _attempt(kind: str, path: Path, guard: Guard) -> tuple[str, list[str]]:
    """ "read", "refused" or "", and what must not have happened."""
    guard.seen.clear()
    guard.on = True
    signal.alarm(_SECONDS)
    try:
        read(kind, path)
        return "read", list(guard.seen)
    except UserError as error:
        lines = [] if len(str(error).strip().splitlines()) == 1 else [f"not one line: {error!r:.200}"]
        return "refused", [*guard.seen, *lines]
    except BaseException as error:  # whatever it is, it must not be
        return "", [*guard.seen, f"{type(error).__name__}: {error!s:.200}"]
    finally:
        signal.alarm(0)
        guard.on = False


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    kinds, count, seed, place = sys.argv[1:]
    warnings.simplefilter("ignore")
    guard = Guard(Path(place).resolve())
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    signal.signal(signal.SIGALRM, _late)
    for kind in kinds.split(","):
        print(json.dumps(main(kind, int(count), int(seed), Path(place).resolve(), guard)), flush=True)
