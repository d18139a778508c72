"""srun of two tasks: kills the rest after one that failed, answers SIGTERM by killing, ends with the highest status."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _fake import HOME, record

command = sys.argv[2:]
assert sys.argv[1] == "--kill-on-bad-exit=1"
tasks = [
    subprocess.Popen(command, start_new_session=True, env={**os.environ, "SLURM_PROCID": str(i)}) for i in range(2)
]
(HOME / "tasks").write_text("".join(f"{t.pid}\n" for t in tasks))
killed = []
signal.signal(signal.SIGTERM, lambda *_: killed.append(1))
record("srun", sys.argv[1:])
while any(t.poll() is None for t in tasks):
    if killed or any(t.poll() for t in tasks):
        time.sleep(0.3)
        for t in tasks:
            if t.poll() is None:
                os.killpg(t.pid, signal.SIGKILL)
                t.wait()
    time.sleep(0.02)
sys.exit(max(128 - t.returncode if t.returncode < 0 else t.returncode for t in tasks))
