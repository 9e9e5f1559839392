"""Names of hosts; bodies are bounded in `test_serving.py`, where a service runs."""

import pytest

from studies.bounds import host_of


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("127.0.0.1:8000", "127.0.0.1"),
        ("LocalHost", "localhost"),
        ("[::1]:8000", "[::1]"),
        ("[::1]", "[::1]"),
        ("", ""),
        ("::1", ""),
        ("[", "[]"),
    ],
)
def test_a_host_is_told_without_its_port(header: str, host: str) -> None:
    assert host_of(header) == host
