"""Any tracking server by its REST API: the few calls that the mirror makes, over one kept connection.

Why not MlflowClient: importing it holds the interpreter's lock for 2.2 s, in which a training thread gets 7 % of
its speed, and each trial then costs 17 ms of it instead of 3 ms. It also repeats POSTs whose replies were lost,
and one `create_run` so becomes several runs. A contract test shows that the rows are those that it would write.

Nothing is repeated here, and no proxy of the environment is used: the caller knows what may be repeated.
Source: https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

import base64
import contextlib
import http.client
import itertools
import json
import os
import ssl
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from studies.addresses import Address, tracking_address
from studies.deadline_http import open_connection
from studies.runs import KEY, Metric, TrialRun
from studies.tracking_store import Experiment, FoundRun, Refused, Unreachable, Work, Written

TIMEOUT_S = 15.0
"""Of a whole call, to the last byte of its answer."""
IDLE_S = 2.0
"""An older connection is opened anew: uvicorn drops idle ones after 5 s, and a drop looks like a lost reply."""
PAGE = 1000
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that say nothing about the request itself."""

Json = dict[str, Any]

# MLflow takes 1,000 metrics, 100 params, 100 tags and 1 MB, and 1,000 of all together.
METRICS_PER_CALL = 800
TEXTS_PER_CALL = 50
HISTORY = 25_000
"""Points of a metric that MLflow returns at once."""

MAX_REPLY_BYTES = 64 * 2**20
"""Of one answer; a page of 1,000 runs has a few."""


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

    def _parsed(self, reply: bytes) -> Json:
        try:
            parsed = json.loads(reply) if reply else {}
        except ValueError:
            raise Unreachable(f"{self.where} answers, but not as an MLflow server does") from None
        return parsed if isinstance(parsed, dict) else {}

    def _send(self, method: str, path: str, data: bytes | None) -> bytes:
        if time.monotonic() - self._used_at > IDLE_S:
            self._connection.close()
        self._connection.allow(self._timeout_s)
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


