"""deploy/local/packages.sh on machines with different commands: each machine is a folder that is the whole PATH."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "local" / "packages.sh"
NEEDED = ("chromium", "g++", "redis-server", "java", "mvn")


def stub(folder: Path, command: str, body: str = "exit 0") -> None:
    path = folder / command
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "grep", "id", "env"):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    return folder


def packages(
    path: Path, *arguments: str, ci: bool = False, present: Iterable[str] = (), script: Path = SCRIPT
) -> tuple[int, str]:
    for command in present:
        stub(path, command)
    done = subprocess.run(
        [path / "bash", script, *arguments],
        env={"PATH": str(path), "CI": "true" if ci else ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_nothing_is_installed_on_a_complete_machine(path):
    stub(path, "apt-get", "echo apt-get was called; exit 1")
    assert packages(path, ci=True, present=NEEDED) == (0, "")
    assert packages(path, "--check", present=NEEDED) == (0, "")


def test_check_names_what_is_missing_and_installs_nothing(path):
    stub(path, "apt-get", "echo apt-get was called")
    code, said = packages(path, "--check", present=["g++"])
    assert code == 1
    assert "chromium" in said
    assert "g++" not in said
    assert "apt-get" not in said


@pytest.mark.parametrize(("ci", "code"), [(False, 0), (True, 1)])
def test_without_apt_packages_are_named_and_only_ci_fails(path, ci, code):
    got, said = packages(path, ci=ci)
    assert got == code
    assert "No apt-get here" in said
    for name in NEEDED:
        assert name in said


def test_apt_installs_missing_packages(path):
    stub(path, "id", "echo 0")
    stub(path, "apt-get", f"echo '#!/bin/sh' > {path}/g++; /bin/chmod +x {path}/g++")
    assert packages(path, ci=True, present=[name for name in NEEDED if name != "g++"])[0] == 0


def test_a_command_that_fails_counts_as_missing(path):
    stub(path, "chromium-browser", "echo 'requires the chromium snap to be installed'; exit 1")
    code, said = packages(path, "--check", present=["g++"])
    assert code == 1
    assert "chromium" in said


def test_an_unknown_option_is_refused(path):
    assert packages(path, "--frobnicate")[0] == 2


def test_building_images_needs_more(path):
    stub(path, "apt-get", "echo apt-get was called")
    stub(path, "id", "echo 0")
    assert packages(path, present=NEEDED) == (0, "")
    _, said = packages(path, "--images", present=NEEDED)
    assert "buildah: for images without a Docker daemon" in said
    stub(path, "debootstrap")
    assert packages(path, "--images", present=["buildah"]) == (0, "")


@pytest.mark.parametrize(("ci", "ends"), [(False, 0), (True, 1)])
def test_tools_of_the_chart_are_built_last(path, tmp_path, ci, ends):
    checkout = tmp_path / "checkout"
    for folder in ("deploy/local", ".venv/bin"):
        (checkout / folder).mkdir(parents=True)
    script = checkout / "deploy" / "local" / SCRIPT.name
    shutil.copy(SCRIPT, script)
    code, said = packages(path, "--charts", ci=ci, present=NEEDED, script=script)
    assert (code, "make setup" in said) == (ends, True)
    stub(checkout / ".venv" / "bin", "python", 'echo "built by $1"')
    code, said = packages(path, "--charts", ci=ci, present=NEEDED, script=script)
    assert code == 0
    assert said.strip().endswith("/deploy/local/chart_tools.py")
    stub(checkout / ".venv" / "bin", "python", "exit 1")
    code, said = packages(path, "--charts", ci=ci, present=NEEDED, script=script)
    assert code == ends
    assert ("Tests of the chart are skipped" in said) is not ci
