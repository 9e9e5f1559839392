"""HTTP connections of the standard library on which a whole exchange has a deadline.

A timeout of a socket counts anew with each byte, so that a server that sends one byte a second holds its client for
ever. Here each wait for the socket gets what is left of the deadline.
"""

import http.client
import io
import socket
import ssl
import time
from typing import Any, Protocol


class DeadlineConnection(Protocol):
    """What both kinds of connection have in common."""

    def request(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> None:
        """Send a request."""

    def getresponse(self) -> http.client.HTTPResponse:
        """Read the head of the answer."""

    def close(self) -> None:
        """Let the connection go."""

    def allow(self, seconds: float) -> None:
        """Set the deadline of the next exchange, opening the connection included."""


class _Deadline:
    """The time at which an exchange must be over."""

    def __init__(self) -> None:
        self.at = 0.0

    def left_s(self) -> float:
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class _Reader(io.RawIOBase):
    """The reading side of a socket, under a deadline."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock, self._deadline = sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.left_s())
        return self._sock.recv_into(buffer)


class _Socket:
    """As much of a socket as http.client uses."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock, self._deadline = sock, deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.left_s())  # of the whole call, as Python promises
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Reader(self._sock, self._deadline))

    def close(self) -> None:
        self._sock.close()


class _Plain(http.client.HTTPConnection):
    def __init__(self, host: str, port: int | None) -> None:
        super().__init__(host, port)
        self._deadline = _Deadline()

    def allow(self, seconds: float) -> None:
        self._deadline.at = time.monotonic() + seconds

    def connect(self) -> None:
        self.timeout = self._deadline.left_s()
        super().connect()
        self.sock = _Socket(self.sock, self._deadline)


class _Encrypted(http.client.HTTPSConnection):
    def __init__(self, host: str, port: int | None, trust: ssl.SSLContext) -> None:
        super().__init__(host, port, context=trust)
        self._deadline = _Deadline()

    def allow(self, seconds: float) -> None:
        self._deadline.at = time.monotonic() + seconds

    def connect(self) -> None:
        self.timeout = self._deadline.left_s()
        super().connect()
        self.sock = _Socket(self.sock, self._deadline)


def open_connection(host: str, port: int | None, trust: ssl.SSLContext | None) -> DeadlineConnection:
    """A connection that opens with its first request; `trust` is None for http."""
    return _Plain(host, port) if trust is None else _Encrypted(host, port, trust)
