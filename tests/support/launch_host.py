"""A host whose gcloud, srun, xpk, docker and Python only write down how they were called, and end as a test says."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAKES = Path(__file__).parent / "launch_fakes"
# What shells and remote shells take apart when it is quoted badly.
FLAGS = [
    "--config=configs/phantom.py:tiny,steps=4",
    "--config.optimizer.freeze=('towers/text/.*',)",
    "--workdir=a b",
    "--config.data.dir",
    "DATA",
    "--nolog",
    '--note="q" $HOME $(id) `id` \\ $$ * ; & | < > # ~ {x} é',
]


class Host:
    """A folder with fake programs first on the PATH."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._started: list[subprocess.Popen] = []
        self.environment = {
            "PATH": f"{FAKES}:{os.environ['PATH']}",
            "HOME": str(folder),
            "FAKE_HOME": str(folder),
            "FAKE_PYTHON": sys.executable,
            "PYTHON": str(FAKES / "python"),
            "LC_ALL": "C.UTF-8",
        }

    def plan(self, *steps: object, index: int = 0) -> None:
        """What the attempts of a process do: exit with a status, die of a signal, `wait` for SIGTERM, `hang`;
        after `later-` once process 0 is up as well."""
        (self.folder / f"plan.{index}").write_text("".join(f"{step}\n" for step in steps))

    def start(self, script: str, *arguments: str, **more: str) -> subprocess.Popen:
        """Starts a script of launch/ in the folder."""
        command = ["bash", script if "/" in script else str(ROOT / "launch" / script), *arguments]
        pipe = subprocess.PIPE
        environment = self.environment | more
        process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True)
        self._started.append(process)
        return process

    def stop(self) -> None:
        """Ends what a failed test left behind: at the second interrupt a launcher kills its processes."""
        for process in self._started:
            while process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(0.5)

    def run(self, script: str, *arguments: str, **more: str) -> subprocess.CompletedProcess:
        """Runs a script of launch/ to its end."""
        process = self.start(script, *arguments, **more)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def calls(self, program: str) -> list[list[str]]:
        """The arguments of all calls of a fake program."""
        file = self.folder / f"calls.{program}"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def wait_for(self, program: str, count: int) -> None:
        """Until a fake program was called this often, and handles signals."""
        end = time.monotonic() + 30
        while len(self.calls(program)) < count:
            assert time.monotonic() < end, f"{program} was called {len(self.calls(program))} times"
            time.sleep(0.02)
