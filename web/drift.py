"""Looks now and then whether what arrives has moved away from a reference, how old the weights are, how they do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from redis import RedisError

from pipeline.drift.check import check, novelty, typical
from pipeline.drift.reference import DriftError, Reference
from pipeline.telemetry import WeightsAge
from pipeline.weights.age import MadeWeights, catalogue
from pipeline.weights.announced import AnnouncementError
from web.database import Database
from web.drift_counts import between, keep_ranks, names_of_weights, refresh
from web.drift_resources import CheckResource, DriftResource
from web.months import Month, months
from web.repeating import Repeating
from web.webhooks import Notify, WebhookEvent
from web.weights import KnownWeights

log = structlog.get_logger(__name__)

DAYS: Final = 7.0
DAY_S: Final = 86_400.0
EVERY_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class DriftOptions:
    """What is compared with what.

    Attributes:
        reference: None: nothing; the age of the weights and the months are known nevertheless.
        days: that are compared, up to now.

    Raises:
        ValueError: no days.
    """

    reference: Reference | None = None
    days: float = DAYS

    def __post_init__(self) -> None:
        if not 0 < self.days < float("inf"):
            raise ValueError(f"drift is seen over more than 0 days, got {self.days:g}")


class DriftWatch:
    """A thread that looks once an hour. Safe to share between threads.

    Args:
        database: of the service.
        options: what is compared.
        notify: stores a message to webhooks, in the transaction of a change.

    Attributes:
        announced: the weights that workers were announced, the active ones first; None: this process judges.
        changed: called after other measures alarm than before.
    """

    def __init__(
        self,
        database: Database,
        options: DriftOptions,
        notify: Notify,
    ) -> None:
        self._database, self._options, self._notify = database, options, notify
        self.announced: Callable[[], Sequence[MadeWeights]] | None = None
        self.changed: Callable[[], None] = lambda: None
        self._known = KnownWeights(database)
        self._in_use: tuple[MadeWeights, ...] = ()
        self._months: tuple[Month, ...] = ()
        self._why_not: str | None = None
        self._looks = Repeating("drift", EVERY_S, lambda: self.look(time.time()))
        self._looking = threading.Lock()
        reference = options.reference
        self._reference_id = None if reference is None else f"{reference.made_at}"
        self._age = WeightsAge()
        self._registry = CollectorRegistry()
        self._registry.register(self._age)
        self._registry.register(_Collector(self.last))

    def start(self) -> None:
        """Begin."""
        self._looks.start()

    def stop(self) -> None:
        """End."""
        self._looks.stop()

    def use(self, weights: Sequence[MadeWeights]) -> None:
        """These weights judge from now on."""
        self._known.note(weights)
        self._in_use = tuple(self._known.of([each.sha256 for each in weights]))
        made_s = self._known.made_s([each.sha256 for each in self._in_use])
        name = "+".join(each.name for each in self._in_use)
        self._age.set(name, ",".join(each.sha256 for each in self._in_use), made_s)

    def look(self, now_s: float) -> None:
        """Count what was judged since the last time, and compare the last days up to now (Unix seconds)."""
        with self._looking:
            for _ in refresh(self._database):
                if self._looks.is_stopping:
                    return
            self._known.note(catalogue())
            if self.announced is not None:
                self._follow(self.announced)
            self._months = tuple(months(self._database, self._known))
            if self._options.reference is None:
                keep_ranks(self._database, {}, {})
            else:
                self._compare(self._options.reference, now_s)

    def last(self) -> CheckResource | None:
        """The last check against this reference; None: there was none with enough videos."""
        row = self._database.read().execute("SELECT * FROM drift_result").fetchone()
        if row is None or row["reference"] != self._reference_id or self._reference_id is None:
            return None
        return CheckResource.model_validate_json(row["data"])

    def report(self) -> DriftResource:
        """All that is known."""
        in_use = self._in_use
        age_s = [None if each.made_s is None else time.time() - each.made_s for each in in_use]
        known = [each for each in age_s if each is not None]
        return DriftResource.of(
            in_use,
            max(0.0, *known) if known and len(known) == len(age_s) else None,
            self._options.reference,
            self.last(),
            self._why_not,
            self._months,
        )

    def metrics(self) -> bytes:
        """The age of the weights and the last check, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _follow(self, announced: Callable[[], Sequence[MadeWeights]]) -> None:
        """Workers use what judged last, or what they were announced; those with weights of their own follow nothing."""
        found: Sequence[MadeWeights] = ()
        try:
            found = announced()
        except (RedisError, AnnouncementError) as error:
            log.warning("the announced weights are not known", error=str(error))
        self._known.note(found)
        query = "SELECT weights FROM drift_counts WHERE weights != '' ORDER BY judged_s DESC LIMIT 1"
        if (row := self._database.read().execute(query).fetchone()) is not None:
            name = names_of_weights(self._database).get(row["weights"], "")
            members = self._known.of(row["weights"].split(","))
            self.use([each if each.name else replace(each, name=name) for each in members])
        elif found:
            self.use(found[:1])

    def _compare(self, reference: Reference, now_s: float) -> None:
        since_s = now_s - self._options.days * DAY_S
        videos = between(self._database, since_s, now_s)
        try:
            drift = check(reference, videos)
        except DriftError as error:
            # The last result stays, with its time: a quiet week takes no alarm back.
            self._why_not = str(error)
            return
        self._why_not = None
        keep_ranks(self._database, novelty(reference, videos), typical(reference, drift, videos))
        found = CheckResource.of(drift, len(videos), since_s, now_s)
        if self._keep(found):
            log.warning("drift has changed", alarms=found.alarms, videos=found.videos)
            self.changed()

    def _keep(self, found: CheckResource) -> bool:
        """Store a result, and messages if it alarms otherwise than the one before; whether it does."""
        alarms = json.dumps(sorted(found.alarms))
        with self._database.write() as rows:
            row = rows.execute("SELECT reference, alarms FROM drift_result").fetchone()
            before = "[]" if row is None or row["reference"] != self._reference_id else row["alarms"]
            rows.execute(
                "INSERT OR REPLACE INTO drift_result (n, reference, alarms, data) VALUES (1, ?, ?, ?)",
                (self._reference_id, alarms, found.model_dump_json()),
            )
            if alarms == before:
                return False
            said = {each.name: each.said for each in found.measures if each.alarm}
            data = {"alarms": found.alarms, "before": json.loads(before), "said": said, "videos": found.videos}
            self._notify(rows, "", WebhookEvent.DRIFT, data)
        return True


class _Collector:
    def __init__(self, last: Callable[[], CheckResource | None]) -> None:
        self._last = last

    def collect(self) -> Iterator[Metric]:
        # Without a check, the metrics have no values.
        checked = self._last()
        families = [
            GaugeMetricFamily(f"unmask_drift_{name}", text, labels=["measure"])
            for name, text in (
                ("psi", "Population stability index of the last days against the reference."),
                ("limit", "From this index on, a measure alarms."),
                ("alarm", "Whether a measure has drifted: 1 or 0."),
                ("videos", "Videos of the last days that have the measure."),
            )
        ]
        for each in [] if checked is None else checked.measures:
            values = (each.psi, each.limit, float(each.alarm), each.videos)
            for family, value in zip(families, values, strict=True):
                family.add_metric([each.name], value)
        yield from families
        time_of = GaugeMetricFamily("unmask_drift_checked_timestamp_seconds", "When that was, Unix seconds.")
        if checked is not None:
            time_of.add_metric([], checked.checked_at.timestamp())
        yield time_of
