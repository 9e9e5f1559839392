"""Requests to a tracking server over one kept connection, and what its answers mean.

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
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from studies.addresses import Address
from studies.deadline_http import open_connection
from studies.tracking_store import Refused, Unreachable

TIMEOUT_S = 15.0
"""Of a whole call, to the last byte of its answer."""
IDLE_S = 2.0
"""An older connection is opened anew: uvicorn drops idle ones after 5 s, and a drop looks like a lost reply."""
PAGE = 1000
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that say nothing about the request itself."""
MAX_REPLY_BYTES = 64 * 2**20
"""Of one answer; a page of 1,000 runs has a few."""

Json = dict[str, Any]


class Rest:
    """A connection to one tracking server; for one thread."""

    def __init__(self, address: Address, timeout_s: float = TIMEOUT_S) -> None:
        """Nothing is sent yet."""
        self.where, self._prefix, self._timeout_s = address.shown, address.prefix, timeout_s
        self._headers = {"Content-Type": "application/json"} | _authorization(address)
        trust = None
        if address.scheme == "https":
            trust = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
        self._connection = open_connection(address.host, address.port, trust)
        self._used_at = 0.0

    def call(self, method: str, path: str, body: Json | None = None, *, version: str = "2.0/mlflow") -> Json:
        """Send one request of the API and return its reply.

        Raises:
            Unreachable: it may have been carried out, or not.
            Refused: it was not carried out.
        """
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        return self._parsed(self._send(method, f"/api/{version}/{path}", data))

    def ask(self, path: str, body: Json) -> None:
        """Send a request, and leave its reply to `reply`: meanwhile others may be asked."""
        self._ask("POST", f"/api/2.0/mlflow/{path}", json.dumps(body, allow_nan=False).encode())

    def reply(self) -> Json:
        """The reply to what was asked; raises what `call` does."""
        return self._parsed(self._answer())

    def histories(self, run_ids: Sequence[str], key: str) -> list[Json]:
        """All points of one metric of at most 100 runs, of which no more than `HISTORY` are returned."""
        query = urlencode([*(("run_id", run_id) for run_id in run_ids), ("metric_key", key)])
        # MLflow's own pages ask it; the public call takes one run and one key.
        reply = self._send("GET", f"/ajax-api/2.0/mlflow/metrics/get-history-bulk?{query}", None)
        found: list[Json] = self._parsed(reply).get("metrics", [])
        return found

    def search_runs(self, experiment_id: str, where: str = "") -> Iterator[Json]:
        """Yield every run of the experiment, deleted ones too, a page at a time."""
        token = ""
        while True:
            reply = self.call("POST", "runs/search", search(experiment_id, where) | {"page_token": token})
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

    def _parsed(self, reply: bytes) -> Json:
        try:
            parsed = json.loads(reply) if reply else {}
        except ValueError:
            raise Unreachable(f"{self.where} answers, but not as an MLflow server does") from None
        return parsed if isinstance(parsed, dict) else {}

    def _send(self, method: str, path: str, data: bytes | None) -> bytes:
        self._ask(method, path, data)
        return self._answer()

    def _ask(self, method: str, path: str, data: bytes | None) -> None:
        if time.monotonic() - self._used_at > IDLE_S:
            self._connection.close()
        self._connection.allow(self._timeout_s)
        try:
            self._connection.request(method, self._prefix + path, data, self._headers)
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(error) from error

    def _answer(self) -> bytes:
        try:
            response = self._connection.getresponse()
            reply = response.read(MAX_REPLY_BYTES + 1)
            if len(reply) > MAX_REPLY_BYTES:
                raise http.client.HTTPException(f"its answer is longer than {MAX_REPLY_BYTES:,} bytes")
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(error) from error
        self._used_at = time.monotonic()
        if response.status in PASSING:
            raise Unreachable(f"{self.where} answers {response.status} {response.reason}")
        if response.status != 200:
            raise _refusal(response.status, response.reason, reply)
        return reply

    def _silent(self, error: Exception) -> Unreachable:
        self._connection.close()
        return Unreachable(f"{self.where} does not answer: {error or type(error).__name__}")


def search(experiment_id: str, where: str) -> Json:
    """The body of a search for runs, deleted ones too: its first page."""
    return {"experiment_ids": [experiment_id], "run_view_type": "ALL", "max_results": PAGE, "filter": where}


def _refusal(status: int, reason: str, reply: bytes) -> Refused:
    with contextlib.suppress(ValueError, AttributeError):
        error = json.loads(reply)
        return Refused(str(error.get("error_code", status)), str(error.get("message", reason))[:500])
    return Refused(str(status), reason)


def _authorization(address: Address) -> dict[str, str]:
    """The header for the credentials, as MLflow's own client would send it."""
    if address.token:
        return {"Authorization": f"Bearer {address.token}"}
    if not address.user:
        return {}
    text = f"{address.user}:{address.password or ''}"
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}
