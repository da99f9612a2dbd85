"""Everything that the routes share."""

from __future__ import annotations

import fcntl
import hmac
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Depends, Request

from models.errors import UnmaskError
from pipeline.contracts import SourceClass
from pipeline.manifests.reader import CredentialsReader
from pipeline.results.rescored import RescoredStore
from pipeline.results.store import connect
from pipeline.scan import Scanner
from pipeline.settings import Settings
from pipeline.sources import SourceLimits
from pipeline.worker.access import UriAllow
from web.accounts import Accounts
from web.actions import Actions
from web.auditor import Auditor
from web.database import Database
from web.decisions import Decisions
from web.drift import DriftOptions, DriftWatch
from web.explaining import Explainer
from web.hub import Event, Hub
from web.judges import AnyJudge
from web.judging import Judge, JudgeOptions
from web.keys import Caller, Keys, no_key
from web.known import Known
from web.listing import VideoList
from web.media import StoreAwayError
from web.media_links import places_of
from web.media_store import media_of
from web.oidc import Provider
from web.oidc_options import OidcOptions
from web.pictures import Pictures
from web.problems import Code, ProblemError
from web.quality import QualityReport
from web.rates import Rates
from web.remote_judging import RemoteJudge
from web.repeating import Repeating
from web.rescore_keys import RescoredKeys
from web.rescores import Rescores
from web.resumable import Resumables
from web.retention import Retention, erase
from web.reviews import Reviews
from web.rounds import Policy
from web.streams import Streams
from web.tasks import Tasks
from web.videos import Video, Videos
from web.views import Views
from web.webhooks import WAITS_S, Webhooks
from web.workers import Workers

