"""What every run has about it: being asked to leave, being watched, and having its workdir to itself."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax

from medjax.sharding import is_main
from medjax.training.experiment import TrainConfig
from medjax.training.lock import RunLock
from medjax.training.preemption import Preemption
from medjax.training.watchdog import Watchdog, report


@dataclass(frozen=True)
class Survival:
    """lock: of the first process alone."""

    preemption: Preemption
    watchdog: Watchdog
    lock: RunLock | None

    def poll(self) -> None:
        """Between two steps, or two batches of an evaluation, in all processes alike: a sign of life.

        Raises:
          Leave: the run is asked to leave.
          StorageError: another run has the workdir now.
        """
        self.watchdog.beat()
        if self.lock is not None:
            self.lock.check()
        self.preemption.poll()


@contextlib.contextmanager
def surviving(workdir: Path, config: TrainConfig) -> Iterator[Survival]:
    """For a whole run in its workdir.

    Raises:
      UserError: another run is there, or the folder cannot be written to.
    """
    process = jax.process_index()

    def dump() -> None:
        report(workdir, process)

    watchdog = Watchdog(config.hang_seconds, config.hang_action == "leave", dump)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(RunLock(workdir).held()) if is_main() else None
        preemption = stack.enter_context(Preemption().listening(dump))
        stack.enter_context(watchdog.watching())
        yield Survival(preemption, watchdog, lock)
