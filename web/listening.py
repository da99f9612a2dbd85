"""How the service listens: its socket, and its HTTP server."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

import uvicorn
from fastapi import FastAPI

from models.errors import UnmaskError

_BACKLOG: Final = 2048


class ListenError(UnmaskError, OSError):
    """The address cannot be listened on; the message says why."""


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the address, listening already, so that a port is taken before anything is made.

    Args:
        host: name or address.
        port: 0 picks a free one.

    Raises:
        ListenError: it is taken, not of this machine, or not allowed.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, proto)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            # Until someone listens, others could bind too.
            bound.listen(_BACKLOG)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise ListenError(f"{host} port {port} cannot be listened on: {error.strerror or error}") from error
    return bound


def check_proxies(proxies: str) -> None:
    """Return if these are addresses and networks, with commas.

    Raises:
        ListenError: one of them is not.
    """
    for proxy in filter(None, map(str.strip, proxies.split(","))):
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            what = "expected one like 10.0.0.7 or 10.0.0.0/24"
            raise ListenError(f"{proxy!r} is not the address of a proxy: {what}") from error


def http_server(app: FastAPI, proxies: str = "") -> uvicorn.Server:
    """The HTTP server.

    Args:
        app: what it serves.
        proxies: addresses, with commas, whose `X-Forwarded-For` names the client. Rates are limited by its address, so
            nobody else may choose one.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies or None,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
    )
    return uvicorn.Server(config)
