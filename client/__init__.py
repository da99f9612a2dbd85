"""The HTTP API of `unmask serve` from Python: hand in videos, wait for verdicts, decide.

with Client("http://127.0.0.1:8400", key) as unmask:
    video = unmask.wait(unmask.submit("clip.mp4").id)
    print(video.outcome, video.label, video.probability)
"""

from client.api import Client
from client.errors import (
    AccessError,
    ApiError,
    BusyError,
    ClientError,
    LostConnectionError,
    NotFoundError,
    RefusedError,
    ServiceError,
    SignatureError,
    WaitTimeoutError,
)
from client.results import Decision, Face, Video
from client.signatures import WebhookMessage, verify_webhook

__all__ = [
    "AccessError",
    "ApiError",
    "BusyError",
    "Client",
    "ClientError",
    "Decision",
    "Face",
    "LostConnectionError",
    "NotFoundError",
    "RefusedError",
    "ServiceError",
    "SignatureError",
    "Video",
    "WaitTimeoutError",
    "WebhookMessage",
    "verify_webhook",
]
