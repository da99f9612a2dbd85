"""What `unmask rescore` shows on a terminal: the diff of a run, and the runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from pipeline.contracts import Label
from pipeline.visible import markup, visible
from web.rescore_diff import Diff, log_odds_change, moment, words
from web.rescore_notices import Notices
from web.rescores import Judged, LeftOut, Rescored, Run

# Rows of a table; --json has all.
MAX_ROWS = 40
_STYLES = {Label.FAKE.value: "bold red", Label.REAL.value: "green", Label.INCONCLUSIVE.value: "yellow"}


def diff_shown(diff: Diff) -> Iterator[Table | Text]:
    """The videos, the changed ones first; the matrix; what people decided; what is not in it."""
    run = diff.run
    if diff.videos:
        yield _videos(diff.videos)
        if len(diff.videos) > MAX_ROWS:
            yield Text(f"... and {len(diff.videos) - MAX_ROWS} videos more")
        yield _matrix(diff)
    yield from _agreement(diff)
    yield from _sentences(diff)
    ended = "not ended: the same command goes on" if run.ended_s is None else f"ended {moment(run.ended_s)}"
    notices = "" if run.notified_s is None else f", notices sent {moment(run.notified_s)}"
    yield Text(f"run {run.name}, weights {visible(run.weights)}: {ended}{notices}")


def runs_shown(runs: Sequence[Run]) -> Table:
    """The runs, a row each."""
    table = Table("run", "weights", "sha256", "begun", "ended", "notices", header_style="bold")
    for run in runs:
        sha256 = ", ".join(each[:12] for each in run.sha256)
        ended, notified = moment(run.ended_s) or "-", moment(run.notified_s) or "-"
        table.add_row(markup(run.name), markup(run.weights), sha256, moment(run.begun_s), ended, notified)
    return table


def notices_shown(notices: Notices) -> Iterator[Table | Text]:
    """What would be sent."""
    if notices.videos:
        yield _videos(notices.videos)
    if len(notices.videos) > MAX_ROWS:
        yield Text(f"... and {len(notices.videos) - MAX_ROWS} videos more")
    yield Text(f"{notices.messages} messages about {len(notices.videos)} videos with another label")
    if notices.without:
        yield Text(f"{notices.without} of them have no webhook for video.rescored")
    if notices.replaced:
        yield Text(f"{notices.replaced} more were judged again since: no notice is sent")
    if notices.sent:
        yield Text(f"{notices.sent} more have theirs already")


def _videos(videos: Sequence[Rescored]) -> Table:
    table = Table("id", header_style="bold")
    table.add_column("name", overflow="fold")
    for column in ("before", "P(fake)", "weights", "now", "P(fake)", "log-odds"):
        table.add_column(column, justify="right" if column in ("P(fake)", "log-odds") else "left")
    for video in videos[:MAX_ROWS]:
        before, after = video.before, video.after
        change = log_odds_change(before, after)
        table.add_row(
            video.video,
            markup(video.name) + (" (judged again since)" if video.is_replaced else ""),
            *(_word(before), _probability(before), markup(before.weights)),
            *(_word(after), _probability(after), "-" if change is None else f"{change:+.2f}"),
        )
    return table


def _word(judged: Judged) -> Text:
    return Text(judged.word, style=_STYLES.get(judged.word, "magenta"))


def _probability(judged: Judged) -> str:
    return "-" if judged.probability is None else f"{judged.probability:.3f}"


def _matrix(diff: Diff) -> Table:
    columns = words(after for _, after in diff.matrix)
    table = Table("before", *(f"now {word}" for word in columns), header_style="bold")
    for before in words(before for before, _ in diff.matrix):
        table.add_row(before, *(str(diff.matrix.get((before, after), 0)) for after in columns))
    return table


def _agreement(diff: Diff) -> Iterator[Text]:
    for choice, (before, after) in diff.agreement.items():
        listed = "; ".join(
            f"{name} " + ", ".join(f"{counts[word]} {word}" for word in words(counts))
            for name, counts in (("before", before), ("now", after))
        )
        yield Text(f"decided {choice.value} by people ({before.total()}): {listed}")


def _sentences(diff: Diff) -> Iterator[Text]:
    changed = len(diff.changed)
    yield Text(f"{len(diff.videos)} rescored, {changed} with another label, {len(diff.videos) - changed} unchanged")
    compared, equal, first = diff.replayed
    if compared:
        yield Text(f"{equal} of {compared} records of the same weights are equal")
        if first is not None:
            yield Text(f"first difference: {visible(first)}")
    if diff.replaced:
        yield Text(f"{diff.replaced} were judged again since: what is compared is their verdict before that")
    for reason, count in diff.left_out.items():
        yield Text(f"{count} {LeftOut(reason).text}")
    if diff.deleted:
        yield Text(f"{diff.deleted} were deleted, or their time was over")
    if diff.todo:
        yield Text(f"{diff.todo} have still to be judged")
