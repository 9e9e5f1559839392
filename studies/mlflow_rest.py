"""Runs behind any tracking server, by its REST API: the few calls that the mirror makes.

Why not MlflowClient: importing it holds the interpreter's lock for 2.2 s, in which a training thread gets 7 % of
its speed, and each trial then costs 17 ms of it instead of 3 ms. It also repeats POSTs whose replies were lost,
and one `create_run` so becomes several runs. A contract test shows that the rows are those that it would write.

A run takes three requests, by MLflow's client too: no request carries several runs, and none makes a run and ends it.
Most of their time is the server's, so several runs are written at a time, each on a connection of its own; one thread
does it all, since each thread more would take the interpreter's lock from the one that trains.
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from studies.addresses import tracking_address
from studies.errors import TrackingError
from studies.mlflow_http import PAGE, TIMEOUT_S, Json, Rest, search
from studies.runs import KEY, Metric, TrialRun
from studies.tracking_store import Experiment, FoundRun, Refused, Work, Written

AT_ONCE = 3
"""Runs that are written at the same time. A server has four workers by default, and a database whose lock they share:
beyond three there was nothing more to win, and with eight a call was once not answered in time."""

# MLflow takes 1,000 metrics, 100 params, 100 tags and 1 MB, and 1,000 of all together.
METRICS_PER_CALL = 800
TEXTS_PER_CALL = 50
HISTORY = 25_000
"""Points of a metric that MLflow returns at once."""

_Requests = Generator[tuple[str, Json], Json, str]
"""Yields paths and bodies, is sent the replies, and returns the id of a run."""


@dataclass(slots=True)
class _Lane:
    """A run that is being written, and the connection that it is written over."""

    rest: Rest
    wanted: TrialRun
    requests: _Requests

    def begin(self) -> None:
        """Send the first request."""
        self.rest.ask(*next(self.requests))

    def go_on(self) -> Written | None:
        """Wait for a reply, and send the next request; returns the run where there is none."""
        try:
            request = self.listen()
        except StopIteration as done:
            return Written(self.wanted.number, done.value)
        self.rest.ask(*request)
        return None

    def listen(self) -> tuple[str, Json]:
        """Wait for a reply; returns the next request."""
        return self.requests.send(self.rest.reply())


class RestStore:
    """Runs behind a tracking server; see `TrackingStore`."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S) -> None:
        """Nothing is sent yet.

        Raises:
            UserError: The address is none.
        """
        self._address = tracking_address(address)
        self._timeout_s = timeout_s
        self.rest = Rest(self._address, timeout_s)
        self._others: list[Rest] = []
        self.where, self.is_neighbour = self._address.shown, self._address.is_loopback
        self.identity = ("rest", self.where)
        self._at_once = AT_ONCE
        """Fewer after a failure: a server that is slow might answer none of several in time."""
        self._begun: dict[str, str | None] = {}
        """Key of a run that was begun and not reported as written -> its id; None where no answer said it."""

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

    def tag_experiment(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """See `TrackingStore`."""
        for key, value in tags.items():
            self._post("experiments/set-experiment-tag", experiment_id=experiment_id, key=key, value=value)

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
        return _found(self._post("runs/create", **_new_run(experiment_id, name, start_ms, tags))["run"])

    def write_trials(self, experiment_id: str, parent_run_id: str, work: Sequence[Work]) -> Iterator[list[Written]]:
        """See `TrackingStore`. A few runs at a time, each on a connection of its own, and of each its end last."""
        todo, busy = iter(work), deque[_Lane]()
        try:
            for rest, item in zip(self._connections(), todo, strict=False):
                busy.append(_Lane(rest, item.wanted, self._requests(experiment_id, parent_run_id, item)))
                busy[-1].begin()
            while busy:
                lane = busy[0]
                try:
                    written = lane.go_on()
                except Refused as error:
                    written = Written(lane.wanted.number, None, error)
                busy.rotate(-1)
                if written is None:
                    continue
                busy.pop()
                self._begun.pop(lane.wanted.key, None)
                yield [written]
                for item in itertools.islice(todo, 1):
                    busy.append(_Lane(lane.rest, item.wanted, self._requests(experiment_id, parent_run_id, item)))
                    busy[-1].begin()
            self._at_once = AT_ONCE
        except TrackingError:
            self._at_once = 1
            raise
        finally:
            for lane in busy:  # what was asked may be carried out: its answer is worth waiting for
                with contextlib.suppress(TrackingError, StopIteration):
                    lane.listen()

    def _connections(self) -> Iterator[Rest]:
        """Those over which runs are written, made as far as they are needed; whoever listens to us may use `rest`."""
        for i in range(self._at_once):
            if i == len(self._others):
                self._others.append(Rest(self._address, self._timeout_s))
            yield self._others[i]

    def _requests(self, experiment_id: str, parent_run_id: str, item: Work) -> "_Requests":
        """What one run takes; where an earlier request may have made it, it is looked for."""
        wanted, tags = item.wanted, {**item.notes, **item.wanted.all_tags(parent_run_id)}
        run_id = item.run_id or self._begun.get(wanted.key)
        if run_id is None and wanted.key in self._begun:
            reply = yield "runs/search", search(experiment_id, f"tags.`{KEY}` = '{wanted.key}'")
            found = [run.run_id for run in map(_found, reply.get("runs", [])) if not run.is_deleted]
            run_id = found[0] if found else None
        if run_id is None:
            self._begun[wanted.key] = None
            # A new run begins with its tags: a transaction less for the server, of four.
            reply = yield "runs/create", _new_run(experiment_id, wanted.name, wanted.start_ms, tags)
            tags = {}
            run_id = self._begun[wanted.key] = str(reply["run"]["info"]["run_id"])
        for batch in _batches(run_id, wanted.metrics, wanted.params, tags):
            yield "runs/log-batch", batch
        yield "runs/update", {"run_id": run_id, "status": wanted.status, "end_time": wanted.end_ms}
        return run_id

    def log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """See `TrackingStore`."""
        for batch in _batches(run_id, metrics, params or {}, tags or {}):
            self._post("runs/log-batch", **batch)

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
        for rest in (self.rest, *self._others):
            rest.close()

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


def _new_run(experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> Json:
    own: Json = {"experiment_id": experiment_id, "run_name": name, "start_time": start_ms, "tags": _pairs(tags)}
    # MLflow's own client says "unknown" here as well; the name of the account is nobody's business.
    return own | {"user_id": "unknown"}


def _batches(
    run_id: str, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[Json]:
    """All that is to be logged, in requests that MLflow takes."""
    for points, texts, labels in itertools.zip_longest(
        _chunks([point._asdict() for point in metrics], METRICS_PER_CALL),
        _chunks(_pairs(params), TEXTS_PER_CALL),
        _chunks(_pairs(tags), TEXTS_PER_CALL),
        fillvalue=(),
    ):
        yield {"run_id": run_id, "metrics": points, "params": texts, "tags": labels}


def _chunks(items: Sequence[Json], size: int) -> Iterator[Sequence[Json]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
