"""Forks runs of medjax.bin.train from one process that has imported it all, so that twenty starts cost one import.

A line of JSON on stdin, an answer on stdout: `{"arguments", "devices", "output"}` starts a run and gives its process
number; `{"wait": number}` gives its exit status, negative for a signal. JAX starts nothing before a run does. Beside
its output, `<output>.ids`, a run leaves the example ids of every batch that it reads.
"""

import json
import os
import sys

sys.modules["torch"] = None  # tensorboardX would import it, which takes longer than a run
import orbax.checkpoint  # noqa: F401
import tensorboardX  # noqa: F401

del sys.modules["torch"]  # einops takes an entry for the package

from medjax.bin import train
from medjax.data import Dataset


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork() or become_run(**request)
        print(answer, flush=True)


def become_run(arguments: list[str], devices: int, output: str) -> None:
    os.setsid()
    for number in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    write_ids(f"{output}.ids")
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    sys.argv = ["medjax.bin.train", *arguments]
    train.run()


def write_ids(path: str) -> None:
    real = Dataset.train

    def train(self, seed, start, batch, process=0, processes=1, ledger=None):
        found = real(self, seed, start, batch, process, processes, ledger)
        with open(path, "a") as file:  # noqa: PTH123 - nothing more is imported
            for number, rows in enumerate(found, start // batch + 1):
                row = {"batch": number, "process": process, "ids": rows.ids["example"].tolist()}
                print(json.dumps(row), file=file, flush=True)
                yield rows

    Dataset.train = train


if __name__ == "__main__":
    main()
