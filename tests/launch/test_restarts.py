"""What is started again, what is not, and who gets the notice that the machine goes away."""

import signal
import subprocess

import pytest
from launch_host import FLAGS

TRAIN = ["-m", "medjax.bin.train"]
QUICK = "--restart_delay=0"


def test_a_preempted_and_a_killed_run_are_started_again_with_the_same_arguments(host):
    host.plan(75, "KILL", 74, 76, "ABRT", 0)
    done = host.run("several_processes.sh", "1", QUICK, *FLAGS)
    assert done.returncode == 0, done.stderr
    assert host.calls("python.0") == [[*TRAIN, *FLAGS]] * 6


@pytest.mark.parametrize("status", [0, 1, 2, 127])
def test_what_would_end_the_same_way_is_not_started_again(host, status):
    host.plan(status)
    assert host.run("several_processes.sh", "1", QUICK).returncode == status
    assert len(host.calls("python.0")) == 1


def test_restarts_are_bounded(host):
    host.plan(76, 75, 74, 0)
    done = host.run("several_processes.sh", "1", QUICK, "--max_restarts=2")
    assert done.returncode == 74 and "--max_restarts" in done.stderr
    assert len(host.calls("python.0")) == 3


def test_flags_behind_two_dashes_are_the_trainers_even_with_a_launchers_name(host):
    host.plan(0)
    host.run("several_processes.sh", "1", "--x", "--", "--max_restarts=1", "--", "--help")
    assert host.calls("python.0") == [[*TRAIN, "--x", "--max_restarts=1", "--", "--help"]]


def test_sigterm_reaches_every_process_and_ends_the_launcher_with_their_status(host):
    for index in (0, 1):
        host.plan("wait", 0, index=index)
    launcher = host.start("several_processes.sh", "2", QUICK)
    for index in (0, 1):
        host.wait_for(f"python.{index}", 1)
    launcher.send_signal(signal.SIGTERM)
    _, stderr = launcher.communicate(timeout=30)
    assert launcher.returncode == 75, stderr
    assert [len(host.calls(f"python.{i}")) for i in (0, 1)] == [1, 1]


def test_sigterm_between_two_attempts_ends_the_launcher(host):
    host.plan(75, 0)
    launcher = host.start("several_processes.sh", "1", "--restart_delay=300")
    line = launcher.stderr.readline()
    assert "restart 1 of 100 in 300 s" in line
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=30)
    assert launcher.returncode == 75 and len(host.calls("python.0")) == 1


def test_a_process_that_is_left_alone_is_killed_and_all_start_again(host):
    host.plan("hang", 0, index=0)
    host.plan("later-KILL", 0, index=1)
    assert host.run("several_processes.sh", "2", QUICK, *FLAGS).returncode == 0
    for index in (0, 1):
        first, second = host.calls(f"python.{index}")
        assert first[: len(TRAIN + FLAGS)] == [*TRAIN, *FLAGS]
        assert {"--process_count=2", f"--process_index={index}"} <= set(first) & set(second)
    ports = [next(a for a in call if a.startswith("--coordinator=localhost:")) for call in host.calls("python.0")]
    assert ports[0] == host.calls("python.1")[0][-3] and ports[1] == host.calls("python.1")[1][-3]


def test_bad_input_of_one_process_stops_all(host):
    host.plan("hang", index=0)
    host.plan("later-2", index=1)
    assert host.run("several_processes.sh", "2", QUICK).returncode == 2
    assert [len(host.calls(f"python.{i}")) for i in (0, 1)] == [1, 1]


def test_a_second_call_lets_the_first_save_and_takes_over(host):
    host.plan("wait", 0)
    options = ["--pid_file=state/pids", "--log=state/log", QUICK]
    first = host.start("several_processes.sh", "1", *options)
    host.wait_for("python.0", 1)
    second = host.run("several_processes.sh", "1", *options)
    first.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (75, 0), second.stderr
    assert len(host.calls("python.0")) == 2


def test_stop_ends_what_runs_even_if_only_its_trainer_is_left(host):
    host.plan("wait")
    launcher = host.start("several_processes.sh", "1", "--pid_file=pids")
    host.wait_for("python.0", 1)
    launcher.kill()
    launcher.wait()
    trainer = int((host.folder / "pids").read_text().split()[1])
    assert host.run("several_processes.sh", "1", "--pid_file=pids", "--stop").returncode == 0
    assert subprocess.run(["ps", "-o", "stat=", "-p", str(trainer)], capture_output=True, text=True).stdout[:1] in "Z"


def test_a_container_is_started_again_and_gets_the_notice(host):
    host.plan(75, "wait")
    options = ["--image=medjax:x", "--platform=cuda", "--mount=/a:/b:ro", "--docker=--cpus=2", QUICK]
    launcher = host.start("docker.sh", *options, *FLAGS, FAKE_IMAGE="medjax:x")
    host.wait_for("python.0", 2)
    launcher.send_signal(signal.SIGTERM)
    _, stderr = launcher.communicate(timeout=30)
    assert launcher.returncode == 75, stderr
    assert host.calls("python.0") == [[*TRAIN, *FLAGS]] * 2
    call = host.calls("docker")[0]
    assert call[-len(FLAGS) - 1 :] == ["medjax:x", *FLAGS]
    assert {"run", "--init", "--gpus=all", "--volume=/a:/b:ro", "--cpus=2"} <= set(call)
