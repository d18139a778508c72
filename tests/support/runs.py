"""Real processes of medjax.bin.train for tests: started fast, watched, signalled, and never left behind."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from medjax.checkpoints import CheckpointStore

ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).with_name("small_recipe.py")
STEPS = 60
PATIENCE = 400.0  # seconds; many times what it takes


@dataclass
class Server:
    """Starts runs on `data`; programs are compiled once, into `cache`."""

    data: Path
    cache: Path
    _process: subprocess.Popen = field(init=False)
    _running: list[int] = field(default_factory=list)

    def __post_init__(self):
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "NPROC": "16", "PYTHONPATH": str(ROOT)}
        environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        environment |= {"JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
        command = [sys.executable, str(Path(__file__).with_name("run_server.py"))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True, **pipes)

    def _ask(self, **request) -> int:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, workdir: Path, *arguments: str, processes: int = 1, devices: int = 2) -> list[int]:
        """Process numbers of one run of `STEPS` steps. devices: of each of its processes."""
        fixed = [f"--config={RECIPE}:steps={STEPS}", f"--config.data.dir={self.data}", f"--workdir={workdir}"]
        # Of several processes only the first would keep what it compiles: the others would lag behind, and on a machine
        # with much to do for longer than collectives wait.
        fixed += [f"--compilation_cache={self.cache if processes == 1 else ''}", *arguments]
        if processes > 1:
            with socket.socket() as s:
                s.bind(("", 0))
                fixed += [f"--coordinator=localhost:{s.getsockname()[1]}", f"--process_count={processes}"]
        found = []
        for index in range(processes):
            more = [f"--process_index={index}"] if processes > 1 else []
            output = str(workdir.with_name(f"{workdir.name}-{index}.out"))
            found.append(self._ask(arguments=[*fixed, *more], devices=devices, output=output))
        self._running += found
        return found

    def wait(self, *numbers: int) -> list[int]:
        """Exit statuses; negative for a signal. A process that does not end is killed, which its status tells."""
        end = time.monotonic() + PATIENCE
        while any(not _is_over(n) for n in numbers) and time.monotonic() < end:
            time.sleep(0.02)
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
            self._running.remove(number)
        return [self._ask(wait=n) for n in numbers]

    def train(self, workdir: Path, *arguments: str, processes: int = 1, devices: int = 2) -> None:
        """A run that is left alone, to its end."""
        done = self.wait(*self.start(workdir, *arguments, processes=processes, devices=devices))
        assert done == [0] * processes, (done, output(workdir))

    def close(self) -> None:
        """Ends all of it."""
        for number in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()


def _is_over(number: int) -> bool:
    """Whether a process has ended and is waited for."""
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def until(condition: Callable[[], bool], *numbers: int) -> bool:
    """Waits for a condition, which is looked at often; False if all the processes end before."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        if all(_is_over(n) for n in numbers):
            return False
        time.sleep(0.005)
    raise AssertionError("nothing happened")


def output(workdir: Path) -> str:
    """The ends of what the processes wrote."""
    files = sorted(workdir.parent.glob(f"{workdir.name}-*.out"))
    return "\n".join(f"{p.name}: {p.read_text()[-1500:]}" for p in files)


def rows(workdir: Path, name: str = "metrics.jsonl") -> Iterator[dict]:
    """Whole lines of a file of JSON lines; none where there is no file."""
    path = workdir / name
    for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
        if line.endswith("\n"):
            yield json.loads(line)


def batches(workdir: Path) -> dict[int, list]:
    """The example ids of every global batch that was read, by its number; read twice, also by another number of
    processes, it must have been the same."""
    found: dict[tuple[int, int], dict[int, list]] = {}
    for path in sorted(workdir.parent.glob(f"{workdir.name}-*.out.ids")):
        for row in (json.loads(line) for line in path.read_text().splitlines()):
            parts = found.setdefault((row["batch"], len(row["ids"])), {})
            assert parts.setdefault(row["process"], row["ids"]) == row["ids"]
    out: dict[int, list] = {}
    for (number, _), parts in sorted(found.items()):
        whole = [x for process in sorted(parts) for x in parts[process]]
        assert out.setdefault(number, whole) == whole
    return out


def losses(workdir: Path, name: str = "train/loss") -> list[tuple[int, float]]:
    """(step, value) of all rows that have it, in the order of the file."""
    return [(r["step"], r[name]) for r in rows(workdir) if name in r]


def last_logged(workdir: Path) -> int:
    """The newest step in metrics.jsonl, 0 for none."""
    return max((step for step, _ in losses(workdir)), default=0)


def checkpoint(workdir: Path, step: int, folder: str = "checkpoints") -> tuple[dict[str, np.ndarray], dict]:
    """Parameters, optimizer and method state by path, and what was saved beside them, but for the unknown time."""
    store = CheckpointStore(workdir / folder, read_only=True)
    params, meta = store.restore_params(step)
    rest = {} if folder == "best" else store.restore_rest(step, "optimizer")
    tree = {"params": params, "optimizer": rest, "method": store.restore_rest(step, "method")}
    return {jax.tree_util.keystr(p): np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(tree)}, meta


def assert_same(workdir: Path, other: Path, step: int, but: tuple[str, ...] = ()) -> None:
    """Bit for bit: the last and the best checkpoint, what is saved beside them (`but` some of the last), and every
    logged loss, once each."""
    best = max(int(p.name) for p in (other / "best").iterdir() if p.name.isdigit())
    for folder, at in (("checkpoints", step), ("best", best)):
        (a, meta_a), (b, meta_b) = (checkpoint(w, at, folder) for w in (workdir, other))
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"{folder} {name}")
        left_out = but if folder == "checkpoints" else ()
        assert {k: v for k, v in meta_a.items() if k not in left_out} == {
            k: v for k, v in meta_b.items() if k not in left_out
        }
    for name in ("train/loss", "validation/loss", "train/skipped_steps"):
        assert losses(workdir, name) == losses(other, name)
    assert list(rows(workdir, "skipped.jsonl")) == list(rows(other, "skipped.jsonl"))
