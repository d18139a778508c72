"""Clusters get the trainer's flags through every shell as they were given, and restart by the same rules."""

import shlex
import signal
import subprocess

import pytest
from launch_host import FAKES, FLAGS, ROOT, Host

TRAIN = ["-m", "medjax.bin.train"]


def _lines(done: subprocess.CompletedProcess) -> list[list[str]]:
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def _submit(host: Host, *options: str) -> str:
    """The batch script that sbatch got. A task that waits for the other, before it ends, does not wait for seconds."""
    assert host.run("slurm.sh", *options, *FLAGS).returncode == 0
    both = "[ -e ready.0 ] && [ -e ready.1 ]"
    (host.folder / "sleep").write_text(f"#!/bin/sh\n: >ready.$SLURM_PROCID\nuntil {both}; do /bin/sleep 0.02; done\n")
    (host.folder / "sleep").chmod(0o755)
    host.environment |= {"PATH": f"{host.folder}:{host.environment['PATH']}", "SLURM_JOB_ID": "7"}
    return (host.folder / "batch.sh").read_text()


def test_a_dry_run_prints_what_would_be_run_and_runs_nothing(host):
    (one,) = _lines(host.run("several_processes.sh", "1", "--cache_dir=c d", "--dry_run", *FLAGS))
    assert one == ["env", "JAX_COMPILATION_CACHE_DIR=c d", str(FAKES / "python"), *TRAIN, *FLAGS]
    build, container = _lines(host.run("docker.sh", "--image=i", "--build", "--dry_run", *FLAGS))
    assert build[:2] == ["docker", "build"] and str(ROOT / "launch" / "Dockerfile") == build[2].partition("=")[2]
    assert container[-len(FLAGS) - 1 :] == ["i", *FLAGS] and "--env=JAX_COMPILATION_CACHE_DIR=/cache" in container
    (workload,) = _lines(
        host.run("gke.sh", "--cluster=c", "--workload=w", "--image=i", "--tpu_type=t", "--dry_run", "--a=b")
    )
    assert workload[-1] == "--command=exec python -m medjax.bin.train --a=b"
    create, pack, copy, install, train = _lines(
        host.run("tpu_vm.sh", "--name=n", "--accelerator_type=t", "--runtime_version=v", "--setup", "--dry_run", *FLAGS)
    )
    assert create[3:6] == ["queued-resources", "create", "n"] and pack[0] == "tar" and copy[4] == "scp"
    assert install[4] == train[4] == "ssh" and "--worker=all" in train
    assert "#SBATCH --requeue" in host.run("slurm.sh", "--dry_run").stdout.splitlines()
    assert not list(host.folder.glob("calls.*")) and not (host.folder / "batch.sh").exists()


def test_slurm_tells_tasks_to_save_before_the_time_is_up_and_requeues(host):
    options = ["--nodes=2", "--gpus_per_node=4", "--grace=300", "--sbatch=--partition=a", "--sbatch=--account=b"]
    script = _submit(host, *options)
    header = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {"--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--partition=a", "--account=b"} <= set(header)
    assert {"--signal=B:USR1@300", "--requeue", "--open-mode=append"} <= set(header)
    for index in (0, 1):
        host.plan("wait", index=index)
    batch = host.start("./batch.sh")
    for program in ("python.0", "python.1", "srun"):
        host.wait_for(program, 1)
    batch.send_signal(signal.SIGUSR1)
    _, stderr = batch.communicate(timeout=30)
    assert batch.returncode == 75, stderr
    assert host.calls("python.0") == host.calls("python.1") == [[*TRAIN, *FLAGS]]
    assert host.calls("scancel") == [["--signal=TERM", "7"]] and host.calls("scontrol") == [["requeue", "7"]]


@pytest.mark.parametrize(
    ("ends", "status", "requeued"),
    [((0, 0), 0, False), (("hang", "2"), 2, False), (("KILL", "hang"), 137, True), (("hang", "1"), 1, False)],
    ids=["done", "bad_input", "killed", "bug"],
)
def test_slurm_requeues_by_what_ended_first_not_by_who_was_killed_for_it(host, ends, status, requeued):
    _submit(host)
    for index, end in enumerate(ends):
        host.plan(end, index=index)
    assert host.run("./batch.sh").returncode == status
    assert bool(host.calls("scontrol")) == requeued


def test_slurm_requeues_no_cancelled_job_and_none_too_often(host):
    _submit(host, "--max_restarts=3")
    for index in (0, 1):
        host.plan(76, 76, index=index)
    assert host.run("./batch.sh", FAKE_STATE="COMPLETING").returncode == 76
    assert "--max_restarts" in host.run("./batch.sh", SLURM_RESTART_COUNT="3").stderr
    assert host.calls("scontrol") == []


