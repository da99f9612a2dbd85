"""Erase all that is kept of videos."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.errors import exit_on_error, fail
from pipeline.commands.output import echo
from pipeline.visible import visible
from web.commands.options import DATABASE, Folder, Store, database_of, folder_of

if TYPE_CHECKING:
    from pipeline.results.rescored import RescoredStore
    from pipeline.results.store import VerdictStore
    from pipeline.transport.kafka import Publisher

EXIT_UNKNOWN = 3


def run(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of videos.")],
    folder: Folder = None,
    store: Store = None,
) -> None:
    """Erase videos: file, verdict, pictures, prints, decisions and messages of the service, and what workers keep.

    What workers keep is in Redis and Kafka: it is erased if UNMASK_KAFKA and UNMASK_REDIS are set. UNMASK_REDIS alone
    is enough where only `unmask rescore` wrote to it. The audit log keeps ids and hashes. DELETE of the API does the
    same.

    Exit codes: 0 erased, 3 some are known nowhere, 1 the store, Kafka or Redis is away, 2 bad options.
    """
    from pipeline.commands.services import reaching
    from pipeline.purge import purge

    unknown = []
    with exit_on_error(), reaching(), _elsewhere() as elsewhere:
        for id_ in ids:
            if elsewhere is not None and elsewhere.publisher is None and elsewhere.verdicts.state(id_) is not None:
                fail(f"{visible(id_)}: workers have judged it, so UNMASK_KAFKA is needed as well as UNMASK_REDIS")
            was_known = _erase(folder_of(folder), store, id_, elsewhere)
            if elsewhere is not None and elsewhere.publisher is not None:
                was_known |= purge(id_, elsewhere.verdicts, elsewhere.publisher)
            elif elsewhere is not None:
                elsewhere.rescored.delete(id_)
            if not was_known:
                unknown.append(id_)
    for id_ in unknown:
        echo(f"{visible(id_)}: known nowhere", err=True)
    echo(f"{len(ids) - len(unknown)} erased")
    if unknown:
        raise typer.Exit(EXIT_UNKNOWN)


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """What is kept outside the service's folder; without a publisher, rescored records only."""

    verdicts: VerdictStore
    rescored: RescoredStore
    publisher: Publisher | None


def _erase(folder: Path, store: str | None, id_: str, elsewhere: _Elsewhere | None) -> bool:
    """Erase a video of the service; whether it knew it."""
    from web.media import StoreAwayError
    from web.media_store import media_of
    from web.problems import ProblemError
    from web.rescore_keys import RescoredKeys
    from web.retention import erase
    from web.videos import Videos

    if not (folder / DATABASE).is_file():
        return False
    with closing(database_of(folder)) as database:
        videos = Videos(database, lambda rows, owner, event, data: None)
        keys = None if elsewhere is None else RescoredKeys(database, elsewhere.rescored)
        try:
            videos.get(id_)
            erase(videos, media_of(store, folder, 1 << 30), id_, None, keys)
        except StoreAwayError as error:
            fail(f"the store of uploaded files is away: {error}", code=1)
        except ProblemError:  # nobody handed it in, or it was deleted meanwhile
            return False
    return True


@contextmanager
def _elsewhere() -> Iterator[_Elsewhere | None]:
    """Redis, and Kafka where workers judge; None: neither is set."""
    from pipeline.settings import Settings

    settings = Settings()
    if not settings.redis:
        if settings.kafka:
            fail("UNMASK_KAFKA and UNMASK_REDIS go together: workers take from one and write to the other")
        yield None
        return

    from pipeline.results.rescored import RescoredStore
    from pipeline.results.store import VerdictStore, connect
    from pipeline.transport.kafka import Publisher

    with ExitStack() as stack:
        client = stack.enter_context(connect(settings.redis))
        publisher = stack.enter_context(Publisher(settings.kafka)) if settings.kafka else None
        rescored = RescoredStore(client, ttl_s=settings.ttl_s)
        yield _Elsewhere(VerdictStore(client, ttl_s=settings.ttl_s), rescored, publisher)
