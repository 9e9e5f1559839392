"""k-fold: a network trained once on each fold, and judged by the mean of the curves.

The folds of all networks are members of one engine, so they train together. What a network's curve says of an epoch is
the mean over its folds after that epoch, and all that is decided by a curve (the best epoch, rungs, patience) is
decided by the mean: the folds of a network stop together. It diverged as soon as one of its folds did.

Folds of one network begin with the same initial weights, drop the same units and draw their orders from one seed: what
differs between them is the rows.

There is no network of the best epoch here, but one for each fold. Who wants one trains it on all rows, for as many
epochs as the best one counts; see `refit`.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from dlcore.columns import joined
from dlcore.config import TrainConfig
from dlcore.curve import Divergence, Epoch, is_better, is_out_of_patience, objective_value
from dlcore.data import DataSplits, split_tensors
from dlcore.engines import Engine, Group, Limit, State, form_groups
from dlcore.packing import Member
from dlcore.rows import Rows, TensorData
from dlcore.training import Training


def development_rows(splits: DataSplits, device: torch.device) -> TensorData:
    """All rows that are not test, as both train and val of one table, preprocessed as an export will do it."""
    parts = [split_tensors(splits, name, device) for name in ("train", "val")]
    x, y = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return TensorData(splits.to_task(), x, y, x, y)


def fold_rows(splits: DataSplits, device: torch.device) -> tuple[TensorData, tuple[Rows, ...]]:
    """The rows of `development_rows` once for each fold, one below the other, and which of them each fold sees.

    Each fold's are preprocessed by what its own training rows say, so that nothing of its val leaks into them: medians,
    spreads, and means of targets differ from fold to fold. The inputs mean the same in all.
    """
    whole = development_rows(splits, device)
    features = joined(splits.train.x, splits.val.x)
    targets = np.concatenate([splits.train.y, splits.val.y])
    tables, folds = [], []
    for fold, (train, val) in enumerate(splits.folds):
        own = features.take(train)
        fitted = splits.preprocessor.refitted(own, targets[train], splits.preprocessing)
        encoded = fitted.transform(features)
        encoded[train] = fitted.transform_training(own, targets[train])
        tables.append(torch.from_numpy(encoded).to(whole.x_train.dtype).to(device))
        first = fold * len(features)
        folds.append(Rows(*(torch.from_numpy(first + rows).to(torch.int64) for rows in (train, val))))
    x, y = torch.cat(tables), torch.cat([whole.y_train] * len(tables))
    return TensorData(whole.task, x, y, x, y), tuple(folds)


class FoldedState:
    """One network under training on all folds; see `dlcore.engines.State`."""

    def __init__(self, config: TrainConfig) -> None:
        """Nothing is trained yet."""
        self._config = config
        self.curve: list[Epoch] = []
        self.best: Epoch | None = None
        self.best_weights: dict[str, Tensor] = {}
        """Always empty: there is a network for each fold."""
        self.divergence: Divergence | None = None
        self.train_s = 0.0
        self._stopped_early = False

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self._stopped_early or self.divergence is not None or len(self.curve) == self._config.epochs

    def objective_value(self, epoch: Epoch) -> float:
        """The objective at an epoch."""
        return objective_value(epoch, self._config.objective)

    def take(self, folds: Sequence[State]) -> Epoch | None:
        """Take the next epoch of all folds into the curve; None where there is none, since one diverged."""
        self.train_s = max(fold.train_s for fold in folds)
        self.divergence = next((f.divergence for f in folds if f.divergence is not None), None)
        if self.divergence is not None:
            return None
        points = [fold.curve[len(self.curve)] for fold in folds]
        point = replace(
            points[0],
            train_loss=_mean([p.train_loss for p in points]),
            val_loss=_mean([p.val_loss for p in points]),
            val_metric=_mean([p.val_metric for p in points]),
            finished_at=max(p.finished_at for p in points),
        )
        self.curve.append(point)
        if is_better(point, self.best, self._config.objective):
            self.best = point
        best_epoch = self.best.epoch if self.best else 0
        is_last = point.epoch == self._config.epochs
        self._stopped_early = not is_last and is_out_of_patience(point.epoch, best_epoch, self._config.patience)
        return point


class Folded:
    """Networks trained on folds, by an engine whose members are the folds; itself an `Engine`."""

    def __init__(self, members: Sequence[Member], engine: Engine) -> None:
        """Nothing is trained yet.

        Args:
            members: The networks.
            engine: Of `of_folds(members, folds)`.
        """
        self._engine = engine
        self._n_folds = len(engine.states) // len(members)
        self.states = tuple(FoldedState(m.train_config) for m in members)
        self._dropped: set[int] = set()

    def advance(self, to_epoch: int) -> Iterator[tuple[int, Epoch]]:
        """Train all that are neither finished nor dropped, to that epoch at most; see `dlcore.engines.Engine`."""
        while living := [i for i, s in enumerate(self.states) if self._goes_on(i, s, to_epoch)]:
            next_epoch = 1 + len(self.states[living[0]].curve)  # all that go on are equally far
            for _ in self._engine.advance(next_epoch):
                pass
            for index in living:
                state = self.states[index]
                own = [self._engine.states[place] for place in self._places(index)]
                if (point := state.take(own)) is not None:
                    yield index, point
                if state.is_finished:
                    self._engine.drop(self._places(index))

    def drop(self, indices: Collection[int]) -> None:
        """Train these networks no further."""
        self._dropped.update(indices)
        self._engine.drop([place for index in indices for place in self._places(index)])

    def _goes_on(self, index: int, state: FoldedState, to_epoch: int) -> bool:
        return index not in self._dropped and not state.is_finished and len(state.curve) < to_epoch

    def _places(self, index: int) -> range:
        return range(index * self._n_folds, (index + 1) * self._n_folds)


def of_folds(members: Sequence[Member], folds: Sequence[Rows]) -> list[Member]:
    """Each member once for each fold, none of which stops by itself; where there are no folds, the members."""
    if not folds:
        return list(members)
    return [
        replace(member, rows=rows, train_config=replace(member.train_config, patience=None))
        for member in members
        for rows in folds
    ]


def form_folded_groups(
    members: Sequence[Member],
    data: TensorData,
    folds: Sequence[Rows],
    *,
    order_seed: int,
    engine: str,
    limit: Limit | None = None,
) -> list[Group]:
    """Networks in groups, ready to train on all folds; see `dlcore.engines.form_groups`."""
    n, inner = len(folds), of_folds(members, folds)
    groups = form_groups(inner, data, order_seed=order_seed, engine=engine, limit=limit)
    found = []
    for group in groups:
        indices = tuple(place // n for place in group.indices[::n])  # the folds of a network are never parted
        found.append(Group(group.name, indices, Folded([members[i] for i in indices], group.engine)))
    return found


def refit(member: Member, data: TensorData, epochs: int, *, order_seed: int) -> nn.Sequential:
    """A network trained on all rows of `data`, as it stands after so many epochs of its schedule.

    Raises:
        dlcore.errors.ConfigError: The network does not fit the data.
    """
    config = replace(member.train_config, patience=None)
    seed = order_seed if member.order_seed is None else member.order_seed
    training = Training(member.model_config, config, data, seed=member.seed, order_seed=seed, backbone=member.backbone)
    training.advance(epochs)
    return training.model


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan
