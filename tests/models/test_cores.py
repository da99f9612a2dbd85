"""The number of available cores: on this machine, and with a fake /proc and fake cgroup file systems."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cores import available_cores


def test_this_machine() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def mount_v2(root: Path, own_group: str, mounted: str = "/") -> Path:
    write(root / "proc/self/cgroup", f"0::{own_group}\n")
    write(
        root / "proc/self/mountinfo",
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        f"30 22 0:26 {mounted} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
    )
    return root / "sys/fs/cgroup"


def mount_v1(root: Path, own_group: str, mounted: str = "/") -> Path:
    write(root / "proc/self/cgroup", f"4:cpu,cpuacct:{own_group}\n3:cpuset:/\n1:name=systemd:/x\n")
    write(
        root / "proc/self/mountinfo",
        f"31 30 0:28 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "32 30 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n",
    )
    return root / "sys/fs/cgroup/cpu,cpuacct"


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


periods = st.integers(1_000, 1_000_000)


@given(
    affinity=st.integers(1, 256),
    quota=st.none() | st.integers(1_000, 100_000_000),
    period=periods,
    v2=st.booleans(),
)
def test_cores_never_exceed_affinity_nor_quota(
    tmp_path_factory: pytest.TempPathFactory, affinity: int, quota: int | None, period: int, v2: bool
) -> None:
    root = tmp_path_factory.mktemp("root")
    if v2:
        write(mount_v2(root, "/job") / "job/cpu.max", f"{'max' if quota is None else quota} {period}\n")
    else:
        group = mount_v1(root, "/job") / "job"
        write(group / "cpu.cfs_quota_us", f"{-1 if quota is None else quota}\n")
        write(group / "cpu.cfs_period_us", f"{period}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
        cores = available_cores(root)
    limit = math.inf if quota is None else math.ceil(quota / period)
    assert cores == max(1, min(affinity, limit))


@pytest.mark.usefixtures("many_cores")
def test_the_smallest_quota_of_all_parents_applies(tmp_path: Path) -> None:
    top = mount_v2(tmp_path, "/slice/pod/container")
    write(top / "slice/cpu.max", "800000 100000")
    write(top / "slice/pod/cpu.max", "250000 100000")
    write(top / "slice/pod/container/cpu.max", "max 100000")
    assert available_cores(tmp_path) == 3


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize("mounted", ["/docker/abc", "/elsewhere"])
def test_a_container_with_the_hosts_group_names(tmp_path: Path, mounted: str) -> None:
    top = mount_v1(tmp_path, "/docker/abc", mounted)
    write(top / "cpu.cfs_quota_us", "150000")
    write(top / "cpu.cfs_period_us", "100000")
    assert available_cores(tmp_path) == 2


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize("text", ["", "max", "garbage here", "100000 0", "-5 100000"])
def test_an_unreadable_quota_is_ignored(tmp_path: Path, text: str) -> None:
    write(mount_v2(tmp_path, "/") / "cpu.max", text)
    assert available_cores(tmp_path) == 64


@pytest.mark.usefixtures("many_cores")
def test_no_cgroups_at_all(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 64


def test_a_system_without_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert available_cores(tmp_path) == 10
