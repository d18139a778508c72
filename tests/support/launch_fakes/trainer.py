"""medjax.bin.train that does what the plan of its process says."""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _fake import HOME, calls, flag, record

if sys.argv[1] == "-c":
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
index = os.environ.get("SLURM_PROCID") or os.environ.get("FAKE_WORKER") or flag("process_index", "0")
program = f"python.{index}"
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
plan = (HOME / f"plan.{index}").read_text().split()
before = record(program, sys.argv[1:])
step = plan[before]
if step.startswith("later-"):
    step = step.removeprefix("later-")
    while calls("python.0") <= before:
        time.sleep(0.01)
if step == "wait":
    while len(asked) == 0:
        time.sleep(0.01)
    step = "75"
elif step == "hang":
    time.sleep(300)
if step.isdigit():
    sys.exit(int(step))
os.kill(os.getpid(), getattr(signal, f"SIG{step}"))
