"""The networks of one study: made, trained alone or on fresh seeds, and measured, on data that stay on the device.

What a network computes depends on the spec, its trial's number and its hyperparameters alone, never on its neighbours.
With folds its curve is the mean over them, and the network itself is trained on all their rows; see `dlcore.folds`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from dlcore.config import ModelConfig, TrainConfig, metrics_of
from dlcore.curve import Epoch
from dlcore.data import DataSplits, split_tensors, to_tensors
from dlcore.device import choose_device, device_name
from dlcore.engines import Engine, Group, Limit, Loop, State, form_groups, prepare
from dlcore.ensemble import Part
from dlcore.evaluation import evaluate, evaluate_outputs, forward_rows, together
from dlcore.folds import Folded, development_rows, fold_rows, form_folded_groups, of_folds, refit
from dlcore.greedy import choose
from dlcore.learnable import Held, Sampled, check_sample, check_val
from dlcore.models import build_model, count_parameters, nudge
from dlcore.packing import Member, step_flops
from dlcore.precision import check_precision
from dlcore.rate_range import RateRange, measure_rates
from dlcore.resampling import FEWEST_GROUPS, compare
from dlcore.rivals import train_rivals
from dlcore.rows import Rows, TensorData
from dlcore.seeding import derive_seed
from dlcore.tasks import curve_metric
from dlcore.transfer import Transfer
from studies.counting import answered_classes, answered_values
from studies.finals import leads, over_rows
from studies.hyperparameters import choices
from studies.records import (
    Answers,
    EpochRecord,
    Interval,
    Measured,
    Objective,
    Rival,
    Suggestion,
    TrialRecord,
    Value,
)
from studies.space import model_config, preprocess, train_config
from studies.spec import StudySpec

_NARROW = 256
"""Units of a layer up to which one thread is as fast as several."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """A training on a fresh seed."""

    val: Mapping[str, float] | None
    """How it did on val at its best epoch; None where it diverged."""
    network: Callable[[], nn.Sequential] | None
    """Gives the network; with folds it is trained then."""


Candidate = tuple[nn.Module, Mapping[str, Value]]
"""A network and its hyperparameters, which say how it sees the rows."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read on test, by all on the same rows."""

    winner: tuple[Measured, ...] = ()
    """Of each of the winner's networks."""
    over_rows: Mapping[str, Interval] = field(default_factory=dict)
    """See `studies.records.Final.over_rows`."""
    n_groups: int = 0
    """See `studies.records.Final.n_groups`."""
    ensemble: Rival | None = None
    rivals: tuple[Rival, ...] = ()


