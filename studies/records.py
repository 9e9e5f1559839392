"""What was asked and what was found: frozen rows of numbers, strings and paths that travel between floors."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = int | float | str | bool

RUNNING = "RUNNING"
WAITING = "WAITING"
COMPLETE = "COMPLETE"
PRUNED = "PRUNED"
FAIL = "FAIL"
STATES = (RUNNING, WAITING, COMPLETE, PRUNED, FAIL)
FINISHED_STATES = (COMPLETE, PRUNED, FAIL)
CUT = "the time budget was spent"
"""Reason of a trial that a deadline cut."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One metric that the study is told, and whether more or less of it is better."""

    metric: str
    """A name in `dlcore.config.METRICS`, "loss" (val loss) or "n_parameters"."""
    direction: str
    """"maximize" or "minimize"."""

    def is_better(self, left: float, right: float) -> bool:
        """Whether `left` beats `right` strictly."""
        return left > right if self.direction == "maximize" else left < right


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Hyperparameters proposed for one trial, not yet trained."""

    number: int
    """Counts from 0 in a study."""
    hyperparameters: Mapping[str, Value]
    """All of them: the searched ones and those that the spec fixes."""
    searched: tuple[str, ...]
    """Names of the hyperparameters that the sampler chose (conditional ones only where they apply)."""
    system_attrs: Mapping[str, object] = field(default_factory=dict)
    """What the sampler noted with its trial; the next cohort's asking needs it."""


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One point of a trial's curves."""

    epoch: int
    """Counts from 1."""
    train_loss: float
    val_loss: float
    val_metric: float
    """The objective's metric on val; the task's default metric where the objective is the loss."""
    learning_rate: float
    """Of the epoch's last step."""
    finished_at: float
    """Seconds since 1970, UTC."""


