"""A cohort's suggestions become records here: the one door between studies and dlcore's training.

Below this file there are tensors, above it numbers, strings and paths. The trials of a cohort train from rung to rung;
at each rung `halving` or `pruner` says who goes on. What a trial's network computes depends on the spec, its number
and its hyperparameters alone, never on its neighbours.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from dlcore.config import ModelConfig, metrics_of
from dlcore.curve import Epoch
from dlcore.data import DataSplits, split_tensors, to_tensors
from dlcore.device import choose_device, device_name, peak_memory_bytes, reset_peak_memory
from dlcore.engines import Group, Limit, State, form_groups, prepare
from dlcore.evaluation import evaluate, evaluate_together
from dlcore.models import build_model, count_parameters
from dlcore.packing import Member
from dlcore.precision import check_precision
from dlcore.rivals import train_rivals
from dlcore.seeding import derive_seed
from dlcore.training import Training
from studies import halving, pruner
from studies.errors import UserError
from studies.hyperparameters import choices
from studies.provenance import environment
from studies.records import (
    COMPLETE,
    FAIL,
    PRUNED,
    EpochDone,
    EpochRecord,
    Objective,
    Rival,
    Suggestion,
    TrialRecord,
    Value,
)
from studies.space import model_config, train_config
from studies.spec import StudySpec

_NARROW = 256
"""Units of a layer up to which one thread is as fast as several."""


CUT = "the time budget was spent"
"""Reason of a trial that a deadline cut."""


@dataclass(frozen=True, slots=True)
class Network:
    """A recorded trial, trained again."""

    model: nn.Sequential
    """With the weights of the best epoch."""
    model_config: ModelConfig
    curve: tuple[EpochRecord, ...]
    best_epoch: int | None


@dataclass(slots=True)
class _Trial:
    """One trial in training."""

    suggestion: Suggestion
    group: Group
    place: int
    """Its index in the group."""
    started_at: float
    rungs: dict[int, float] = field(default_factory=dict)
    stop_reason: str | None = None
    """Why it was pruned; None while it goes on."""

    @property
    def state(self) -> State:
        """How far its training is; asked for anew each time, since a lack of memory begins it again."""
        return self.group.engine.states[self.place]


class Trainer:
    """Trains the trials of one study, one cohort at a time, on data that stays on the device."""

    def __init__(self, spec: StudySpec, objectives: Sequence[Objective], splits: DataSplits) -> None:
        """Put the data on the device.

        Raises:
            dlcore.errors.DeviceError: The spec's device is not there, or cannot train in the spec's precision.
        """
        self._spec = spec
        self._objectives = tuple(objectives)
        self._n_features, self._n_outputs = splits.n_features, splits.n_outputs
        self.device = choose_device(spec.training.device)
        check_precision(spec.training.precision, self.device)
        if spec.training.engine == "loop" and _is_narrow(spec):
            torch.set_num_threads(1)
        self.splits = splits
        self._data = to_tensors(splits, self.device)
        self._order_seed = derive_seed(spec.seed, "order")
        self._limit = Limit()
        if spec.training.engine == "population":
            prepare(self.device)

    @property
    def device_name(self) -> str:
        """Name of the device as its vendor gives it."""
        return device_name(self.device)

    @property
    def environment(self) -> dict[str, str]:
        """Under what this process trains; see `studies.provenance`."""
        capability = torch.backends.cpu.get_cpu_capability()
        return environment(threads=torch.get_num_threads(), device=self.device_name, capability=capability)

    @property
    def epochs(self) -> int:
        """The most epochs of a training."""
        return self._spec.training.epochs

    @property
    def measured_names(self) -> tuple[str, ...]:
        """What `measure` tells of a network."""
        return ("loss", *metrics_of(self.splits.task))

    def check_objectives(self) -> None:
        """Whether every objective can be measured on val, before anything is trained.

        Raises:
            UserError: One cannot: R2 of a single row, say, or ROC-AUC of a single class.
        """
        linear = ModelConfig(self._n_features, self._n_outputs, ())
        measured = self.measure(build_model(linear, 0, device=self.device), "val")
        for objective in self._objectives:
            if not math.isfinite(measured.get(objective.metric, 0.0)):
                raise UserError(
                    f"{objective.metric} must be measurable on val, and is not: it has "
                    f"{len(self._data.x_val)} rows; choose another objective or a larger data.val_fraction"
                )

    def count_parameters(self, hyperparameters: Mapping[str, Value]) -> int:
        """Weights and biases of the network that these hyperparameters describe; nothing is built."""
        return count_parameters(self._model_config(hyperparameters))

    def train(
        self, suggestions: Sequence[Suggestion], cohort: int, earlier: Sequence[TrialRecord], deadline: float | None
    ) -> Iterator[EpochDone | TrialRecord]:
        """Train a cohort; yields every epoch as it ends, then the record of every trial.

        Args:
            suggestions: The cohort, in order of number.
            cohort: Its id.
            earlier: Trials finished before it, for a pruner that compares with them.
            deadline: `time.monotonic()` at which training ends wherever it is. Trials that it cuts are PRUNED; those
                that have no epoch yet get no record.
        """
        reset_peak_memory(self.device)
        groups, trials = self._start(suggestions)
        with closing(self._climb(groups, suggestions, trials, earlier, self._spec.training.epochs)) as events:
            for event in events:
                yield event
                if deadline is not None and time.monotonic() >= deadline:
                    break
        for suggestion in suggestions:
            trial = trials[suggestion.number]
            if trial.state.curve or trial.state.divergence is not None:
                yield self._record(trial, cohort)

    def retrain(self, record: TrialRecord, *, is_moved: bool = False) -> tuple[Epoch, ...]:
        """Train a recorded trial again, alone, with the reference loop, for as many epochs as it had.

        Args:
            record: With its curve.
            is_moved: Start from initial weights that are one unit in the last place larger: how far the curve goes
                astray then is what rounding alone can do to it.

        Returns:
            Its curve.
        """
        member = self._member(record.suggestion)
        training = Training(
            member.model_config, member.train_config, self._data, seed=member.seed, order_seed=self._order_seed
        )
        if is_moved:
            with torch.no_grad():
                for weights in training.model.parameters():
                    weights.copy_(torch.nextafter(weights, torch.full_like(weights, torch.inf)))
        training.advance(len(record.curve))
        return tuple(training.curve)

    def retrain_network(
        self, record: TrialRecord, cohort: Sequence[TrialRecord], earlier: Sequence[TrialRecord]
    ) -> Network:
        """Train a recorded trial again as it was trained: with its cohort, so that every bit comes out again.

        Args:
            record: With its curve.
            cohort: All finished trials of its cohort.
            earlier: Trials finished before it.
        """
        suggestions = [t.suggestion for t in cohort]
        groups, trials = self._start(suggestions)
        own = trials[record.number]
        for _ in self._climb(groups, suggestions, trials, earlier, len(record.curve)):
            pass
        model = self._network(self._member(own.suggestion), own.state.best_weights)
        config = self._model_config(record.hyperparameters)
        best = own.state.best
        return Network(model, config, tuple(map(_epoch_record, own.state.curve)), None if best is None else best.epoch)

    def train_fresh(
        self, suggestions: Sequence[Suggestion], n_seeds: int, watch: Callable[[int], None]
    ) -> list[list[nn.Sequential | None]]:
        """Train trials to their end on seeds that nobody chose by, all together, each with an order of rows of its own.

        Args:
            suggestions: Of the trials.
            n_seeds: Trainings of each.
            watch: Is told each epoch that a network finished.

        Returns:
            Of each trial the networks with the weights of their best epochs; None for one that diverged.
        """
        members = [self._fresh_member(s, k) for s in suggestions for k in range(n_seeds)]
        found: list[nn.Sequential | None] = [None] * len(members)
        for group in self._groups(members):
            for _, epoch in group.engine.advance(self._spec.training.epochs):
                watch(epoch.epoch)
            for place, state in zip(group.indices, group.engine.states, strict=True):
                if state.divergence is None and state.best is not None:
                    found[place] = self._network(members[place], state.best_weights)
        return [found[i : i + n_seeds] for i in range(0, len(members), n_seeds)]

    def measure(self, model: nn.Module, split: str) -> dict[str, float]:
        """Loss and all metrics of a network on "train", "val" or "test"."""
        x, y = split_tensors(self.splits, split, self.device, self._data.x_train.dtype)
        return evaluate(model, self._data.task, x, y)

    def measure_together(self, models: Sequence[nn.Module], split: str) -> dict[str, float]:
        """The same of an ensemble: the mean of the networks' predictions."""
        x, y = split_tensors(self.splits, split, self.device, self._data.x_train.dtype)
        return evaluate_together(models, self._data.task, x, y)

    def rivals(self) -> list[Rival]:
        """scikit-learn's models on the same rows, measured on val and on test."""
        found = train_rivals(self.splits, self._spec.seed)
        return [Rival(r.name, r.metrics["val"], r.metrics["test"], r.remark) for r in found]

    def _network(self, member: Member, weights: Mapping[str, Tensor]) -> nn.Sequential:
        model = build_model(member.model_config, member.seed, device=self.device, dtype=self._data.x_train.dtype)
        model.load_state_dict(dict(weights))
        return model

    def _model_config(self, hyperparameters: Mapping[str, Value]) -> ModelConfig:
        return model_config(hyperparameters, self._n_features, self._n_outputs)

    def _member(self, suggestion: Suggestion) -> Member:
        return Member(
            self._model_config(suggestion.hyperparameters),
            train_config(self._spec, suggestion.hyperparameters, self._objectives[0].metric),
            derive_seed(self._spec.seed, "trial", suggestion.number),
        )

    def _fresh_member(self, suggestion: Suggestion, index: int) -> Member:
        """The same with other initial weights, and with the rows in another order: one order would make them alike."""
        names = ("final", suggestion.number, index)
        order_seed = derive_seed(self._spec.seed, *names, "order")
        return replace(self._member(suggestion), seed=derive_seed(self._spec.seed, *names), order_seed=order_seed)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which trials are compared; none where no trial is stopped early."""
        ladder = self._spec.ladder
        if ladder is None:
            return ()
        return halving.rungs(ladder.first_rung, ladder.reduction_factor, self._spec.training.epochs)

    def _start(self, suggestions: Sequence[Suggestion]) -> tuple[list[Group], dict[int, _Trial]]:
        """Groups of the suggestions, and each trial by its number."""
        groups = self._groups([self._member(s) for s in suggestions])
        now = time.time()
        return groups, {
            suggestions[i].number: _Trial(suggestions[i], group, place, now)
            for group in groups
            for place, i in enumerate(group.indices)
        }

    def _groups(self, members: Sequence[Member]) -> list[Group]:
        engine = self._spec.training.engine
        return form_groups(members, self._data, order_seed=self._order_seed, engine=engine, limit=self._limit)

    def _climb(
        self,
        groups: Sequence[Group],
        suggestions: Sequence[Suggestion],
        trials: Mapping[int, _Trial],
        earlier: Sequence[TrialRecord],
        last: int,
    ) -> Generator[EpochDone, None, None]:
        """Train all groups from rung to rung, to the end of epoch `last`, and drop at each rung who is pruned there."""
        for rung in (*self.rungs, self._spec.training.epochs):
            for group in groups:
                for index, epoch in group.engine.advance(min(rung, last)):
                    yield EpochDone(suggestions[group.indices[index]].number, _epoch_record(epoch))
            if rung >= last:
                return
            pruned = self._judge(trials, rung, earlier)
            for group in groups:
                group.engine.drop([i for i, s in enumerate(group.indices) if suggestions[s].number in pruned])

    def _judge(self, trials: Mapping[int, _Trial], rung: int, earlier: Sequence[TrialRecord]) -> set[int]:
        """Report the best value of every living trial at a rung; returns the numbers of those that stop there."""
        # Those that early stopping ended are COMPLETE: they were not cut, and take nobody's place.
        living = {n: t for n, t in trials.items() if t.stop_reason is None and not t.state.is_finished}
        for trial in living.values():
            best = trial.state.best
            trial.rungs[rung] = math.nan if best is None else trial.state.objective_value(best)
        if self._spec.search.pruner is None:
            values = {
                n: (t.rungs[rung], t.state.best.val_loss if t.state.best else math.nan) for n, t in living.items()
            }
            ladder = self._spec.ladder
            assert ladder is not None  # there are no rungs without one
            kept = halving.promoted(values, ladder.reduction_factor, self._objectives[0].direction)
            pruned = set(values) - kept
            reason = f"not among the best {len(kept)} of {len(values)} at epoch {rung}"
        else:
            live = {n: t.rungs for n, t in living.items()}
            pruned = pruner.prune(pruner.build_pruner(self._spec), self._objectives[0], earlier, live, rung)
            reason = f"pruned by {self._spec.search.pruner} at epoch {rung}"
        for number in pruned:
            living[number].stop_reason = reason
        return pruned

    def _record(self, trial: _Trial, cohort: int) -> TrialRecord:
        state, suggestion = trial.state, trial.suggestion
        verdict, values, reason = self._verdict(trial)
        curve = tuple(_epoch_record(e) for e in state.curve)
        best = state.best
        n_epochs = len(curve) + (state.divergence is not None)
        return TrialRecord(
            number=suggestion.number,
            state=verdict,
            hyperparameters=suggestion.hyperparameters,
            searched=suggestion.searched,
            cohort=cohort,
            n_parameters=self.count_parameters(suggestion.hyperparameters),
            values=values,
            reason=reason,
            rungs=trial.rungs,
            curve=curve,
            best_epoch=None if best is None else best.epoch,
            best_val_loss=None if best is None else best.val_loss,
            started_at=trial.started_at,
            finished_at=curve[-1].finished_at if curve else time.time(),
            duration_s=state.train_s,
            samples_per_s=n_epochs * len(self._data.x_train) / state.train_s,
            engine=trial.group.name,
            population_size=1 if trial.group.name == "loop" else len(trial.group.indices),
            device=self.device_name,
            peak_memory_bytes=peak_memory_bytes(self.device),
            system_attrs=suggestion.system_attrs,
        )

    def _verdict(self, trial: _Trial) -> tuple[str, tuple[float, ...] | None, str | None]:
        """State, values and reason of a trial whose training is over."""
        state = trial.state
        if state.divergence is not None:
            return FAIL, None, f"diverged in epoch {state.divergence.epoch}: {state.divergence.reason}"
        if state.best is None:
            return FAIL, None, f"{self._objectives[0].metric} on val was not finite in any epoch"
        if state.is_finished and trial.stop_reason is None:
            return COMPLETE, self._values(trial), None
        if trial.stop_reason is None:
            trial.rungs[len(state.curve)] = state.objective_value(state.best)
        value = trial.rungs[max(trial.rungs)] if len(self._objectives) == 1 else None
        return PRUNED, None if value is None else (value,), trial.stop_reason or CUT

    def _values(self, trial: _Trial) -> tuple[float, ...]:
        """The objectives at the best epoch; those that the curve does not hold are measured with its weights."""
        assert trial.state.best is not None
        values = [trial.state.objective_value(trial.state.best)]
        measured: dict[str, float] = {}
        for objective in self._objectives[1:]:
            if objective.metric == "n_parameters":
                values.append(float(self.count_parameters(trial.suggestion.hyperparameters)))
                continue
            if not measured:
                model = self._network(self._member(trial.suggestion), trial.state.best_weights)
                measured = self.measure(model, "val")
            values.append(measured[objective.metric])
        return tuple(values)


def _is_narrow(spec: StudySpec) -> bool:
    """Whether a second thread would cost the loop's layers more than it brings (measured)."""
    widths = choices(spec.search_space.get("width", spec.fixed.get("width", 0)))
    return max(map(int, widths or ())) <= _NARROW


def _epoch_record(epoch: Epoch) -> EpochRecord:
    return EpochRecord(
        epoch.epoch, epoch.train_loss, epoch.val_loss, epoch.val_metric, epoch.learning_rate, epoch.finished_at
    )
