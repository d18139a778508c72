"""Signals ask a run to leave, or to say where it stands; real signals to real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from medjax.training.fetching import Fetcher
from medjax.training.preemption import EXIT_INTERRUPTED, Leave, Preemption

ROOT = Path(__file__).parents[2]


def _wait_until(condition) -> None:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def _asks(preemption: Preemption) -> bool:
    try:
        preemption.poll()
    except Leave:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_asks_to_leave_and_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with Preemption().listening(lambda: None) as preemption:
        assert not _asks(preemption)
        os.kill(os.getpid(), number)
        _wait_until(lambda: _asks(preemption))
    assert signal.getsignal(number) is before
    assert preemption.preempted(7).interrupted == (number == signal.SIGINT)


def test_a_report_is_no_reason_to_leave():
    reports = []
    with Preemption().listening(lambda: reports.append(1)) as preemption:
        for number in (signal.SIGQUIT, signal.SIGUSR2):
            os.kill(os.getpid(), number)
            _wait_until(lambda number=number: len(reports) == (1 if number == signal.SIGQUIT else 2))
        assert not _asks(preemption)


def test_outside_the_main_thread_nothing_is_caught():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def run() -> None:
        with Preemption().listening(lambda: None) as preemption:
            found.append((_asks(preemption), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [(False, before)]


def test_the_second_interrupt_ends_the_process_at_once():
    code = (
        "import time\n"
        "from medjax.training.preemption import Preemption\n"
        "with Preemption().listening(lambda: None) as preemption:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == EXIT_INTERRUPTED
            assert "nothing more is saved" in process.stderr.read()
        finally:
            process.kill()


def test_a_wait_for_data_can_be_given_up():
    over = threading.Event()

    def batches():
        yield 1
        over.wait(30)
        yield 2

    def look() -> None:
        raise Leave

    fetcher = Fetcher(batches())
    assert fetcher.next(lambda: None) == 1
    with pytest.raises(Leave):
        fetcher.next(look)
    over.set()
    fetcher.close()


def test_what_reading_raises_is_raised_to_whoever_waits():
    def batches():
        yield 1
        raise OSError("gone")

    fetcher = Fetcher(batches())
    assert fetcher.next(lambda: None) == 1
    with pytest.raises(OSError, match="gone"):
        fetcher.next(lambda: None)
    fetcher.close()
