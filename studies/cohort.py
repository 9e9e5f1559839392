"""A cohort's suggestions become records here: the one door between studies and dlcore's training.

Below this file there are tensors, above it numbers, strings and paths. The trials of a cohort train from rung to rung;
at each rung `halving` or `pruner` says who goes on. What a trial's network computes depends on the spec, its number
and its hyperparameters alone, never on its neighbours.
"""

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch
from torch import nn

from dlcore.config import ModelConfig
from dlcore.curve import Epoch
from dlcore.device import peak_memory_bytes, reset_peak_memory
from dlcore.engines import Group, State
from dlcore.evaluation import evaluate
from dlcore.models import build_model
from studies import halving, pruner
from studies.errors import UserError
from studies.networks import Networks
from studies.provenance import environment
from studies.records import (
    COMPLETE,
    CUT,
    FAIL,
    PRUNED,
    EpochDone,
    EpochRecord,
    Suggestion,
    TrialRecord,
)
from studies.space import decays_sgd

_DIVERGED = "diverged"
"""How the reason of a trial begins whose numbers left all bounds."""


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
    record: TrialRecord | None = None
    """Of a trial that is trained again: it stops where it stopped then."""

    @property
    def state(self) -> State:
        """How far its training is; asked for anew each time, since a lack of memory begins it again."""
        return self.group.engine.states[self.place]