class RestStore:
    """Runs behind a tracking server; see `TrackingStore`."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S) -> None:
        """Nothing is sent yet.

        Raises:
            UserError: The address is none.
        """
        self._address = tracking_address(address)
        self.rest = Rest(self._address, timeout_s)
        self.where = self._address.shown
        self.identity = ("rest", self.where)
        self._doubtful: set[str] = set()
        """Keys of runs whose creation was asked for and not answered."""

    def credentials(self) -> Mapping[str, str]:
        """See `TrackingStore`."""
        return self._address.credentials

    def experiments(self, key: str, value: str) -> list[Experiment]:
        """See `TrackingStore`."""
        found: list[Experiment] = []
        token = ""
        while True:
            body = {"filter": f"tags.`{key}` = '{value}'", "view_type": "ALL", "max_results": PAGE}
            reply = self._post("experiments/search", **body, page_token=token)
            for one in reply.get("experiments", []):
                is_deleted = one["lifecycle_stage"] == "deleted"
                found.append(Experiment(str(one["experiment_id"]), is_deleted, _texts(one.get("tags", []))))
            token = reply.get("next_page_token", "")
            if not token:
                return found

    def create_experiment(self, name: str, tags: Mapping[str, str]) -> str | None:
        """See `TrackingStore`."""
        reply = self._ignoring("RESOURCE_ALREADY_EXISTS", "experiments/create", name=name, tags=_pairs(tags))
        return str(reply["experiment_id"]) if reply else None

    def delete_experiment(self, experiment_id: str) -> None:
        """See `TrackingStore`."""
        self._ignoring("RESOURCE_DOES_NOT_EXIST", "experiments/delete", experiment_id=experiment_id)

    def restore_experiment(self, experiment_id: str) -> None:
        """See `TrackingStore`."""
        self._post("experiments/restore", experiment_id=experiment_id)

    def runs(
        self, experiment_id: str, run_ids: Sequence[str] | None = None, needed: Collection[str] | None = None
    ) -> Iterator[FoundRun]:
        """See `TrackingStore`."""
        if run_ids is not None and not run_ids:
            return
        names = ", ".join(f"'{run_id}'" for run_id in run_ids or ())
        where = f"attributes.run_id IN ({names})" if run_ids is not None else ""
        yield from map(_found, self.rest.search_runs(experiment_id, where))

    def points(self, run_ids: Sequence[str], keys: Collection[str]) -> dict[str, set[Metric]]:
        """See `TrackingStore`."""
        found: dict[str, set[Metric]] = {}
        for key in sorted(keys):
            for run_id, point in self._history(run_ids, key):
                found.setdefault(run_id, set()).add(point)
        return found

    def create_run(self, experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> FoundRun:
        """See `TrackingStore`."""
        body: Json = {"experiment_id": experiment_id, "run_name": name, "start_time": start_ms}
        # MLflow's own client says "unknown" here as well; the name of the account is nobody's business.
        return _found(self._post("runs/create", user_id="unknown", tags=_pairs(tags), **body)["run"])

    def write_trials(self, experiment_id: str, parent_run_id: str, work: Sequence[Work]) -> Iterator[list[Written]]:
        """See `TrackingStore`. One run after the other, and of each its end last."""
        for item in work:
            wanted, tags = item.wanted, {**item.notes, **item.wanted.all_tags(parent_run_id)}
            try:
                run_id = item.run_id or self._found_or_created(experiment_id, wanted, tags)
                # A new run begins with its tags: a transaction less for the server, of four.
                self.log(run_id, wanted.metrics, wanted.params, tags if item.run_id else {})
                self.update(run_id, wanted.status, wanted.end_ms)
            except Refused as error:
                yield [Written(wanted.number, None, error)]
            else:
                yield [Written(wanted.number, run_id)]

    def log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """See `TrackingStore`."""
        for points, texts, labels in itertools.zip_longest(
            _chunks([point._asdict() for point in metrics], METRICS_PER_CALL),
            _chunks(_pairs(params or {}), TEXTS_PER_CALL),
            _chunks(_pairs(tags or {}), TEXTS_PER_CALL),
            fillvalue=(),
        ):
            self._post("runs/log-batch", run_id=run_id, metrics=points, params=texts, tags=labels)

    def update(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """See `TrackingStore`."""
        end: Json = {} if end_ms is None else {"end_time": end_ms}
        self._post("runs/update", run_id=run_id, status=status, **end)

    def delete_tag(self, run_id: str, key: str) -> None:
        """See `TrackingStore`."""
        self._ignoring("RESOURCE_DOES_NOT_EXIST", "runs/delete-tag", run_id=run_id, key=key)

    def delete_run(self, run_id: str) -> None:
        """See `TrackingStore`."""
        self._ignoring("INVALID_PARAMETER_VALUE", "runs/delete", run_id=run_id)  # deleted already

    def restore_run(self, run_id: str) -> None:
        """See `TrackingStore`."""
        self._post("runs/restore", run_id=run_id)

    def put_artifact(self, run: FoundRun, name: str, content: bytes) -> None:
        """See `TrackingStore`; artifacts that do not pass through the server are left out."""
        self.rest.put_artifact(run.artifact_uri, name, content)

    def close(self) -> None:
        """See `TrackingStore`."""
        self.rest.close()

    def _found_or_created(self, experiment_id: str, wanted: TrialRun, tags: Mapping[str, str]) -> str:
        """Id of the run of a trial; where an earlier request may have made one, it is looked for."""
        if wanted.key in self._doubtful:
            found = map(_found, self.rest.search_runs(experiment_id, f"tags.`{KEY}` = '{wanted.key}'"))
            for run in found:
                if not run.is_deleted:
                    self._doubtful.discard(wanted.key)
                    return run.run_id
        self._doubtful.add(wanted.key)
        run = self.create_run(experiment_id, wanted.name, wanted.start_ms, tags)
        self._doubtful.discard(wanted.key)
        return run.run_id

    def _history(self, run_ids: Sequence[str], key: str) -> Iterator[tuple[str, Metric]]:
        """All points of one metric; where the server may have left some out, each half is asked alone."""
        if not run_ids:
            return
        found = self.rest.histories(run_ids, key)
        if len(found) < HISTORY:
            for point in found:
                yield str(point["run_id"]), _point(point)
        elif len(run_ids) > 1:
            half = len(run_ids) // 2
            yield from self._history(run_ids[:half], key)
            yield from self._history(run_ids[half:], key)
        else:
            yield from self._long_history(run_ids[0], key)

    def _long_history(self, run_id: str, key: str) -> Iterator[tuple[str, Metric]]:
        token = ""
        while True:
            query = urlencode({"run_id": run_id, "metric_key": key, "max_results": HISTORY, "page_token": token})
            reply = self.rest.call("GET", f"metrics/get-history?{query}")
            for point in reply.get("metrics", []):
                yield run_id, _point(point)
            token = reply.get("next_page_token", "")
            if not token:
                return

    def _post(self, path: str, **body: object) -> Json:
        return self.rest.call("POST", path, body)

    def _ignoring(self, code: str, path: str, **body: object) -> Json:
        """Post; an empty reply where the server declines with this code, because it is so already."""
        try:
            return self._post(path, **body)
        except Refused as error:
            if error.code != code:
                raise
            return {}


def _point(found: Json) -> Metric:
    return Metric(str(found["key"]), float(found["value"]), int(found["timestamp"]), int(found.get("step", 0)))


def _found(run: Json) -> FoundRun:
    info, data = run["info"], run.get("data", {})
    return FoundRun(
        run_id=info["run_id"],
        name=info.get("run_name", ""),
        status=info["status"],
        start_ms=int(info.get("start_time") or 0),
        end_ms=int(info.get("end_time") or 0),
        is_deleted=info.get("lifecycle_stage") == "deleted",
        artifact_uri=info.get("artifact_uri", ""),
        tags=_texts(data.get("tags", [])),
        params=_texts(data.get("params", [])),
        latest={point.key: point for point in map(_point, data.get("metrics", []))},
    )


def _texts(found: Sequence[Json]) -> dict[str, str]:
    return {str(item["key"]): str(item.get("value", "")) for item in found}


def _pairs(values: Mapping[str, str]) -> list[Json]:
    """Tags or params as the API takes them."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _chunks(items: Sequence[Json], size: int) -> Iterator[Sequence[Json]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


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