COOKIE: Final = "unmask_session"
# Methods that change nothing.
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# How often it is looked whether Redis has rescored records of deleted videos, in seconds.
_FORGET_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options of the service.

    Attributes:
        folder: of the database and the uploaded files.
        judge: how videos are judged.
        policy: how much is reviewed.
        max_upload_bytes: of a file.
        max_uploads: at once; more are refused.
        max_waiting: videos that wait to be judged; more are refused.
        requests_s: requests a second that each key may make on average.
        webhook_waits_s: between tries of a message to a webhook.
        unknown_keys_s: keys a second that an address may try, besides those that were right a moment ago.
        max_resumable: resumable uploads of a key under way at once; more are refused.
        resumable_idle_s: a resumable upload that has not grown for this long is deleted, in seconds.
        secure: the page is reached by https only, so its cookie is sent there only.
        workers: judge videos by those behind Kafka and Redis, not in this process.
        oidc: people may sign in by a provider; None: by a key only.
        store: where uploaded files are kept: a URI that fsspec knows, or a path; None: in the folder.
        copies_bytes: of copies of a store's files on this machine; those in use may exceed it.
        keep_s: for how long judged videos of a class are kept; those of other classes until they are deleted.
        drift: what arrivals are compared with.
    """

    folder: Path
    judge: JudgeOptions = field(default_factory=JudgeOptions)
    policy: Policy = field(default_factory=Policy)
    max_upload_bytes: int = 4 << 30
    max_uploads: int = 64
    max_waiting: int = 10_000
    requests_s: float = 50.0
    webhook_waits_s: tuple[float, ...] = WAITS_S
    unknown_keys_s: float = 5.0
    max_resumable: int = 64
    resumable_idle_s: float = 24 * 3600.0
    secure: bool = False
    workers: bool = False
    oidc: OidcOptions | None = None
    store: str | None = None
    copies_bytes: int = 16 << 30
    keep_s: Mapping[SourceClass, float] = field(default_factory=dict)
    drift: DriftOptions = field(default_factory=DriftOptions)


class FolderError(UnmaskError):
    """Another service uses the folder."""


class Service:
    """The parts of a running service; one at a time has a folder.

    Attributes:
        is_ending: whether it was asked to end: what waits for events gives up.
        streams: live ones; None without workers.
        places: where workers find uploaded files; None without workers.

    Args:
        options: see `ServeOptions`.
        settings: of the machine.

    Raises:
        FolderError: another service uses the folder.
        DatabaseError: the folder is of a later version.
        OSError: it cannot be made or written.
        SigningError: the key that signs messages is damaged.
        StoreError: the store cannot be used, or reached.
        ValueError: `UNMASK_URI_ALLOW` or `UNMASK_WEBHOOK_ALLOW` is invalid, or a setting of what workers need.
    """

    def __init__(self, options: ServeOptions, settings: Settings) -> None:
        options.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.options = options
        self._lock = os.open(options.folder / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise FolderError(f"{options.folder}: another service uses this folder") from error
        self.database = Database(options.folder / "unmask.sqlite3")
        self.keys = Keys(self.database)
        signer = self.database.signer
        self.accounts = Accounts(self.database, self.keys)
        self.provider = None if options.oidc is None else Provider(options.oidc)
        self.webhooks = Webhooks(
            self.database,
            signer,
            UriAllow.parse(settings.webhook_allow or ""),
            options.webhook_waits_s,
        )
        self.videos = Videos(self.database, self.webhooks.enqueue, options.policy, max_waiting=options.max_waiting)
        self.list = VideoList(self.database)
        self.decisions = Decisions(self.database, self.videos, self.webhooks.enqueue, options.policy)
        self.reviews = Reviews(self.database, options.policy)
        self.quality = QualityReport(self.database)
        self.views = Views(self.database)
        self.actions = Actions(self.database)
        self.auditor = Auditor(self.database)
        self.retention = Retention(self.database, options.keep_s, self._expire)
        self.rescores = Rescores(self.database)
        self.rescored_keys: RescoredKeys | None = None
        if settings.redis:
            store = RescoredStore(connect(settings.redis), ttl_s=settings.ttl_s)
            self.rescored_keys = RescoredKeys(self.database, store)
        self._forgetting = Repeating("rescored records in Redis", _FORGET_S, self._forget_rescored)
        self.media = media_of(options.store, options.folder, options.copies_bytes, clean_up=True)
        self.hub = Hub()
        self.rates = Rates(options.requests_s)
        self.unknown_keys = Rates(options.unknown_keys_s)
        self.known = Known(self.database)
        self.drift = DriftWatch(self.database, options.drift, self.webhooks.enqueue)
        self.drift.changed = self.webhooks.wake
        self.places = places_of(settings, self.media, signer) if options.workers else None
        self.streams: Streams | None = None
        self.judge: AnyJudge
        if self.places is not None:
            workers = Workers(settings)
            self.drift.announced = workers.announced
            self.streams = Streams(workers, self.database, self.webhooks.enqueue)
            allow = UriAllow.parse(settings.uri_allow or "")
            tasks = Tasks(self.database)
            credentials, limits = CredentialsReader(settings.c2pa_trust), SourceLimits.of(settings)
            pictures = Pictures(tasks, self.videos, self.media, self.known, credentials, limits)
            self.judge = RemoteJudge(
                workers,
                tasks,
                self.videos,
                self.media,
                self.places,
                self.streams,
                self.hub,
                allow,
                pictures,
            )
        else:
            self.judge = Judge(self.videos, self.media, self.hub, self.known, options.judge, settings)
        self.judge.finished = self.webhooks.wake
        self.explainer = Explainer(self.database, self.media, self.judge if isinstance(self.judge, Judge) else None)
        self.uploads = 0
        self.resumable = Resumables(
            self.database,
            self.media,
            self.videos,
            self.judge.wake,
            max_open=options.max_resumable,
            idle_s=options.resumable_idle_s,
        )
        self.turns: dict[str, Any] = {}  # of requests that have a resumable upload to themselves
        self.resumable.held = self.turns.keys()
        self.is_ending: Callable[[], bool] = lambda: False

    @property
    def is_secure(self) -> bool:
        """Whether the page is reached by https only."""
        by_https = self.provider is not None and self.provider.options.public_url.startswith("https:")
        return self.options.secure or by_https

    def start(self) -> None:
        """Clean up what an earlier process left, and begin to judge."""
        known = self.database.read().execute("SELECT id FROM videos WHERE uri IS NULL")
        with suppress(StoreAwayError):  # it was there a moment ago; the next start does it
            self.media.remove_unknown({row["id"] for row in known}, self.resumable.ids())
        self.resumable.start()
        self.auditor.start()
        self.retention.start()
        if self.rescored_keys is not None:
            self._forgetting.start()
        if isinstance(self.judge, Judge):
            self.judge.loaded = self._loaded
        else:
            self.auditor.started(self._facts(None))
        self.judge.start()
        self.webhooks.start()
        self.drift.start()

    def stop(self) -> None:
        """End; videos under way wait for the next start."""
        self.drift.stop()
        self.resumable.stop()
        self.judge.stop()
        self.webhooks.stop()
        self.auditor.stop()
        self.retention.stop()
        self._forgetting.stop()
        self.close()

    def _facts(self, scanner: Scanner | None) -> dict[str, Any]:
        """What decides about verdicts and reviews, for the audit log."""
        policy = self.options.policy
        return {
            "software": f"unmask {version('unmask')}",
            "automatic": sorted(label.value for label in policy.automatic),
            "audit_share": policy.audit_share,
            "second_share": policy.second_share,
            "golden_share": policy.golden_share,
            "workers": scanner is None,
            "weights_sha256": [] if scanner is None else scanner.provenance.weights_sha256,
            "thresholds": None if scanner is None or scanner.thresholds is None else asdict(scanner.thresholds),
        }

    def _loaded(self, scanner: Scanner) -> None:
        """The networks are loaded."""
        self.auditor.started(self._facts(scanner))
        if isinstance(self.judge, Judge):
            self.drift.use(self.judge.weights)

    def _expire(self, id_: str) -> None:
        with suppress(ProblemError):  # it was deleted meanwhile, or its store is away: the next time
            delete_video(self, self.videos.get(id_), None)

    def _forget_rescored(self) -> None:
        if self.rescored_keys is not None:
            self.rescored_keys.forget_deleted()

    def close(self) -> None:
        """Give the folder free; for a service that was not started, too."""
        self.database.close()
        os.close(self._lock)


def delete_video(service: Service, video: Video, by: str | None) -> None:
    """Delete a video with all that is known of it, and tell those who wait for it.

    Args:
        service: that has it.
        video: it.
        by: id of the key of who deletes it; None: its time is over.

    Raises:
        ProblemError: it was deleted meanwhile, or the store of its file is away.
    """
    erase(service.videos, service.media, video.id, by, service.rescored_keys)
    service.judge.drop(video.id)
    service.hub.publish(video.id, Event("deleted", {}, is_last=True))


def service_of(request: Request) -> Service:
    """The service that answers this request."""
    found: Service = request.app.state.service
    return found


def caller_of(request: Request) -> Caller:
    """Who is asking, by key or by session.

    Raises:
        ProblemError: nobody, or a key that is wrong, or too many requests, or a request from a foreign page.
    """
    service = service_of(request)
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        text = text.strip()
        if not service.keys.knows(text):
            service.unknown_keys.check(request.client.host if request.client else "")
        caller = Caller(service.keys.check(text))
    else:
        found = service.keys.session(request.cookies.get(COOKIE, ""))
        if found is None:
            raise no_key()
        caller = found
        if request.method not in _SAFE:
            check_own_page(request, caller)
    service.rates.check(caller.key.id)
    return caller


def check_own_page(request: Request, caller: Caller, token: str | None = None) -> None:
    """Return if a request with a session was made by a page of this service.

    Args:
        request: it.
        caller: of its session.
        token: from a form; None: the header has it.

    Raises:
        ProblemError: it may come from a foreign page.
    """
    brought = token if token is not None else request.headers.get("x-csrf-token", "")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if caller.csrf is None or not hmac.compare_digest(brought.encode(), caller.csrf.encode()) or site != "same-origin":
        raise ProblemError(403, Code.FOREIGN_PAGE, "a change with a session takes the page's own X-CSRF-Token")


TheService = Annotated[Service, Depends(service_of)]
TheCaller = Annotated[Caller, Depends(caller_of)]
