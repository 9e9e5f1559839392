"""A cohort's suggestions become records here: the one door between studies and dlcore's training.

Below this file there are tensors, above it numbers, strings and paths. The trials of a cohort train from rung to rung;
at each rung `halving` or `pruner` says who goes on. What a trial's network computes depends on the spec, its number
and its hyperparameters alone, never on its neighbours.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from dlcore.config import ModelConfig, TrainConfig
from dlcore.data import DataSplits, to_tensors
from dlcore.device import choose_device, device_name, peak_memory_bytes, reset_peak_memory
from dlcore.evaluation import evaluate
from dlcore.models import count_parameters
from dlcore.seeding import derive_seed
from dlcore.training import Epoch, Training
from studies import halving, pruner
from studies.hyperparameters import choices
from studies.provenance import environment
from studies.records import COMPLETE, FAIL, PRUNED, EpochDone, EpochRecord, Objective, Suggestion, TrialRecord, Value
from studies.space import model_config, train_config
from studies.spec import StudySpec

_NARROW = 256
"""Units of a layer up to which one thread is as fast as several."""


@dataclass(slots=True)
class _Member:
    """One trial in training."""

    suggestion: Suggestion
    training: Training
    started_at: float
    rungs: dict[int, float]
    stop_reason: str | None = None
    """Why it was pruned; None while it goes on."""

    @property
    def is_active(self) -> bool:
        return self.stop_reason is None and not self.training.is_finished


class Trainer:
    """Trains the trials of one study, one cohort at a time, on data that stays on the device."""

    def __init__(self, spec: StudySpec, objectives: Sequence[Objective], splits: DataSplits) -> None:
        """Put the data on the device.

        Raises:
            dlcore.errors.DeviceError: The spec's device is not there.
        """
        self._spec = spec
        self._objectives = tuple(objectives)
        self._n_features, self._n_outputs = splits.n_features, splits.n_outputs
        self.device = choose_device(spec.training.device)
        torch.set_num_threads(_threads(spec))
        self._data = to_tensors(splits, self.device)

    @property
    def device_name(self) -> str:
        """Name of the device as its vendor gives it."""
        return device_name(self.device)

    @property
    def environment(self) -> dict[str, str]:
        """Under what this process trains; see `studies.provenance`."""
        return environment(threads=torch.get_num_threads(), device=self.device_name)

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
        members = {s.number: _Member(s, self._training(s), time.time(), {}) for s in suggestions}
        is_late = False
        for rung in (*self.rungs, self._spec.training.epochs):
            for member in members.values():
                for epoch in self._advance(member, rung):
                    yield EpochDone(member.suggestion.number, epoch)
                    is_late = deadline is not None and time.monotonic() >= deadline
                    if is_late:
                        break
                if is_late:
                    break
            if is_late:
                break
            if rung < self._spec.training.epochs:
                self._judge(members, rung, earlier)
        for member in members.values():
            if member.training.curve or member.training.divergence is not None:
                yield self._record(member, cohort)

    def retrain(self, record: TrialRecord, *, is_moved: bool = False) -> Training:
        """Train a recorded trial again, alone, with the reference loop, for as many epochs as it had.

        Args:
            record: With its curve.
            is_moved: Start from initial weights that are one unit in the last place larger: how far the curve goes
                astray then is what rounding alone can do to it.

        Returns:
            The training: its curve, its model with the weights of the best epoch in `best_weights`.
        """
        training = self._training(Suggestion(record.number, record.hyperparameters, record.searched))
        if is_moved:
            with torch.no_grad():
                for weights in training.model.parameters():
                    weights.copy_(torch.nextafter(weights, torch.full_like(weights, torch.inf)))
        training.advance(len(record.curve))
        return training

    def _model_config(self, hyperparameters: Mapping[str, Value]) -> ModelConfig:
        return model_config(hyperparameters, self._n_features, self._n_outputs)

    def _train_config(self, hyperparameters: Mapping[str, Value]) -> TrainConfig:
        return train_config(self._spec, hyperparameters, self._objectives[0].metric)

    def _training(self, suggestion: Suggestion) -> Training:
        return Training(
            self._model_config(suggestion.hyperparameters),
            self._train_config(suggestion.hyperparameters),
            self._data,
            seed=derive_seed(self._spec.seed, "trial", suggestion.number),
            order_seed=derive_seed(self._spec.seed, "order"),
        )

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which trials are compared; none where no trial is stopped early."""
        ladder = self._spec.ladder
        if ladder is None:
            return ()
        return halving.rungs(ladder.first_rung, ladder.reduction_factor, self._spec.training.epochs)

    def _advance(self, member: _Member, rung: int) -> Iterator[EpochRecord]:
        while member.is_active and len(member.training.curve) < rung:
            for epoch in member.training.advance(len(member.training.curve) + 1):
                yield _epoch_record(epoch)

    def _judge(self, members: Mapping[int, _Member], rung: int, earlier: Sequence[TrialRecord]) -> None:
        """Report every living member's best value at a rung, then prune."""
        living = {n: m for n, m in members.items() if m.stop_reason is None and m.training.divergence is None}
        for member in living.values():
            best = member.training.best
            member.rungs[rung] = float("nan") if best is None else member.training.objective_value(best)
        if self._spec.search.pruner is None:
            values = {n: m.rungs[rung] for n, m in living.items()}
            ladder = self._spec.ladder
            assert ladder is not None  # there are no rungs without one
            kept = halving.promoted(values, ladder.reduction_factor, self._objectives[0].direction)
            pruned = set(values) - kept
            reason = f"not among the best {len(kept)} of {len(values)} at epoch {rung}"
        else:
            live = {n: m.rungs for n, m in living.items()}
            pruned = pruner.prune(pruner.build_pruner(self._spec), self._objectives[0], earlier, live, rung)
            reason = f"pruned by {self._spec.search.pruner} at epoch {rung}"
        for number in pruned:
            living[number].stop_reason = reason

    def _record(self, member: _Member, cohort: int) -> TrialRecord:
        training, suggestion = member.training, member.suggestion
        state, values, reason = self._verdict(member)
        curve = tuple(_epoch_record(e) for e in training.curve)
        best = training.best
        n_epochs = len(curve) + (training.divergence is not None)
        return TrialRecord(
            number=suggestion.number,
            state=state,
            hyperparameters=suggestion.hyperparameters,
            searched=suggestion.searched,
            cohort=cohort,
            n_parameters=self.count_parameters(suggestion.hyperparameters),
            values=values,
            reason=reason,
            rungs=member.rungs,
            curve=curve,
            best_epoch=None if best is None else best.epoch,
            best_val_loss=None if best is None else best.val_loss,
            started_at=member.started_at,
            finished_at=curve[-1].finished_at if curve else time.time(),
            duration_s=training.train_s,
            samples_per_s=n_epochs * len(self._data.x_train) / training.train_s,
            device=self.device_name,
            peak_memory_bytes=peak_memory_bytes(self.device),
            system_attrs=suggestion.system_attrs,
        )

    def _verdict(self, member: _Member) -> tuple[str, tuple[float, ...] | None, str | None]:
        """State, values and reason of a member whose training is over."""
        training = member.training
        if training.divergence is not None:
            return FAIL, None, f"diverged in epoch {training.divergence.epoch}: {training.divergence.reason}"
        if training.best is None:
            return FAIL, None, f"{self._objectives[0].metric} on val was not finite in any epoch"
        if training.is_finished and member.stop_reason is None:
            return COMPLETE, self._values(member), None
        if member.stop_reason is None:
            member.rungs[len(training.curve)] = training.objective_value(training.best)
        value = member.rungs[max(member.rungs)] if len(self._objectives) == 1 else None
        return PRUNED, None if value is None else (value,), member.stop_reason or "the time budget was spent"

    def _values(self, member: _Member) -> tuple[float, ...]:
        """The objectives at the best epoch; those that the curve does not hold are measured with its weights."""
        training = member.training
        assert training.best is not None
        values = [training.objective_value(training.best)]
        measured: dict[str, float] = {}
        for objective in self._objectives[1:]:
            if objective.metric == "n_parameters":
                values.append(float(self.count_parameters(member.suggestion.hyperparameters)))
                continue
            if not measured:
                training.model.load_state_dict(training.best_weights)
                measured = evaluate(training.model, self._data.task, self._data.x_val, self._data.y_val)
            values.append(measured[objective.metric])
        return tuple(values)


def _threads(spec: StudySpec) -> int:
    """CPU threads of one operation: a second one costs narrow layers more than it brings (measured)."""
    widths = choices(spec.search_space.get("width", spec.fixed.get("width", 0)))
    return 1 if max(map(int, widths or ())) <= _NARROW else os.cpu_count() or 1


def _epoch_record(epoch: Epoch) -> EpochRecord:
    return EpochRecord(
        epoch.epoch, epoch.train_loss, epoch.val_loss, epoch.val_metric, epoch.learning_rate, epoch.finished_at
    )
