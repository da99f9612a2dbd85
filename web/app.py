"""The application: routes, errors, headers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

import structlog
from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from pipeline import tracing
from web.head import Heads
from web.headers import HEADERS, Headers, SmallBodies
from web.pages.drift import router as drift_page
from web.pages.oidc import router as sign_in
from web.pages.quality import router as quality_page
from web.pages.rendering import problem_page
from web.pages.routes import router as pages
from web.pages.routes import static_files
from web.pages.streams import router as stream_page
from web.problems import MEDIA_TYPE, Code, ProblemError, answer_without_space, handle_problems
from web.routes.audit import router as audit
from web.routes.credentials import router as credentials
from web.routes.drift import router as drift
from web.routes.explanations import router as explanations
from web.routes.keys import router as keys
from web.routes.rescores import router as rescores
from web.routes.review import router as review
from web.routes.similar import router as similar
from web.routes.streams import for_workers
from web.routes.streams import router as streams
from web.routes.uploads import router as uploads
from web.routes.videos import router as videos
from web.routes.webhooks import router as webhooks
from web.service import Service
from web.traces import Traces

log = structlog.get_logger(__name__)

_DESCRIPTION: Final = (
    "Hand in videos, and get calibrated, typed verdicts. Every request takes a key: "
    "`Authorization: Bearer unmask_...`. Errors are problem details (RFC 9457)."
)


def create_app(service: Service) -> FastAPI:
    """The application of a service, which it starts and stops."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        # An upload may wait for a store in its thread; other requests go on.
        current_default_thread_limiter().total_tokens += service.options.max_uploads
        await run_in_threadpool(service.start)
        yield
        await run_in_threadpool(service.stop)

    app = FastAPI(
        title="Unmask",
        version=version("unmask"),
        description=_DESCRIPTION,
        lifespan=running,
        docs_url=None,
        redoc_url=None,
        # A path with a slash too many does not exist; the redirect would be no documented answer.
        redirect_slashes=False,
        openapi_url="/v1/openapi.json",
        dependencies=[Depends(answer_without_space)],
    )
    app.state.service = service
    handle_problems(app, HEADERS, problem_page)
    app.include_router(videos)
    app.include_router(uploads)
    app.include_router(credentials)
    app.include_router(explanations)
    app.include_router(similar)
    app.include_router(rescores)
    app.include_router(keys)
    app.include_router(review)
    app.include_router(webhooks)
    app.include_router(audit)
    app.include_router(drift)
    app.include_router(streams)
    app.include_router(for_workers)
    app.include_router(pages, include_in_schema=False)
    app.include_router(quality_page, include_in_schema=False)
    app.include_router(drift_page, include_in_schema=False)
    app.include_router(stream_page, include_in_schema=False)
    app.include_router(sign_in, include_in_schema=False)
    app.mount("/static", static_files())

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get("/.well-known/unmask.json", include_in_schema=False)
    async def well_known() -> JSONResponse:
        return JSONResponse({"webhook_public_key": service.webhooks.signer.public})

    @app.get("/readyz", include_in_schema=False)
    async def readyz(request: Request) -> JSONResponse:
        judge = service.judge
        if judge.error is not None:
            raise ProblemError(503, Code.INTERNAL, f"no video can be judged: {judge.error}")
        if judge.trouble is not None:
            raise ProblemError(503, Code.INTERNAL, f"judging is held up: {judge.trouble}")
        if not judge.is_ready:
            detail = "the networks are being loaded" if service.streams is None else "Kafka and Redis are connected to"
            raise ProblemError(503, Code.STARTING, detail, {"Retry-After": "1"})
        return JSONResponse({"status": "ready"})

    app.add_middleware(SmallBodies)
    app.add_middleware(Heads)
    app.add_middleware(Headers)
    if tracing.is_on():
        app.add_middleware(Traces)
    _documented(app)
    return app


def _documented(app: FastAPI) -> None:
    """Say in the OpenAPI document that requests take a key, and that errors are problems only."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = build()
            document.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
            for operation in (each for methods in document["paths"].values() for each in methods.values()):
                for status, answer in operation["responses"].items():
                    if status.startswith("4"):
                        answer["content"] = {MEDIA_TYPE: answer["content"]["application/json"]}
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
