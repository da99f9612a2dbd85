"""/v1/webhooks: messages to other programs about what happened."""

from __future__ import annotations

from fastapi import APIRouter

from web.resources import DeliveryResource, ProblemResource, WebhookRequest, WebhookResource
from web.service import TheCaller, TheService

router = APIRouter(
    prefix="/v1",
    tags=["webhooks"],
    responses={"4XX": {"model": ProblemResource, "content": {"application/problem+json": {}}}},
)


@router.get("/webhooks", response_model=list[WebhookResource])
def list_webhooks(service: TheService, caller: TheCaller) -> list[WebhookResource]:
    """The webhooks of this key."""
    return [WebhookResource.of(each) for each in service.webhooks.of_key(caller.key.id)]


@router.post("/webhooks", status_code=201, response_model=WebhookResource)
def make_webhook(wanted: WebhookRequest, service: TheService, caller: TheCaller) -> WebhookResource:
    """Make a webhook: it gets the events of the videos that this key may see."""
    return WebhookResource.of(service.webhooks.create(caller.key.id, wanted.url, wanted.events))


@router.delete("/webhooks/{id}", status_code=204)
def delete_webhook(id: str, service: TheService, caller: TheCaller) -> None:
    """Delete a webhook with its messages."""
    service.webhooks.delete(id, caller.key.id)


@router.get("/webhooks/{id}/messages", response_model=list[DeliveryResource])
def list_messages(id: str, service: TheService, caller: TheCaller) -> list[DeliveryResource]:
    """The last 100 messages, the newest first; those in state dead were given up."""
    webhook = service.webhooks.get(id, caller.key.id)
    return [DeliveryResource.of(each) for each in service.webhooks.deliveries(webhook)]


@router.post("/webhooks/{id}/messages/{n}/retry", response_model=DeliveryResource)
def retry_message(id: str, n: int, service: TheService, caller: TheCaller) -> DeliveryResource:
    """Send a message again that was given up."""
    webhook = service.webhooks.get(id, caller.key.id)
    return DeliveryResource.of(service.webhooks.retry(webhook, min(n, 2**62)))
