"""gcloud with one slice of two workers, which are folders: ends with the status of the first shell that failed."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _fake import HOME, flag, record

state = HOME / "state"
kind, verb = sys.argv[3], sys.argv[4]
record(f"gcloud.{kind}.{verb}", sys.argv[5:])
if kind == "queued-resources":
    if verb == "create":
        state.write_text("ACTIVE")
    elif verb == "delete":
        state.unlink()
    elif not state.exists():
        sys.exit(1)
    else:
        print(state.read_text())
elif verb == "describe":
    print("READY" if state.exists() and state.read_text() == "ACTIVE" else "PREEMPTED")
elif verb == "ssh" and "several_processes" in flag("command", ""):
    lost = HOME / "taken_away"
    if lost.exists() and "--stop" not in flag("command", ""):
        lost.unlink()
        state.write_text("SUSPENDED")
        sys.exit(255)
    workers = [
        subprocess.Popen(
            ["sh", "-c", flag("command", "")], cwd=HOME / f"worker.{i}", env={**os.environ, "FAKE_WORKER": str(i)}
        )
        for i in range(2)
    ]
    statuses = [w.wait() for w in workers]
    sys.exit(next((s for s in statuses if s), 0))
