"""Whether what arrives has moved away from what the weights were made on, and how they do by month."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.errors import exit_on_error, fail
from pipeline.commands.inputs import check_exist
from pipeline.commands.options import JsonTo
from pipeline.commands.output import check_written, echo, written_as_json
from web.commands.options import Folder, database_of

if TYPE_CHECKING:
    from pipeline.drift.check import Drift, Judged, MeasureDrift
    from pipeline.drift.reference import Reference
    from web.agreement import Share
    from web.database import Database
    from web.months import Month

EXIT_ALARM = 3
_DAYS = 7.0

ReferenceFile = Annotated[
    Path,
    typer.Option("--reference", help="What `unmask drift reference` wrote.", envvar="UNMASK_SERVE_DRIFT_REFERENCE"),
]
Since = Annotated[
    datetime | None,
    typer.Option(help="Videos that arrived from this day on, UTC.", formats=["%Y-%m-%d"], show_default="7 days ago"),
]
Until = Annotated[
    datetime | None,
    typer.Option(help="And before this day, UTC.", formats=["%Y-%m-%d"], show_default="now"),
]


def check(
    reference: ReferenceFile, folder: Folder = None, since: Since = None, until: Until = None, json_to: JsonTo = None
) -> None:
    """Compare what a service judged with a reference: scores, quality, widths of faces, how videos end.

    A measure alarms if its population stability index is at least 0.1 and more than chance: fewer than 1 of 1,000
    checks of unchanged videos alarm.

    Exit codes: 0 no alarm, 3 alarm, 2 bad options or too few videos.
    """
    from pipeline.drift.check import check as compare

    with exit_on_error():
        check_exist([reference])
        check_written({"--json": json_to}, [reference])
        since_s, until_s = _time(since, until)
        with _judged(folder, since_s, until_s) as (_, videos):
            known = _reference(reference)
            drift = compare(known, videos)
        if not written_as_json(json_to, _as_json(drift, since_s, until_s, len(videos))):
            _show(drift, len(videos), since_s, until_s)
    if drift.alarms:
        raise typer.Exit(EXIT_ALARM)


def sample(
    reference: ReferenceFile,
    folder: Folder = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="So many ids at most.", min=1)] = 50,
) -> None:
    """Print ids of the videos that are most typical of what has drifted, one a line; without drift, nothing.

    Exit codes: 0 done, 2 bad options or too few videos.
    """
    from pipeline.drift.check import check as compare
    from pipeline.drift.check import typical

    with exit_on_error():
        check_exist([reference])
        since_s, until_s = _time(since, until)
        with _judged(folder, since_s, until_s) as (_, videos):
            known = _reference(reference)
            drift = compare(known, videos)
        found = typical(known, drift, videos)
    if not drift.alarms:
        echo("no drift", err=True)
    for id_ in sorted(found, key=lambda each: -found[each])[:limit]:
        echo(id_)


def months(folder: Folder = None, json_to: JsonTo = None) -> None:
    """Show how verdicts did against closed reviews, by month of arrival and by weights, with intervals of 95 %.

    Exit codes: 0 done, 2 bad options.
    """
    from pipeline.weights.age import catalogue
    from web.months import months as by_month
    from web.weights import KnownWeights

    with exit_on_error():
        check_written({"--json": json_to}, [])
        with _judged(folder, 0.0, 0.0) as (database, _):
            known = KnownWeights(database)
            known.note(catalogue())
            found = by_month(database, known)
        if not written_as_json(json_to, [asdict(each) for each in found]):
            _show_months(found)


def reference_of_service(folder: Path, since: datetime | None, until: datetime | None) -> Reference:
    """The reference of what a service judged; scores are those of the weights that judged most of it.

    Raises:
        DriftError: too few videos.
    """
    from collections import Counter

    from pipeline.drift.measures import SCORE
    from pipeline.drift.reference import MOST_VIDEOS, Origin, make_reference
    from web.drift_counts import names_of_weights

    since_s, until_s = _time(since, until, days=None)
    with _judged(folder, since_s, until_s, most=MOST_VIDEOS * 4) as (database, videos):
        scored = Counter(each.weights_sha256 for each in videos if sum(each.counts.get(SCORE.name, ())))
        ((weights, _),) = scored.most_common(1) or (((), 0),)
        model = names_of_weights(database).get(",".join(weights), "")
    counts = [
        {name: row for name, row in each.counts.items() if name != SCORE.name or each.weights_sha256 == weights}
        for each in videos
    ]
    origin = Origin(kind="service", since_s=since_s, until_s=until_s)
    return make_reference(counts, origin, weights_sha256=weights, model=model, made_at=round(time.time(), 3))


def _time(since: datetime | None, until: datetime | None, *, days: float | None = _DAYS) -> tuple[float, float]:
    until_s = time.time() if until is None else until.replace(tzinfo=UTC).timestamp()
    if since is None:
        return (0.0 if days is None else until_s - days * 86_400.0), until_s
    since_s = since.replace(tzinfo=UTC).timestamp()
    if since_s >= until_s:
        fail("--since is in the future" if until is None else "--since is not before --until")
    return since_s, until_s


@contextmanager
def _judged(
    folder: Path | None, since_s: float, until_s: float, most: int | None = None
) -> Iterator[tuple[Database, list[Judged]]]:
    from contextlib import closing

    from pipeline.drift.reference import MOST_VIDEOS
    from web.drift_counts import between, refresh

    with closing(database_of(folder)) as database:
        for _ in refresh(database):
            pass
        yield database, between(database, since_s, until_s, most=most or MOST_VIDEOS)


def _reference(file: Path) -> Reference:
    from pipeline.drift.reference import read_reference

    return read_reference(file)


def _as_json(drift: Drift, since_s: float, until_s: float, videos: int) -> object:
    from web.drift_resources import CheckResource

    return CheckResource.of(drift, videos, since_s, until_s).model_dump(mode="json")


def _show(drift: Drift, videos: int, since_s: float, until_s: float) -> None:
    echo(f"{videos} videos that arrived from {_day(since_s)} to {_day(until_s)}")
    for each in drift.measures:
        echo(_line(each))
        if each.alarm:
            echo(f"  {each.said}")
            for moved in each.moved:
                echo(f"  {moved.bin}: {moved.reference:.1%} -> {moved.now:.1%}, {moved.psi:.2f} of the index")
    for name, why in drift.missing.items():
        echo(f"{name}: not compared, {why}")
    echo(f"drift: {', '.join(drift.alarms)}" if drift.alarms else "no drift")


def _line(found: MeasureDrift) -> str:
    return (
        f"{found.name}: PSI {found.psi:.3f} (without chance {found.low:.3f} to {found.high:.3f}), alarm from "
        f"{found.limit:.3f}, {found.videos} videos: {'ALARM' if found.alarm else 'no alarm'}"
    )


def _show_months(found: list[Month]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not found:
        echo("no closed reviews")
        return
    table = Table(
        "month", "weights", "age", "fakes", "reals", "AUC", "fakes: fake", "inconclusive", "real", "reals: fake"
    )
    for each in found:
        auc = each.auc
        value = "" if auc.value is None else f"{auc.value:.3f} ({auc.low:.3f}-{auc.high:.3f})"
        table.add_row(
            each.month,
            each.model or each.weights_sha256[0][:8],
            "" if each.age_s is None else f"{each.age_s / 86_400:.0f} d",
            str(each.fakes),
            str(each.reals),
            value,
            *map(_share, (each.fakes_fake, each.fakes_inconclusive, each.fakes_real, each.reals_fake)),
        )
    Console(width=160, highlight=False).print(table)


def _share(found: Share) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"{found.hits / found.of:.0%} ({found.low:.0%}-{found.high:.0%})"


def _day(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")
