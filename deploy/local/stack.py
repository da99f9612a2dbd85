"""Kafka and Redis on this machine without Docker, until they are stopped.

    python deploy/local/stack.py up      # starts both on free ports of the loopback, prints the settings
    python deploy/local/stack.py down    # stops what `up` started

Their data is in .stack/ and is loaded at the next `up`; .stack/env has the settings for `source`.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.local.services import STOP_S, KafkaServer, RedisServer, ServiceError, kafka_jars

FOLDER = Path(__file__).resolve().parents[2] / ".stack"


def up(folder: Path) -> int:
    """Start both, unless they run. If one does not start, stop the other and return exit code 1."""
    if running(folder):
        print((folder / "env").read_text(), end="")
        return 0
    try:
        # On any error before both are up and recorded, what runs is stopped.
        with ExitStack() as started:
            redis = started.enter_context(RedisServer(folder / "redis", detached=True))
            kafka = started.enter_context(KafkaServer(folder / "kafka", kafka_jars(), detached=True))
            processes = [server.process for server in (redis, kafka) if server.process is not None]
            pids = {str(process.pid): psutil.Process(process.pid).create_time() for process in processes}
            # Workers of this machine's user read what the user reads.
            settings = (
                f"export UNMASK_KAFKA={kafka.bootstrap}\nexport UNMASK_REDIS={redis.url}\nexport UNMASK_URI_ALLOW=/\n"
            )
            (folder / "env").write_text(settings)
            (folder / "pids.json").write_text(json.dumps(pids))
            started.pop_all()
    except ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(settings, end="")
    return 0


def down(folder: Path) -> int:
    """Stop what `up` started, cleanly if possible."""
    processes = running(folder)
    for process in processes:
        process.terminate()
    _, alive = psutil.wait_procs(processes, STOP_S)
    for process in alive:
        process.kill()
    for name in ("pids.json", "env"):
        (folder / name).unlink(missing_ok=True)
    print(f"Stopped {len(processes)} processes.")
    return 0


def running(folder: Path) -> list[psutil.Process]:
    """The processes that `up` started and that are alive; a pid that was reused does not count."""
    file = folder / "pids.json"
    if not file.exists():
        return []
    found = []
    for pid, created in json.loads(file.read_text()).items():
        try:
            process = psutil.Process(int(pid))
            if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            pass
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    return up(options.folder) if options.action == "up" else down(options.folder)


if __name__ == "__main__":
    sys.exit(main())
