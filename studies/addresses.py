"""Addresses of tracking servers, and what may be shown of them: never a password, not even in an error.

A part of a password may stand in any part of an address that is written wrongly, so that errors repeat nothing of it.
"""

import ipaddress
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from studies.errors import UserError


@dataclass(frozen=True, slots=True)
class Address:
    """Where a tracking server listens, and who asks."""

    scheme: str
    host: str
    port: int | None
    prefix: str
    """Path before "/api", without a slash at its end."""
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    token: str | None = field(repr=False)

    @property
    def shown(self) -> str:
        """The address without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (f":{self.port}" if self.port else "") + self.prefix

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine, as far as the name of its host says."""
        with suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host.lower() == "localhost"

    @property
    def credentials(self) -> Mapping[str, str]:
        """The environment variables by which MLflow's own client logs in."""
        given = {
            "MLFLOW_TRACKING_USERNAME": self.user,
            "MLFLOW_TRACKING_PASSWORD": self.password,
            "MLFLOW_TRACKING_TOKEN": self.token,
        }
        return {name: text for name, text in given.items() if text}


def tracking_address(uri: str) -> Address:
    """Take the address of a tracking server apart; what it lacks of credentials comes from the environment.

    Raises:
        UserError: It is no http(s) address, or that of a server that listens on all interfaces and asks nobody for a
            password: whoever reaches the machine could read and change its runs.
    """
    try:
        parts = urlsplit(uri)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme not in ("http", "https") or not host or "?" in uri or "#" in uri:
        raise UserError(
            "the address of the tracking server (MLFLOW_TRACKING_URI) must begin with http:// or https:// and name a "
            "host, and a port up to 65535 if any; in a password, characters like / ? # @ are written as %2F and so on"
        )
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    address = Address(
        scheme,
        host,
        port,
        parts.path.rstrip("/"),
        user or os.environ.get("MLFLOW_TRACKING_USERNAME"),
        password or os.environ.get("MLFLOW_TRACKING_PASSWORD"),
        os.environ.get("MLFLOW_TRACKING_TOKEN"),
    )
    if _is_all_interfaces(host) and not address.credentials:
        raise UserError(
            f"the tracking server at {address.shown} must not listen on all interfaces without asking for a password; "
            "start it with --host 127.0.0.1, or with authentication, and set MLFLOW_TRACKING_USERNAME and _PASSWORD"
        )
    return address


def _is_all_interfaces(host: str) -> bool:
    """Whether a host means every address of its machine, however that is written: 0.0.0.0, 0, 0x0, ::, ::ffff:0:0."""
    with suppress(OSError, ValueError):
        return not any(socket.inet_aton(host))
    with suppress(ValueError):
        found = ipaddress.IPv6Address(host.partition("%")[0])
        return found.is_unspecified or (found.ipv4_mapped is not None and found.ipv4_mapped.is_unspecified)
    return False
