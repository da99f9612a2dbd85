"""Where workers find an uploaded file: in a folder or store that they share, or here under a signed address."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import urlsplit

from models.errors import UnmaskError
from pipeline.settings import Settings
from pipeline.sources import SourceError, check_uri
from web.media import Media, relative
from web.signing import Signer
from web.store_uri import StoreUri
from web.tasks import TASK_S

# Before the path in what is signed, so that no signature of a message to a webhook is one of an address.
_PURPOSE: Final = "unmask media"
ROUTE: Final = "/v1/tasks/{id}/media"


class PlaceError(UnmaskError, ValueError):
    """`UNMASK_SERVE_URL` or `UNMASK_SERVE_MEDIA` is invalid."""


class MediaPlaces(Protocol):
    """Where workers find files."""

    def uri(self, id_: str) -> str:
        """Path or URI of a video's file, for one task."""


class SharedFolder:
    """Workers read files where they are kept: a folder, under the same path or another one, or a store.

    Args:
        base: path or URI below which workers see them.
    """

    def __init__(self, base: str) -> None:
        self._base = base.rstrip("/")

    def uri(self, id_: str) -> str:
        """Path or URI of a video's file, as workers see it."""
        return f"{self._base}/{relative(id_)}"


class SignedAddresses:
    """Workers fetch files from this service; each address opens one file, for a while.

    Args:
        base: address of this service, without a slash at its end.
        signer: signs addresses.
        clock: Unix seconds.
    """

    def __init__(self, base: str, signer: Signer, clock: Callable[[], float] = time.time) -> None:
        self._base = base
        self._signer = signer
        self._clock = clock

    def uri(self, id_: str) -> str:
        """Address of a video's file, for as long as Kafka keeps a task."""
        until = int(self._clock() + TASK_S)
        signature = base64.urlsafe_b64encode(self._signer.sign(_signed(id_, until))).decode().rstrip("=")
        return f"{self._base}{ROUTE.format(id=id_)}?until={until}&signature={signature}"

    def is_valid(self, id_: str, until: int, signature: str) -> bool:
        """Whether an address was made by `uri` and has not expired."""
        try:
            raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        except ValueError:
            return False
        return self._clock() <= until and self._signer.has_signed(_signed(id_, until), raw)


def places_of(settings: Settings, media: Media, signer: Signer) -> MediaPlaces:
    """What the settings say: a shared folder if one is named, else this service if its address is, else their place.

    Raises:
        PlaceError: a setting is invalid, or is needed.
    """
    if settings.serve_media is not None:
        if "://" in media.base:
            raise PlaceError("UNMASK_SERVE_MEDIA names a folder, and uploads are in a store: unset it")
        path = settings.serve_media.removeprefix("file://")
        if not path.startswith("/"):
            raise PlaceError(
                f"UNMASK_SERVE_MEDIA: {settings.serve_media!r} is not an absolute path: name the media folder as "
                "workers see it, such as /srv/unmask/media"
            )
        return SharedFolder(path)
    if settings.serve_url is not None:
        parts = urlsplit(settings.serve_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise PlaceError(
                f"UNMASK_SERVE_URL: {settings.serve_url!r} is not an address such as https://unmask.example.org"
            )
        return SignedAddresses(settings.serve_url.rstrip("/"), signer)
    if "://" in media.base:
        _check_store(media.base)
    return SharedFolder(media.base)


def _check_store(base: str) -> None:
    """Return if workers may get URIs of this store.

    Raises:
        PlaceError: they may not; the message does not show the URI.
    """
    if StoreUri(base).has_secret:
        raise PlaceError("the store's URI has a password, which tasks must not show: set UNMASK_SERVE_URL")
    try:
        check_uri(base, chains=False)
    except SourceError as error:
        raise PlaceError(f"workers cannot read from the store ({error}): set UNMASK_SERVE_URL") from error


def _signed(id_: str, until: int) -> bytes:
    return f"{_PURPOSE} {id_} {until}".encode()
