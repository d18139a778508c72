"""What holds for every script of launch/."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from launch_host import ROOT

from medjax.errors import EXIT_BAD_INPUT, EXIT_HUNG, EXIT_PREEMPTED, EXIT_STORAGE

LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
LAUNCHERS = ["docker.sh", "gke.sh", "several_processes.sh", "slurm.sh", "tpu_vm.sh"]
HELPERS = ["install.sh", "wheelhouse.sh"]


def _bash(*arguments: object, **more) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", *map(str, arguments)], capture_output=True, text=True, timeout=60, **more)


@pytest.mark.slow
def test_shellcheck_has_nothing_to_say(tmp_path):
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=Path(sys.executable).parent)
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    batch = tmp_path / "batch.sh"
    batch.write_text(_bash(LAUNCH / "slurm.sh", "--dry_run", "--a=b c").stdout)
    done = subprocess.run([shellcheck, "-x", *SCRIPTS, batch], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "broken.sh"
    broken.write_text("#!/bin/bash\necho $1\n")
    assert subprocess.run([shellcheck, broken], capture_output=True).returncode == 1


def test_bash_can_parse_every_script():
    for script in SCRIPTS:
        assert _bash("-n", script).returncode == 0, script.name


@pytest.mark.parametrize("name", LAUNCHERS + HELPERS)
def test_help_names_every_option_there_is(name, tmp_path):
    script = LAUNCH / name
    if name == "install.sh":  # which works in the folder that wheelhouse.sh makes
        script = Path(shutil.copy(script, tmp_path))
        (tmp_path / "launch").symlink_to(LAUNCH)
        (tmp_path / "target").write_text("3.12 x86_64\n")
    done = _bash(script, "--help")
    assert done.returncode == 0 and done.stdout.startswith(("Trains", "Submits", "Collects", "Installs")), done.stderr
    source = script.read_text()
    options = [w.split("]")[0] for w in source[source.index("option=(") : source.index("parse ")].split("[")[1:]]
    names = [o for o in options if o.islower() and o.replace("_", "").isalpha()]
    assert len(names) >= 4 and [o for o in names if f"--{o}" not in done.stdout] == []


@pytest.mark.parametrize("name", [n for n in LAUNCHERS if n != "several_processes.sh"])
def test_a_wrong_option_is_bad_input(name):
    done = _bash(LAUNCH / name, "--max_restarts=many", "--name=a", "--image=b", "--cluster=c", "--workload=d")
    assert done.returncode == EXIT_BAD_INPUT
    assert done.stderr == "error: --max_restarts=many is not a whole number\n"


def test_the_statuses_that_are_started_again_are_the_trainers():
    code = f'set --; source "{LAUNCH / "common.sh"}"; for s in {{0..255}}; do if restartable $s; then echo $s; fi; done'
    restarted = {int(s) for s in _bash("-c", code).stdout.split()}
    assert {EXIT_STORAGE, EXIT_PREEMPTED, EXIT_HUNG} == {s for s in restarted if s <= 128}
    assert {129, 134, 137, 139, 143} <= restarted and not {0, 1, EXIT_BAD_INPUT, 126, 127, 255} & restarted


def test_every_script_has_its_place_in_the_readme():
    text = (LAUNCH / "README.md").read_text()
    files = [*SCRIPTS, LAUNCH / "Dockerfile", LAUNCH / "medjax.def"]
    assert [f.name for f in files if f"`{f.name}`" not in text] == []


def test_the_commands_of_the_readme_are_accepted():
    blocks = re.findall(r"```bash\n(.*?)```", (LAUNCH / "README.md").read_text(), re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if "bash launch/" in line]
    assert {line.split()[1] for line in lines} == {f"launch/{n}" for n in (*LAUNCHERS, "wheelhouse.sh")}
    for line in lines:
        dry = line.split("#")[0].replace("--config=", "--dry_run --config=", 1).replace("...", "--dry_run")
        done = _bash("-c", dry if "--dry_run" in dry else f"{dry} --dry_run", cwd=ROOT)
        assert done.returncode == 0 and done.stdout, done.stderr


def test_the_wheelhouse_is_resolved_for_the_other_machine(tmp_path):
    options = ["--output=o", "--extras=cuda,readers", "--python_version=3.13", "--machine=aarch64", "--dry_run"]
    done = _bash(LAUNCH / "wheelhouse.sh", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    compiled = next(line for line in done.stdout.splitlines() if "uv pip compile" in line).split()
    assert {"--python-version=3.13", "--python-platform=aarch64-manylinux_2_28", "--generate-hashes"} <= set(compiled)
    download = next(line for line in done.stdout.splitlines() if "pip download" in line).split()
    assert {"--python-version=3.13", "--only-binary=:all:", "--require-hashes", "--no-deps"} <= set(download)
    assert {"--platform=manylinux_2_28_aarch64", "--platform=manylinux2014_aarch64"} <= set(download)
    assert not any("x86_64" in word or "manylinux_2_29" in word for word in download)
    assert "medjax[cuda,readers] @ file://" in done.stdout and not list(tmp_path.iterdir())


def test_a_damaged_wheelhouse_or_another_python_is_refused(tmp_path):
    shutil.copy(LAUNCH / "install.sh", tmp_path)
    (tmp_path / "launch").symlink_to(LAUNCH)
    (tmp_path / "a.whl").write_text("sound")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (tmp_path / "target").write_text(f"{version} {__import__('platform').machine()}\n")
    subprocess.run("sha256sum a.whl > SHA256SUMS", shell=True, cwd=tmp_path, check=True)
    install = [tmp_path / "install.sh", f"--python={sys.executable}", "--venv=v", "--dry_run"]
    lines = _bash(*install).stdout.splitlines()
    assert len(lines) == 3 and all("--no-index" in line for line in lines[1:]) and "--require-hashes" in lines[1]
    (tmp_path / "a.whl").write_text("other")
    assert "is damaged" in _bash(*install).stderr
    (tmp_path / "target").write_text("3.9 x86_64\n")
    assert "is for Python 3.9" in _bash(*install).stderr


def test_an_image_holds_only_what_it_needs():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {"LICENSE", "README.md", "pyproject.toml", "setup.py", "configs", "launch", "medjax"}
    assert kept == copied and "\n*\n" in (ROOT / ".dockerignore").read_text()
    text = (LAUNCH / "Dockerfile").read_text()
    assert text.index("USER ") < text.index("ENTRYPOINT") and 'ENTRYPOINT ["python", "-m", "medjax.bin.train"]' in text
