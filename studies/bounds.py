"""What a request may ask of a service, checked before anything is kept: the host it names, bytes, seconds."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for."""

    max_bytes: int = 10_000_000
    """Of a body."""
    max_rows: int = 10_000
    receive_s: float = 30.0
    """Seconds in which a body must have come."""


class Bounded:
    """Refuses names of other hosts, and bodies that are too large or too slow, before they are kept."""

    def __init__(self, app: ASGIApp, limits: Limits, hosts: Sequence[str]) -> None:
        """Wrap a service.

        Args:
            app: The service.
            limits: Of a request.
            hosts: Names that it may have, an IPv6 address in brackets; "*" is any.
        """
        self._app, self._limits, self._hosts = app, limits, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400, 408 or 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "*" not in self._hosts and host_of(Headers(scope=scope).get("host", "")) not in self._hosts:
            detail = f"the service must be asked for as {' or '.join(self._hosts)}, not under a name of another host"
            await JSONResponse({"detail": detail}, 400)(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        n_bytes, deadline = 0, asyncio.get_running_loop().time() + self._limits.receive_s
        is_whole = False

        async def bounded() -> Message:
            nonlocal n_bytes, is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"a body must come within {self._limits.receive_s:g} seconds") from None
            n_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if n_bytes > self._limits.max_bytes:
                raise HTTPException(413, self._too_large())
            return message

        if declared.isdigit() and len(declared) < 20 and int(declared) > self._limits.max_bytes:
            await JSONResponse({"detail": self._too_large()}, 413, {"Connection": "close"})(scope, receive, send)
            return
        await self._app(scope, bounded, send)

    def _too_large(self) -> str:
        return f"a body must have at most {self._limits.max_bytes:,} bytes; send the rows in several requests"


def host_of(header: str) -> str:
    """The name or address in a Host header, without the port: "[::1]:8000" is "[::1]"."""
    if header.startswith("["):
        return header.partition("]")[0].lower() + "]"
    return header.partition(":")[0].lower()
