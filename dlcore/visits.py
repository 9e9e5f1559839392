"""Which rows the members of a stack visit: in which order on train, and which ones of val.

Mostly all members see the same rows in the same order, and a batch is there once for all of them. Members with an order
or rows of their own (`Member.order_seed`, `Member.rows`: finalists on fresh seeds, folds of a cross-validation) get a
batch each, gathered from the one table that all share: no member has a copy of its rows.

The members of a stack have equal numbers of rows; `dlcore.packing` sees to that. So each step has one batch size, and
each member has as many steps, with as many rows in the last, as it has alone. Masks over unequal rows would cost every
loss a product, and a member with a step fewer would need its whole update masked; folds differ by a row or so, which
makes two stacks of them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dlcore.packing import Member, evaluation_chunk
from dlcore.rows import Rows, TensorData
from dlcore.seeding import batch_order

Shape = tuple[int, ...]
"""(B, F), or (P, B, F) where each member has a batch of its own."""
Drawn = dict[tuple[int, Rows | None], Tensor]
"""Orders of one epoch, by seed and rows: each (n,), on the device. Keep one for all stacks: each is drawn once then."""


class Visits:
    """Rows of one stack."""

    def __init__(self, members: Sequence[Member], data: TensorData) -> None:
        """Nothing is allocated yet.

        Args:
            members: In the order of the stack, of one `packing.row_kind`.
            data: The table.
        """
        self._data = data
        self._rows = [member.rows for member in members]
        self._seeds = [member.order_seed for member in members]
        first = self._rows[0]
        self.n_train = len(data.x_train) if first is None else len(first.train)
        """Rows of train that each member sees."""
        self.n_val = len(data.x_val) if first is None else len(first.val)
        """Rows of val that each member sees."""
        is_common = len(set(self._rows)) == 1
        is_augmented = members[0].train_config.is_augmented
        self.train_copies = 1 if is_common and len(set(self._seeds)) == 1 and not is_augmented else len(members)
        """Batches that a step takes: one for all members, or one each. Augmented members change theirs."""
        self.val_copies = 1 if is_common else len(members)
        """Likewise on val."""

    def train_shapes(self, batch_size: int) -> list[Shape]:
        """Shapes of x in a step: of whole batches, and of the last if it is smaller."""
        return self._shapes(self.n_train, batch_size, self.train_copies)

    def val_shapes(self, batch_size: int) -> list[Shape]:
        """Shapes of x in a measurement, likewise."""
        return self._shapes(self.n_val, evaluation_chunk(self.n_val, batch_size), self.val_copies)

    def _shapes(self, n_rows: int, size: int, copies: int) -> list[Shape]:
        sizes = [min(size, n_rows), *([n_rows % size] if size < n_rows and n_rows % size else [])]
        n_features = self._data.x_train.shape[1]
        return [(n, n_features) if copies == 1 else (copies, n, n_features) for n in sizes]

    def order(self, order_seed: int, epoch: int, batch_size: int, drawn: Drawn) -> Tensor:
        """Row numbers of an epoch, on the device, (train_copies * n_train,): batch by batch, in each member by member.

        Args:
            order_seed: Of members without one of their own.
            epoch: Counted from 1.
            batch_size: Of each member.
            drawn: What other stacks drew for this epoch; learns here.
        """
        keys = [
            (order_seed if seed is None else seed, rows)
            for seed, rows in zip(self._seeds[: self.train_copies], self._rows, strict=False)
        ]
        for key in keys:
            if key not in drawn:
                drawn[key] = self._drawn(*key, epoch)
        if self.train_copies == 1:
            return drawn[keys[0]]
        orders = torch.stack([drawn[key] for key in keys])
        return torch.cat([batch.reshape(-1) for batch in torch.split(orders, batch_size, 1)])

    def _drawn(self, seed: int, rows: Rows | None, epoch: int) -> Tensor:
        order = batch_order(seed, epoch, self.n_train)
        return (order if rows is None else rows.train[order]).to(self._data.x_train.device)

    def val_chunks(self, size: int) -> list[Tensor] | None:
        """Row numbers of val, in chunks of at most `size` rows of each member; None where it is all rows of the table.

        Each is (val_copies * rows,), on the device, member by member.
        """
        index = self._val_index()
        return None if index is None else [chunk.reshape(-1) for chunk in torch.split(index, size, 1)]

    def y_train(self) -> list[Tensor]:
        """Targets of each member's rows of train; one tensor for all that see the same."""
        y = self._data.y_train
        known = {None: y} | {rows: y[rows.train.to(y.device)] for rows in set(self._rows) if rows is not None}
        return [known[rows] for rows in self._rows]

    def y_val(self) -> Tensor:
        """Targets on val: of the table's rows where it is all of them, else with members in front where they differ."""
        index = self._val_index()
        if index is None:
            return self._data.y_val
        return self._data.y_val[index[0] if self.val_copies == 1 else index]

    def _val_index(self) -> Tensor | None:
        """(val_copies, n_val), on the device."""
        rows = [own.val for own in self._rows[: self.val_copies] if own is not None]
        return torch.stack(rows).to(self._data.x_val.device) if rows else None