def test_slurm_gives_one_task_a_node_all_its_gpus_and_runs_containers(host):
    script = _submit(host, "--nodes=2", "--tasks_per=node", "--container=a b.sif", "--bind=/data", "--setup=true")
    assert "#SBATCH --ntasks-per-node=1" in script
    assert "export JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7" in script and "\ntrue || exit 1\n" in script
    line = next(line for line in script.splitlines() if line.startswith("train=("))
    words = shlex.split(line.removeprefix("train=(").removesuffix(")"))
    assert words[:2] == ["apptainer", "exec"] and {"--nv", "/data", "a b.sif"} <= set(words)
    assert words[-len(FLAGS) - 2 :] == [*TRAIN, *FLAGS]


@pytest.mark.parametrize("kind", ["--tpu_type=v5litepod-16", "--device_type=h100-80gb-8"])
def test_gke_pods_get_the_flags_and_restart_on_the_same_statuses(host, kind):
    options = ["--cluster=c", "--workload=w", "--image=i", "--zone=z", "--xpk=--spot", "--cache_dir=gs://b/c", kind]
    assert host.run("gke.sh", *options, *FLAGS).returncode == 0
    (call,) = host.calls("xpk")
    assert call[:2] == ["workload", "create"] and "--spot" in call and kind.replace("_type", "-type") in call
    assert {"--restart-on-exit-codes=74,75,76", "--max-restarts=100", "--env=JAX_COMPILATION_CACHE_DIR=gs://b/c"} <= {
        *call
    }
    command = call[-1].removeprefix("--command=")
    assert not set('"\\\n') & set(command)  # xpk writes it between the double quotes of a YAML file
    host.plan(0)
    gpus = {"JAX_COORDINATOR_ADDRESS": "first", "JAX_COORDINATOR_PORT": "6002", "NNODES": "4", "NODE_RANK": "0"}
    subprocess.run(["bash", "-c", command], env=host.environment | gpus, check=True, cwd=host.folder)
    others = ["--coordinator=first:6002", "--process_count=4", "--process_index=0"]
    assert host.calls("python.0") == [[*TRAIN, *FLAGS, *(others if "device" in kind else [])]]


def _slice(host: Host) -> None:
    """Two workers with this folder set up."""
    for worker in (0, 1):
        home = host.folder / f"worker.{worker}" / "medjax"
        (home / ".venv" / "bin").mkdir(parents=True)
        (home / ".venv" / "bin" / "python").symlink_to(FAKES / "python")
        (home / "launch").symlink_to(ROOT / "launch")


def test_tpu_workers_get_the_flags_and_start_again_together(host):
    _slice(host)
    host.plan(134, 75, 0, index=0)
    host.plan("KILL", 76, 0, index=1)
    done = host.run("tpu_vm.sh", "--name=a", "--zone=z", "--restart_delay=0", *FLAGS)
    assert done.returncode == 0, done.stderr
    for worker in (0, 1):
        assert host.calls(f"python.{worker}") == [[*TRAIN, "--coordinator=auto", *FLAGS]] * 3
    assert all({"a", "--zone=z", "--worker=all"} <= set(call) for call in host.calls("gcloud.tpu-vm.ssh"))


def test_bad_input_of_one_tpu_worker_is_not_repeated(host):
    _slice(host)
    host.plan(134, index=0)
    host.plan(2, index=1)
    assert host.run("tpu_vm.sh", "--name=a", "--restart_delay=0").returncode == 2


def test_sigterm_lets_tpu_workers_save(host):
    _slice(host)
    for worker in (0, 1):
        host.plan("wait", index=worker)
    launcher = host.start("tpu_vm.sh", "--name=a")
    for worker in (0, 1):
        host.wait_for(f"python.{worker}", 1)
    launcher.send_signal(signal.SIGTERM)
    _, stderr = launcher.communicate(timeout=30)
    assert launcher.returncode == 75, stderr
    assert "--stop" in host.calls("gcloud.tpu-vm.ssh")[-1][-1]


def test_a_slice_that_was_taken_away_is_asked_for_again_and_set_up(host):
    _slice(host)
    (host.folder / "taken_away").touch()
    for worker in (0, 1):
        host.plan(0, index=worker)
    request = ["--accelerator_type=v5litepod-16", "--runtime_version=v2", "--queue=--spot", "--setup"]
    done = host.run("tpu_vm.sh", "--name=a", *request, "--restart_delay=0", "--poll_s=0")
    assert done.returncode == 0, done.stderr
    created = host.calls("gcloud.queued-resources.create")
    assert len(created) == 2 and {"--node-id=a", "--accelerator-type=v5litepod-16", "--spot"} <= set(created[0])
    assert len(host.calls("gcloud.queued-resources.delete")) == 1 and len(host.calls("gcloud.tpu-vm.scp")) == 2