class Trainer(Networks):
    """Trains the trials of one study, one cohort at a time."""

    @property
    def environment(self) -> dict[str, str]:
        """Under what this process trains; see `studies.provenance`."""
        capability = torch.backends.cpu.get_cpu_capability()
        return environment(
            threads=torch.get_num_threads(),
            device=self.device_name,
            capability=capability,
            decays_sgd=decays_sgd(self._spec),
        )

    def check_objectives(self) -> None:
        """Whether every objective can be measured on val, before anything is trained.

        Raises:
            UserError: One cannot: R2 of a single row, say, or ROC-AUC of a single class; with folds in any of them.
        """
        data = self._data
        linear = build_model(ModelConfig(self._n_features, self._n_outputs, ()), 0, device=self.device)
        vals = [fold.val.to(self.device) for fold in self._folds] or [torch.arange(len(data.x_val), device=self.device)]
        measured = [evaluate(linear, data.task, data.x_val[rows], data.y_val[rows]) for rows in vals]
        where, which, instead = "val", "it", "a larger data.val_fraction"
        if self._folds:
            where, which, instead = "val of each fold", "one", "fewer folds"
        on_folds = (*self.measured_names, "n_parameters")
        for objective in self._objectives:
            if self._folds and objective.metric not in on_folds:
                raise UserError(f"with folds an objective must be one of {', '.join(on_folds)}; got {objective.metric}")
            for own, rows in zip(measured, vals, strict=True):
                if not math.isfinite(own.get(objective.metric, 0.0)):
                    raise UserError(
                        f"{objective.metric} must be measurable on {where}, and is not: {which} has {len(rows)} rows; "
                        f"choose another objective or {instead}"
                    )

    def train(
        self,
        suggestions: Sequence[Suggestion],
        cohort: int,
        earlier: Sequence[TrialRecord],
        deadline: float | None,
        again: Sequence[TrialRecord] = (),
    ) -> Iterator[EpochDone | TrialRecord]:
        """Train a cohort; yields every epoch as it ends, then the record of every trial.

        Args:
            suggestions: The cohort, in order of number.
            cohort: Its id.
            earlier: Trials finished before it, for a pruner that compares with them.
            deadline: `time.monotonic()` at which training ends wherever it is. Trials that it cuts are PRUNED; those
                that have no epoch yet get no record.
            again: What was recorded of trials of the cohort that are trained again. A pruner does not judge them anew:
                which trials it compared them with, that other workers trained at the time, nobody can find again.
        """
        reset_peak_memory(self.device)
        groups, trials = self._start(suggestions, () if self._spec.search.pruner is None else again)
        with closing(self._climb(groups, suggestions, trials, earlier, self._spec.training.epochs)) as events:
            for event in events:
                yield event
                if deadline is not None and time.monotonic() >= deadline:
                    break
        for suggestion in suggestions:
            trial = trials[suggestion.number]
            if trial.state.curve or trial.state.divergence is not None:
                yield self._record(trial, cohort)

    def retrain_network(self, record: TrialRecord, cohort: Sequence[TrialRecord]) -> Network:
        """Train a recorded trial again as it was trained: with its cohort, so that every bit comes out again.

        Args:
            record: With its curve.
            cohort: All finished trials of its cohort; each stops where its record says.
        """
        suggestions = [t.suggestion for t in cohort]
        groups, trials = self._start(suggestions, cohort)
        own = trials[record.number]
        for _ in self._climb(groups, suggestions, trials, (), len(record.curve)):
            pass
        model = self._network(own.suggestion, self._member(own.suggestion), own.state)
        config = self._model_config(record.hyperparameters)
        best = own.state.best
        return Network(model, config, tuple(map(_epoch_record, own.state.curve)), None if best is None else best.epoch)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which trials are compared; none where no trial is stopped early."""
        ladder = self._spec.ladder
        if ladder is None:
            return ()
        return halving.rungs(ladder.first_rung, ladder.reduction_factor, self._spec.training.epochs)

    def _start(
        self, suggestions: Sequence[Suggestion], again: Sequence[TrialRecord]
    ) -> tuple[list[Group], dict[int, _Trial]]:
        """Groups of the suggestions, and each trial by its number, with its record if it is one of `again`."""
        groups = self._groups([self._member(s) for s in suggestions], suggestions)
        now, records = time.time(), {t.number: t for t in again}
        return groups, {
            suggestions[i].number: _Trial(suggestions[i], group, place, now, record=records.get(suggestions[i].number))
            for group in groups
            for place, i in enumerate(group.indices)
        }

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
        recorded = {n: t.record for n, t in living.items() if t.record is not None}
        pruned = (pruned - recorded.keys()) | {n for n, record in recorded.items() if _stopped_at(record) == rung}
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
            samples_per_s=n_epochs * self._n_rows / state.train_s,
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
            return FAIL, None, f"{_DIVERGED} in epoch {state.divergence.epoch}: {state.divergence.reason}"
        if state.best is None:
            return FAIL, None, f"{self._objectives[0].metric} on val was not finite in any epoch"
        if state.is_finished and trial.stop_reason is None:
            return COMPLETE, self._values(trial), None
        if trial.stop_reason is None:
            trial.rungs[len(state.curve)] = state.objective_value(state.best)
        value = trial.rungs[max(trial.rungs)] if len(self._objectives) == 1 else None
        return PRUNED, None if value is None else (value,), trial.stop_reason or CUT

    def _values(self, trial: _Trial) -> tuple[float, ...]:
        """The objectives at the best epoch; those that the curve does not hold are measured with its weights.

        With folds there are no such weights: a network that was trained on all their rows knows val by heart.
        """
        assert trial.state.best is not None
        values = [trial.state.objective_value(trial.state.best)]
        measured: dict[str, float] = {}
        for objective in self._objectives[1:]:
            if objective.metric == "n_parameters":
                values.append(float(self.count_parameters(trial.suggestion.hyperparameters)))
                continue
            if not measured and self.has_folds:
                measured = self.measured_on_folds(trial.state.best)
            elif not measured:
                model = self._network(trial.suggestion, self._member(trial.suggestion), trial.state)
                measured = self.measure(model, trial.suggestion.hyperparameters, "val")
            values.append(measured[objective.metric])
        return tuple(values)


def _stopped_at(record: TrialRecord) -> int | None:
    """The rung at which a recorded trial was pruned; None where it was not, a deadline's cut included."""
    reason = record.reason or ""
    if not record.rungs or reason == CUT or reason.startswith(_DIVERGED):
        return None
    last = max(record.rungs)
    # One that is pruned before it had any value has failed.
    is_pruned = record.state == PRUNED or (record.state == FAIL and math.isnan(record.rungs[last]))
    return last if is_pruned else None


def _epoch_record(epoch: Epoch) -> EpochRecord:
    return EpochRecord(
        epoch.epoch, epoch.train_loss, epoch.val_loss, epoch.val_metric, epoch.learning_rate, epoch.finished_at
    )
