"""Fixtures for all test folders."""

from __future__ import annotations

import logging
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import structlog
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from deploy.local.services import KafkaServer, RedisServer, ServiceError, kafka_jars
from models.local_files import cache_dir
from pipeline.contracts import ACTIVE_KEY, CANARY_ENDED_KEY, CANARY_KEY, HISTORY_KEY, WITHDRAWN_KEY, arms_key
from pipeline.results.store import connect
from pipeline.video.sandbox import DecodeServer
from tests import media

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A suite that a shell runs in the background ignores interrupts, and so would the processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# A busy machine is no failure: examples may take their time. New ones are drawn in each run, so few in each are enough.
settings.register_profile(
    "unmask", settings(), deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unmask")

# The tests in these places share a broker: one process runs them all, and its broker is started once.
_KAFKA = (
    "tests/pipeline/worker/",
    "tests/pipeline/transport/test_kafka.py",
    "tests/pipeline/transport/test_consumer.py",
    "tests/web/workers/",
)
# Long groups first, so that no process is left with one of them at the end.
_FIRST = (*_KAFKA, "tests/e2e/", "tests/pipeline/video/", "tests/trainers/test_loop.py", "tests/trainers/evaluation/")


class _Scheduling(LoadScopeScheduling):
    """Which tests stay in one process: those of a file, and all that share the broker."""

    def _split_scope(self, nodeid: str) -> str:
        return "kafka" if nodeid.startswith(_KAFKA) else nodeid.split("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((n for n, start in enumerate(_FIRST) if item.nodeid.startswith(start)), len(_FIRST))

    items.sort(key=place)


def _log_plainly() -> None:
    """structlog's defaults without rich's tracebacks: with the local variables of a model they take ten seconds."""
    structlog.reset_defaults()
    *processors, _ = structlog.get_config()["processors"]
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*processors, renderer])


_log_plainly()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for the test run, shared by its processes: what is made, compiled or pulled stays out of the user's.

    The jars of Kafka that the user has are in it: Maven would take seconds to copy them.
    """
    folder = tmp_path_factory.getbasetemp()
    cache = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "unmask-cache"
    cache.mkdir(exist_ok=True)
    for jars in cache_dir().glob("kafka-*"):
        with suppress(FileExistsError):
            (cache / jars.name).symlink_to(jars)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNMASK_CACHE", str(cache))
        yield


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Undo logging changes: commands run by a test configure the logging of the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    _log_plainly()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _check_limits() -> Iterator[None]:
    """Limits of a decode child, set on the process of the tests, would make later ones fail on files and memory."""
    what = (resource.RLIMIT_FSIZE, resource.RLIMIT_DATA)
    before = [resource.getrlimit(each) for each in what]
    yield
    assert [resource.getrlimit(each) for each in what] == before


@pytest.fixture(autouse=True)
def _check_scheduling() -> Iterator[None]:
    """A test that changes the priority of its process would starve the services and workers of later ones."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0)
    yield
    assert os.sched_getscheduler(0) == before


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real clips and weights. Mark tests that use it `data`."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("UNMASK_DATA", default))
    if not (folder / "videos").is_dir():
        message = f"no clips in {folder}: point UNMASK_DATA at a folder with videos/"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis: `UNMASK_TEST_REDIS` if set, else one started for the session."""
    if given := os.environ.get("UNMASK_TEST_REDIS"):
        yield given
        return
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    with required_service():
        server.start()
    yield server.url
    server.stop()


@pytest.fixture
def announcements(redis_url: str) -> Iterator[redis.Redis]:
    """A Redis without announced weights."""
    with connect(redis_url) as client:
        keys = (ACTIVE_KEY, HISTORY_KEY, CANARY_KEY, CANARY_ENDED_KEY, WITHDRAWN_KEY)
        client.delete(*keys)
        yield client
        client.delete(*keys, *client.keys(arms_key("*")))


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Apache Kafka: `UNMASK_TEST_KAFKA` if set, else one started for the session."""
    if given := os.environ.get("UNMASK_TEST_KAFKA"):
        yield given
        return
    with required_service():
        server = KafkaServer(tmp_path_factory.mktemp("kafka"), kafka_jars())
        server.start()
    yield server.bootstrap
    server.stop()


@contextmanager
def required_service() -> Iterator[None]:
    """Skip the test if a service cannot be started here; fail in CI."""
    try:
        yield
    except ServiceError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def decode_server() -> Iterator[DecodeServer]:
    with DecodeServer() as server:
        yield server


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the session's generated clips."""
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="session")
def one_face(clips: Path) -> Path:
    """Four seconds, 25 frames a second, 640 x 360, one face of about 110 px."""
    path = clips / "one_face.mp4"
    media.make_clip(path)
    return path


@pytest.fixture(scope="session")
def three_faces(clips: Path) -> Path:
    """Two seconds, 25 frames a second, 960 x 400, three faces."""
    path = clips / "three_faces.mp4"
    media.make_clip(path, seconds=2, size=(960, 400), faces=3, face_px=(90, 110), seed=1)
    return path


@pytest.fixture(scope="session")
def no_face(clips: Path) -> Path:
    """One second of background."""
    path = clips / "no_face.mp4"
    media.make_clip(path, seconds=1, faces=0)
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium. One for each process: Playwright cannot be started twice in a thread."""
    from tests.browser import browser_for_tests

    yield from browser_for_tests()