class Networks:
    """What the trials of one study are made of."""

    def __init__(
        self,
        spec: StudySpec,
        objectives: Sequence[Objective],
        splits: DataSplits,
        transfer: Transfer | None = None,
    ) -> None:
        """Put the data on the device.

        Args:
            spec: Of the study, with what its source decides.
            objectives: Of the study.
            splits: The rows, as the source knows them.
            transfer: The source, for these rows; None where no trial starts from one.

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
        self.splits, self.transfer = splits, transfer
        self._backbone = None if transfer is None else transfer.backbone
        self._prepared = {name: splits.prepared(name) for name in spec.scalings}
        """Values of the hyperparameter `preprocess` -> the splits as its trials see them."""
        self._folds: tuple[Rows, ...] = ()
        """With k-fold: the rows of each fold, of a table that has all rows but test once for each fold."""
        self._tables: dict[str, TensorData] = {}
        for name, prepared in self._prepared.items():
            if splits.folds:
                self._tables[name], self._folds = fold_rows(prepared, self.device)
            else:
                self._tables[name] = to_tensors(prepared, self.device)
        self._data = self._tables[spec.scalings[0]]
        self._order_seed = derive_seed(spec.seed, "order")
        self._limit = Limit()
        self._last_fresh: tuple[object, list[list[Fresh]]] | None = None
        """The last fresh trainings, by what was asked for: an ensemble of them may be exported."""
        if spec.training.engine == "population":
            prepare(self.device)

    @property
    def device_name(self) -> str:
        """Name of the device as its vendor gives it."""
        return device_name(self.device)

    @property
    def epochs(self) -> int:
        """The most epochs of a training."""
        return self._spec.training.epochs

    @property
    def measured_names(self) -> tuple[str, ...]:
        """What is known of a network on val."""
        if self._folds:
            return ("loss", curve_metric(self._data.task.name, self._objectives[0].metric))
        return ("loss", *metrics_of(self.splits.task))

    def splits_of(self, hyperparameters: Mapping[str, Value]) -> DataSplits:
        """The data as a trial with these hyperparameters sees them."""
        return self._prepared[preprocess(hyperparameters)]

    def count_parameters(self, hyperparameters: Mapping[str, Value]) -> int:
        """Weights and biases of the network that these hyperparameters describe; nothing is built."""
        return count_parameters(self._model_config(hyperparameters))

    def epoch_flops(self, hyperparameters: Mapping[str, Value]) -> float:
        """What an epoch of such a network takes, in arithmetic of the same time."""
        size = train_config(self._spec, hyperparameters, self._objectives[0].metric).batch_size
        return step_flops(self._model_config(hyperparameters), size) * math.ceil(self._n_rows / size)

    def retrain(self, record: TrialRecord, *, nudged: int | None = None) -> tuple[Epoch, ...]:
        """Train a recorded trial again, alone, with the reference loop, for as many epochs as it had.

        Args:
            record: With its curve.
            nudged: Start from initial weights that are moved by one unit in the last place, this way of many: how far
                the curve goes astray then is what rounding alone can do to it.

        Returns:
            Its curve.
        """
        member = self._member(record.suggestion)
        table = self._tables[preprocess(record.hyperparameters)]
        loop = Loop(of_folds([member], self._folds), table, order_seed=self._order_seed)
        engine: Engine = Folded([member], loop) if self._folds else loop
        if nudged is not None:
            for training in loop.states:
                nudge(training.model, nudged)
        return tuple(epoch for _, epoch in engine.advance(len(record.curve)))

    def measure_rates(self, hyperparameters: Mapping[str, Value]) -> RateRange:
        """The learning-rate range test of a network of these hyperparameters; with folds on the rows of the first."""
        return measure_rates(*self._to_learn(hyperparameters), backbone=self._backbone)

    def check_sample(self, hyperparameters: Mapping[str, Value]) -> Sampled:
        """Whether a network of these hyperparameters can learn a few rows by heart."""
        return check_sample(*self._to_learn(hyperparameters), backbone=self._backbone)

    def check_val(self, hyperparameters: Mapping[str, Value]) -> Held:
        """Whether what it learns of train holds on val; with folds of the first."""
        return check_val(*self._to_learn(hyperparameters), backbone=self._backbone)

    def _to_learn(
        self, hyperparameters: Mapping[str, Value]
    ) -> tuple[ModelConfig, TrainConfig, TensorData, tuple[int, int]]:
        own = dict(hyperparameters)
        table = self._tables[preprocess(own)]
        data = self._folds[0].of(table) if self._folds else table
        config = train_config(self._spec, own, self._objectives[0].metric)
        return self._model_config(own), config, data, (derive_seed(self._spec.seed, "alone"), self._order_seed)

    def train_fresh(
        self, suggestions: Sequence[Suggestion], n_seeds: int, watch: Callable[[int], None]
    ) -> list[list["Fresh"]]:
        """Train trials to their end on seeds that nobody chose by, all together, each with an order of rows of its own.

        Args:
            suggestions: Of the trials.
            n_seeds: Trainings of each.
            watch: Is told each epoch that a network finished.

        Returns:
            Of each trial what its trainings gave.
        """
        asked = ([(s.number, dict(s.hyperparameters)) for s in suggestions], n_seeds)
        if self._last_fresh is not None and self._last_fresh[0] == asked:
            return self._last_fresh[1]
        own = [s for s in suggestions for _ in range(n_seeds)]
        members = [self._fresh_member(s, k) for s in suggestions for k in range(n_seeds)]
        found = [Fresh(None, None)] * len(members)
        for group in self._groups(members, own):
            for _, epoch in group.engine.advance(self._spec.training.epochs):
                watch(epoch.epoch)
            for place, state in zip(group.indices, group.engine.states, strict=True):
                if state.divergence is None and state.best is not None:
                    found[place] = self._fresh(own[place], members[place], state)
        by_trial = [found[i : i + n_seeds] for i in range(0, len(members), n_seeds)]
        self._last_fresh = (asked, by_trial)
        return by_trial

    def _fresh(self, suggestion: Suggestion, member: Member, state: State) -> "Fresh":
        if self._folds:
            return Fresh(self.measured_on_folds(state.best), partial(self._network, suggestion, member, state))
        network = self._network(suggestion, member, state)
        return Fresh(self.measure(network, suggestion.hyperparameters, "val"), lambda: network)

    def measured_on_folds(self, best: Epoch | EpochRecord | None) -> dict[str, float]:
        """What the folds say of a best epoch, their mean: the loss and the curve's metric; there are no others."""
        assert best is not None
        name = curve_metric(self._data.task.name, self._objectives[0].metric)
        return {"loss": best.val_loss, name: best.val_metric}

    @property
    def has_folds(self) -> bool:
        """Whether val is each row that is not test, in turn."""
        return bool(self._folds)

    def measure(self, model: nn.Module, hyperparameters: Mapping[str, Value], split: str) -> dict[str, float]:
        """Loss and all metrics of a network of these hyperparameters on "train", "val" or "test"; {} of no rows."""
        if not len(self.splits.split(split).x):
            return {}
        x, y = split_tensors(self.splits_of(hyperparameters), split, self.device, self._data.x_train.dtype)
        return evaluate(model, self._data.task, x, y)

    def answered(self, candidates: Sequence[Candidate], split: str) -> Answers:
        """What a network, or several together, answers on "train", "val" or "test", counted."""
        task, (outputs, _) = self._data.task, self._answers(candidates, split)
        predictions = task.predict(outputs[0] if len(outputs) == 1 else together(task, outputs)).cpu().double().numpy()
        truth = self.splits.split(split).y
        if task.name == "regression":
            return answered_values(split, self.splits.target_names, truth, predictions)
        return answered_classes(split, tuple(map(str, self.splits.class_labels)), truth, predictions)

    def read_test(self, won: Sequence[Candidate], ensemble: Sequence[Candidate], *, has_rivals: bool) -> Reading:
        """Ask all for their answers on test, once, and measure those, on the rows as they are and on draws of them.

        Args:
            won: The winner's networks, one per fresh seed; none where there were no finals.
            ensemble: Networks that answer together; none where that is not asked for.
            has_rivals: Whether scikit-learn's models are trained and asked too.
        """
        task, (answers, y) = self._data.task, self._answers(won, "test")
        winner = tuple(evaluate_outputs(task, outputs, y) for outputs in answers)
        others: list[tuple[Rival, Tensor]] = [self._ensemble(ensemble)] if ensemble else []
        if has_rivals:
            trained = train_rivals(self.splits, self._spec.seed)
            others += [(Rival(r.name, r.metrics["val"], r.metrics["test"], r.remark), r.on_test) for r in trained]
        rivals, spreads = [rival for rival, _ in others], {}
        groups, n_groups = self._groups_of_test()
        if won and (groups is None or n_groups >= FEWEST_GROUPS):
            alone, beside = compare(task, answers, [outputs for _, outputs in others], y, self._spec.seed, groups)
            spreads = over_rows(winner, alone)
            rivals = [replace(r, lead=leads(winner, r, own)) for r, own in zip(rivals, beside, strict=True)]
        return Reading(winner, spreads, n_groups, rivals.pop(0) if ensemble else None, tuple(rivals))

    def _groups_of_test(self) -> tuple[Tensor | None, int]:
        """The group of each row of test, counted from 0 there, and how many there are; None and 0 without groups."""
        if (own := self.splits.test.groups) is None:
            return None, 0
        _, here = np.unique(own, return_inverse=True)
        return torch.from_numpy(here), int(here.max()) + 1

    def measure_together(self, members: Sequence[Candidate], split: str) -> dict[str, float]:
        """Loss and all metrics of networks that answer together, on "val" or "test"."""
        answers, y = self._answers(members, split)
        return evaluate_outputs(self._data.task, together(self._data.task, answers), y)

    def choose(self, every: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Those that answer best together on val, each as often as it counts; see `dlcore.greedy`."""
        outputs, y = self._answers(every, "val")
        counts = choose(self._data.task, outputs, y, self._objectives[0].metric)
        return tuple(own for own, n in zip(every, counts, strict=True) for _ in range(n))

    def part(self, candidate: Candidate) -> Part:
        """A network as a part of what is exported."""
        model, own = candidate
        assert isinstance(model, nn.Sequential)
        return Part(model, self._model_config(own), self.splits_of(own).preprocessor)

    def _ensemble(self, members: Sequence[Candidate]) -> tuple[Rival, Tensor]:
        """An ensemble, and its outputs on test."""
        task = self._data.task
        different = {id(model): own for model, own in members}
        n_parameters = sum(self.count_parameters(own) for own in different.values())
        votes = "" if len(different) == len(members) else f" by {len(members)} votes, chosen one by one on val"
        remark = f"the mean of {len(different)} networks with {n_parameters:,} parameters{votes}"
        if len(different) == 1:
            remark = f"one network with {n_parameters:,} parameters: alone it is better on val than with others"
        answers = {split: self._answers(members, split) for split in ("val", "test")}
        outputs = {split: together(task, own) for split, (own, _) in answers.items()}
        measured = {split: evaluate_outputs(task, outputs[split], y) for split, (_, y) in answers.items()}
        return Rival("ensemble", measured["val"], measured["test"], remark), outputs["test"]

    def _answers(self, candidates: Sequence[Candidate], split: str) -> tuple[list[Tensor], Tensor]:
        """Outputs (N, C) of each network for the rows of a split, and their targets as the loss wants them."""
        dtype = self._data.x_train.dtype
        rows = {name: split_tensors(p, split, self.device, dtype) for name, p in self._prepared.items()}
        y = rows[self._spec.scalings[0]][1]
        return [forward_rows(model, rows[preprocess(own)][0]) for model, own in candidates], y

    def _network(self, suggestion: Suggestion, member: Member, state: State) -> nn.Sequential:
        """The network of a state's best epoch; with folds, trained anew on all their rows for as many epochs."""
        if self._folds:
            assert state.best is not None
            table = development_rows(self.splits_of(suggestion.hyperparameters), self.device)
            return refit(member, table, state.best.epoch, order_seed=self._order_seed)
        dtype = self._data.x_train.dtype
        model = build_model(member.model_config, member.seed, device=self.device, dtype=dtype, backbone=self._backbone)
        model.load_state_dict(dict(state.best_weights))
        return model

    def _model_config(self, hyperparameters: Mapping[str, Value]) -> ModelConfig:
        return model_config(hyperparameters, self._n_features, self._n_outputs)

    def _member(self, suggestion: Suggestion) -> Member:
        return Member(
            self._model_config(suggestion.hyperparameters),
            train_config(self._spec, suggestion.hyperparameters, self._objectives[0].metric),
            derive_seed(self._spec.seed, "trial", suggestion.number),
            backbone=self._backbone,
        )

    def _fresh_member(self, suggestion: Suggestion, index: int) -> Member:
        """The same with other initial weights, and with the rows in another order: one order would make them alike."""
        names = ("final", suggestion.number, index)
        order_seed = derive_seed(self._spec.seed, *names, "order")
        return replace(self._member(suggestion), seed=derive_seed(self._spec.seed, *names), order_seed=order_seed)

    def _groups(self, members: Sequence[Member], suggestions: Sequence[Suggestion]) -> list[Group]:
        """Groups of members, each of one suggestion; those that see other numbers are no population."""
        engine, seed = self._spec.training.engine, self._order_seed
        found: list[Group] = []
        scalings = [preprocess(s.hyperparameters) for s in suggestions]
        for scaling in dict.fromkeys(scalings):
            places = [i for i, own in enumerate(scalings) if own == scaling]
            mates, table = [members[i] for i in places], self._tables[scaling]
            if self._folds:
                groups = form_folded_groups(
                    mates, table, self._folds, order_seed=seed, engine=engine, limit=self._limit
                )
            else:
                groups = form_groups(mates, table, order_seed=seed, engine=engine, limit=self._limit)
            found += [replace(group, indices=tuple(places[i] for i in group.indices)) for group in groups]
        return found

    @property
    def _n_rows(self) -> int:
        """Rows that an epoch of a trial sees."""
        return sum(len(fold.train) for fold in self._folds) or len(self._data.x_train)


def _is_narrow(spec: StudySpec) -> bool:
    """Whether a second thread would cost the loop's layers more than it brings (measured)."""
    widths = choices(spec.search_space.get("width", spec.fixed.get("width", 0)))
    return max(map(int, widths or ())) <= _NARROW