@dataclass(frozen=True, slots=True)
class EpochDone:
    """A trial finished an epoch; for whoever watches."""

    number: int
    epoch: EpochRecord


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """The stored facts of one trial."""

    number: int
    state: str
    """One of `STATES`."""
    hyperparameters: Mapping[str, Value]
    searched: tuple[str, ...]
    cohort: int
    """Id of the cohort that it was claimed with."""
    n_parameters: int
    """Weights and biases of its network."""
    values: tuple[float, ...] | None = None
    """One per objective: at the best epoch (COMPLETE), at the last reported rung (PRUNED, one objective)."""
    reason: str | None = None
    """Why it failed or was pruned."""
    rungs: Mapping[int, float] = field(default_factory=dict)
    """Epoch of a rung -> best value of the first objective up to it."""
    curve: tuple[EpochRecord, ...] = ()
    best_epoch: int | None = None
    best_val_loss: float | None = None
    """Val loss at the best epoch; breaks ties between trials."""
    started_at: float | None = None
    """Seconds since 1970, UTC: when its cohort began to train."""
    finished_at: float | None = None
    duration_s: float | None = None
    """Seconds that its population trained until its own end; the loop is a population of one."""
    samples_per_s: float | None = None
    """Training rows seen per second of its own training."""
    engine: str = "loop"
    population_size: int = 1
    device: str = ""
    """Name of the device as the vendor gives it."""
    peak_memory_bytes: int | None = None
    """Of its population on a GPU; on a CPU the peak of the whole process; None where nobody tells."""
    system_attrs: Mapping[str, object] = field(default_factory=dict)

    @property
    def value(self) -> float | None:
        """The first objective's value."""
        return self.values[0] if self.values else None

    @property
    def suggestion(self) -> Suggestion:
        """What it was before it was trained."""
        return Suggestion(self.number, self.hyperparameters, self.searched, self.system_attrs)

    @property
    def best(self) -> EpochRecord | None:
        """The point of the curve at the best epoch."""
        return self.curve[self.best_epoch - 1] if self.best_epoch else None


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What is fixed when a study is created."""

    name: str
    uuid: str
    """32 hexadecimal digits; names the study wherever a name could be taken again."""
    spec: Mapping[str, object]
    """The whole spec with its defaults, as plain data."""
    objectives: tuple[Objective, ...]
    task: str
    curve_metric: str
    """Metric of `EpochRecord.val_metric`."""
    cohort_size: int
    n_features: int
    n_outputs: int
    data_name: str
    data_fingerprint: str
    """sha256 of the table and its split."""
    environment: Mapping[str, str]
    """Versions, machine, threads, git commit at creation."""
    created_at: float


Measured = Mapping[str, float]
"""Loss and every metric of a network on one split."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds, and where the true one is to be expected: with 95 % confidence between `low` and `high`.

    What else than seeds it is over, is said where it stands.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Finalist:
    """A trial that was trained again on fresh seeds."""

    number: int
    val: tuple[Measured, ...]
    """On val, one per seed; all NaN where that training diverged."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Another model on the same rows: one of scikit-learn's, or the finalists' networks together."""

    name: str
    val: Measured
    test: Measured
    remark: str = ""
    """What a bound cut; empty where nothing was."""
    lead: Mapping[str, Interval] = field(default_factory=dict)
    """Metric on test -> the winner's value minus this one's, over the winner's seeds and over rows, the same for both;
    empty where there are no fresh seeds, and in a study of before."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What an exported network answered on one split, counted when it was measured there: the rows are not read again.

    Counts of rows are as large as the split; a sample of points stands for a large regression.
    """

    split: str
    """Its name: "test"."""
    n_rows: int
    classes: tuple[str, ...] = ()
    """What the classes are called; empty for a regression."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows by true class, then by the class that was answered."""
    calibration: tuple[tuple[int, float, float], ...] = ()
    """Of each tenth of confidence that holds rows: how many, their mean confidence, the share that is right."""
    targets: tuple[str, ...] = ()
    """Names of a regression's targets; empty for classes."""
    points: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Of each target pairs of truth and prediction, in its unit."""


@dataclass(frozen=True, slots=True)
class Final:
    """How the winner won, and against whom."""

    asked: Mapping[str, int | bool | str]
    """[final] of the spec that it was made for."""
    finalists: tuple[Finalist, ...]
    """The winner first; empty where no trial trained to its end, or no finals were asked for."""
    test: tuple[Measured, ...]
    """The winner's networks on test, one per seed; empty where the study keeps no test back."""
    rivals: tuple[Rival, ...] = ()
    ensemble: Rival | None = None
    over_rows: Mapping[str, Interval] = field(default_factory=dict)
    """Metric -> the winner's mean on test, over seeds and rows, or groups of them; empty as in `Rival.lead`, and where
    test has too few groups. A metric that other rows say nothing of is not in it."""
    n_groups: int = 0
    """Groups of rows that test has, where rows are kept together; else 0."""
    is_ensemble: bool = False
    """Whether the ensemble is exported: on val it is better than the winner's networks are in the mean."""
    answers: Answers | None = None
    """Of the exported network on test; None in a winner of before they were kept."""
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    """What came after the search ("finals", "rivals", "export") -> how long it took."""


@dataclass(frozen=True, slots=True)
class Winner:
    """The trial that won the finals (the best one where there were none), trained again with its own seed, measured on
    test, and written to disk."""

    number: int
    values: tuple[float, ...]
    hyperparameters: Mapping[str, Value]
    n_parameters: int
    val_metrics: Mapping[str, float]
    test_metrics: Mapping[str, float]
    export_dir: str
    onnx_sha256: str
    final: Final | None = None
    """None in a study of an earlier version."""


@dataclass(frozen=True, slots=True)
class StudySummary:
    """What `studies list` and `studies show` say of a study."""

    facts: StudyFacts
    states: Mapping[str, int]
    best: TrialRecord | None
    front: tuple[TrialRecord, ...]
    """Best trials of a study with several objectives (the Pareto front); else empty."""
    winner: Winner | None
    """Of the latest finals; `best` is the same trial as long as no trial was finished since."""
    last_activity: float
