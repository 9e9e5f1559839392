"""What the mirror asks of a tracking server: one small interface, two ways to fulfil it.

`mlflow_rest.RestStore` asks any server; `mlflow_sql.SqlStore` writes into the database of the home's own server. One
contract test holds both to the rows that MLflow's own client would have written.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from studies.errors import TrackingError
from studies.runs import Metric, TrialRun


class Unreachable(TrackingError):
    """No reply, or none that means anything: the request may have been carried out, or not."""


class Refused(TrackingError):
    """The server understood the request and declined it."""

    def __init__(self, code: str, message: str) -> None:
        """Keep MLflow's error code, such as RESOURCE_ALREADY_EXISTS."""
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment of MLflow's."""

    experiment_id: str
    is_deleted: bool
    tags: Mapping[str, str]


@dataclass(slots=True)
class FoundRun:
    """A run as it stands in MLflow, but for the history of its metrics."""

    run_id: str
    name: str
    status: str
    start_ms: int
    end_ms: int
    """0 while it is not ended."""
    is_deleted: bool
    artifact_uri: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    latest: dict[str, Metric] = field(default_factory=dict)
    """Key -> the point that MLflow's tables show."""


@dataclass(frozen=True, slots=True)
class Work:
    """A trial whose run is to be made equal to what is wanted."""

    wanted: TrialRun
    run_id: str | None
    """A run that holds nothing else than what is wanted, but may lack some; None makes one."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Tags of other people, which a run takes over from the one that it replaces."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one piece of work."""

    number: int
    run_id: str | None
    refused: Refused | None = None


class TrackingStore(Protocol):
    """One place where MLflow keeps its runs; for one thread.

    Every call may be repeated after it failed. All raise `Unreachable`, `Refused` or another `TrackingError`.
    """

    where: str
    """Address of the server, without user and password."""
    identity: tuple[str, str]
    """The way and the place: stores of one identity see the same runs."""
    is_neighbour: bool
    """Whether another process on this machine does the work, on the cores that a study trains on."""

    def credentials(self) -> Mapping[str, str]:
        """Environment variables by which MLflow's own client logs in at `where`."""

    def experiments(self, key: str, value: str) -> list[Experiment]:
        """All experiments with that tag, deleted or not."""

    def create_experiment(self, name: str, tags: Mapping[str, str]) -> str | None:
        """Make an experiment and return its id; None if there is one of that name by now."""

    def tag_experiment(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of an experiment."""

    def delete_experiment(self, experiment_id: str) -> None:
        """Delete an experiment with its runs, as MLflow's UI does; nothing happens if it is deleted already."""

    def restore_experiment(self, experiment_id: str) -> None:
        """Bring a deleted experiment back, with all its runs."""

    def runs(
        self, experiment_id: str, run_ids: Sequence[str] | None = None, needed: Collection[str] | None = None
    ) -> Iterator[FoundRun]:
        """All runs of an experiment, deleted ones too, or those named.

        Args:
            experiment_id: Of the experiment.
            run_ids: Of the wanted runs; at most 100.
            needed: Keys of the tags and metrics that will be looked at; others may be left out, and params with
                them. None is all.
        """

    def points(self, run_ids: Sequence[str], keys: Collection[str]) -> dict[str, set[Metric]]:
        """The whole history of the metrics of at most 100 runs; runs without any are left out.

        Args:
            run_ids: Of the runs.
            keys: All metrics that the runs have.
        """

    def create_run(self, experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> FoundRun:
        """Begin a run."""

    def write_trials(self, experiment_id: str, parent_run_id: str, work: Sequence[Work]) -> Iterator[list[Written]]:
        """Write runs whole, their ends last; yields those that are there to stay by now, as soon as they are.

        Whoever stops in between has so heard of all that was written.
        """

    def log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to a run; points and params that it has already stay as they are, tags are replaced."""

    def update(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """Change the status of a run, and its end where one is given."""

    def delete_tag(self, run_id: str, key: str) -> None:
        """Take a tag away; nothing happens if it is not there."""

    def delete_run(self, run_id: str) -> None:
        """Delete a run as MLflow's UI does: it can be restored; nothing happens if it is deleted already."""

    def restore_run(self, run_id: str) -> None:
        """Bring a deleted run back."""

    def put_artifact(self, run: FoundRun, name: str, content: bytes) -> None:
        """Store one small file with a run, where artifacts can be reached."""

    def close(self) -> None:
        """Let go of connections; the store may be used again."""
