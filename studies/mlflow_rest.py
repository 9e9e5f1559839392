"""The few calls of MLflow's REST API that the mirror makes, over one kept connection of the standard library.

Why not MlflowClient: importing it holds the interpreter's lock for 2.2 s, in which a training thread gets 7 % of
its speed, and each trial then costs 17 ms of it instead of 3 ms. It also repeats POSTs whose replies were lost,
and one `create_run` so becomes several runs. A contract test shows that the rows are those that it would write.

Nothing is repeated here, and no proxy of the environment is used: the caller knows what may be repeated.
Source: https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

import base64
import contextlib
import http.client
import json
import os
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from studies.errors import TrackingError

TIMEOUT_S = 10.0
"""Per call."""
IDLE_S = 2.0
"""An older connection is opened anew: uvicorn drops idle ones after 5 s, and a drop looks like a lost reply."""
PAGE = 1000
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that say nothing about the request itself."""

Json = dict[str, Any]


MAX_REPLY_BYTES = 64 * 2**20
"""Of one answer; a page of 1,000 runs has a few."""


class Unreachable(TrackingError):
    """No reply, or none that means anything: the request may have been carried out, or not."""


class Refused(TrackingError):
    """The server understood the request and declined it."""

    def __init__(self, code: str, message: str) -> None:
        """Keep MLflow's error code, such as RESOURCE_ALREADY_EXISTS."""
        super().__init__(f"{code}: {message}")
        self.code = code


class Rest:
    """A connection to one tracking server; for one thread."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S) -> None:
        """Take the address apart; nothing is sent yet."""
        url = urlsplit(address)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise TrackingError(
                f"the tracking address must begin with http:// or https:// and name a host; got {url.scheme!r}"
                " (set MLFLOW_TRACKING_URI to the address of a tracking server, or leave it out)"
            )
        self._host, self._prefix = url.hostname, url.path.rstrip("/")
        self.where = f"{url.scheme}://{url.hostname}" + (f":{url.port}" if url.port else "") + self._prefix
        """The address without user and password, for people."""
        self._headers = {"Content-Type": "application/json"} | _authorization(url.username, url.password)
        self._connection: http.client.HTTPConnection
        if url.scheme == "https":
            trust = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
            self._connection = http.client.HTTPSConnection(self._host, url.port, timeout=timeout_s, context=trust)
        else:
            self._connection = http.client.HTTPConnection(self._host, url.port, timeout=timeout_s)
        self._used_at = 0.0

    def call(self, method: str, path: str, body: Json | None = None, *, version: str = "2.0/mlflow") -> Json:
        """Send one request of the API and return its reply.

        Raises:
            Unreachable: it may have been carried out, or not.
            Refused: it was not carried out.
        """
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        reply = self._send(method, f"/api/{version}/{path}", data)
        try:
            parsed = json.loads(reply) if reply else {}
        except ValueError:
            raise Unreachable(f"{self.where} answers, but not as an MLflow server does") from None
        return parsed if isinstance(parsed, dict) else {}

    def search_runs(self, experiment_id: str, where: str = "") -> Iterator[Json]:
        """Yield every run of the experiment, deleted ones too, a page at a time."""
        token = ""
        while True:
            body = {"experiment_ids": [experiment_id], "run_view_type": "ALL", "max_results": PAGE}
            reply = self.call("POST", "runs/search", body | {"filter": where, "page_token": token})
            yield from reply.get("runs", [])
            token = reply.get("next_page_token", "")
            if not token:
                return

    def put_artifact(self, artifact_uri: str, name: str, content: bytes) -> bool:
        """Upload one small file through the server; False where the artifacts do not pass through it."""
        url = urlsplit(artifact_uri)
        if url.scheme != "mlflow-artifacts":
            return False
        path = quote(f"{url.path.strip('/')}/{name}")
        self._send("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", content)
        return True

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()

    def _send(self, method: str, path: str, data: bytes | None) -> bytes:
        if time.monotonic() - self._used_at > IDLE_S:
            self._connection.close()
        try:
            self._connection.request(method, self._prefix + path, data, self._headers)
            response = self._connection.getresponse()
            reply = response.read(MAX_REPLY_BYTES + 1)
            if len(reply) > MAX_REPLY_BYTES:
                raise http.client.HTTPException(f"its answer is longer than {MAX_REPLY_BYTES:,} bytes")
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unreachable(f"{self.where} does not answer: {error or type(error).__name__}") from error
        self._used_at = time.monotonic()
        if response.status in PASSING:
            raise Unreachable(f"{self.where} answers {response.status} {response.reason}")
        if response.status != 200:
            raise _refusal(response.status, response.reason, reply)
        return reply


def pairs(values: Mapping[str, str]) -> list[Json]:
    """Tags or params as the API takes them."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _refusal(status: int, reason: str, reply: bytes) -> Refused:
    with contextlib.suppress(ValueError, AttributeError):
        error = json.loads(reply)
        return Refused(str(error.get("error_code", status)), str(error.get("message", reason))[:500])
    return Refused(str(status), reason)


def _authorization(user: str | None, password: str | None) -> dict[str, str]:
    """The header for the credentials that MLflow's own client would take from the environment."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user = user or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = password or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if not user:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password or ''}".encode()).decode()}
