import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from studies.deadline_http import open_connection

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@contextlib.contextmanager
def answering(parts: list[bytes], pause_s: float) -> Iterator[int]:
    """A server that answers one connection in parts, with a pause after each."""
    is_over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):
            client.recv(65536)
            for part in parts:
                client.sendall(part)
                if is_over.wait(pause_s):
                    return
            is_over.wait()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        is_over.set()
        thread.join()
        listener.close()


def exchange(port: int, seconds: float) -> bytes:
    connection = open_connection("127.0.0.1", port, None)
    try:
        connection.allow(seconds)
        connection.request("POST", "/", b"{}", {})
        return connection.getresponse().read()
    finally:
        connection.close()


def test_an_answer_in_time_is_read_whole() -> None:
    with answering([HEAD, b"he", b"llo"], 0.01) as port:
        assert exchange(port, 30) == b"hello"


@pytest.mark.parametrize("parts", [[bytes([byte]) for byte in HEAD + b"hello"], [HEAD[:9]], [HEAD, b"h"], []])
def test_a_server_that_drips_or_hangs_is_given_up_at_the_deadline(parts: list[bytes]) -> None:
    began = time.monotonic()
    with answering([*parts, b""], 0.1 if len(parts) > 5 else 60) as port, pytest.raises(TimeoutError):
        exchange(port, 0.5)
    assert 0.5 <= time.monotonic() - began < 30


def test_a_connection_is_kept_and_gets_a_new_deadline() -> None:
    with answering([HEAD + b"hello"], 60) as port:
        connection = open_connection("127.0.0.1", port, None)
        connection.allow(30)
        connection.request("GET", "/", None, {})
        assert connection.getresponse().read() == b"hello"
        connection.allow(0.2)
        with pytest.raises(TimeoutError):
            connection.request("GET", "/", None, {})
            connection.getresponse()
        connection.close()
