"""A run that does not move says where it stands, and ends with a status of its own."""

import subprocess
import sys
import time
from pathlib import Path

from medjax.errors import EXIT_HUNG
from medjax.training.watchdog import Watchdog, report

ROOT = Path(__file__).parents[2]


def test_silence_is_reported_once_and_signs_of_life_keep_it_quiet():
    reports = []
    with Watchdog(0.4, leave=False, report=lambda: reports.append(time.monotonic())).watching() as watchdog:
        for _ in range(30):  # longer than the limit, and never silent for that long
            watchdog.beat()
            time.sleep(0.02)
        assert not reports
        end = time.monotonic() + 30
        while not reports and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(1.0)
    assert len(reports) == 1


def test_a_hung_program_leaves_its_stacks_and_ends(tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from medjax.training.watchdog import Watchdog, report\n"
        "def stuck_here():\n"
        "    time.sleep(60)\n"
        "with Watchdog(0.2, True, lambda: report(Path(sys.argv[1]), 3)).watching() as watchdog:\n"
        "    watchdog.beat()\n"
        "    stuck_here()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == EXIT_HUNG, done.stderr
    for text in (done.stderr, (tmp_path / "stacks-3.txt").read_text()):
        assert "stuck_here" in text


def test_reports_follow_one_another(tmp_path):
    report(tmp_path, 0)
    report(tmp_path, 0)
    assert (tmp_path / "stacks-0.txt").read_text().count("process 0, pid") == 2
