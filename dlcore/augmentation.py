"""Rows made anew for each weight update: mixed with one another, then blurred by noise. Never those of val.

    mixup   x_i <- l x_i + (1 - l) x_j,  y_i likewise;  l from Beta(alpha, alpha), one for each batch, j a random order
            of its rows (Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, with the loss of its
            section 2: of classes, l times the loss against y_i and 1 - l times that against y_j)
    noise   x_i <- x_i + s e,  e normal with variance 1, anew for each row and input (Bishop, Training with Noise is
            Equivalent to Tikhonov Regularization, Neural Computation 7, 1995)

Inputs are standardised, so one s fits all of them. All is a function of the trial's seed and its step.

`Augmentation` does it for one network, `StackAugmentation` for the members of a stack, each with rows of its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dlcore.config import TrainConfig
from dlcore.criterion import Mix
from dlcore.packing import Member
from dlcore.seeding import mixing_partners, mixing_shares, normal_noise


class Augmentation:
    """What becomes of the batches of one network."""

    def __init__(self, config: TrainConfig, seed: int, steps_per_epoch: int, like: Tensor) -> None:
        """Nothing is drawn yet.

        Args:
            config: Says how much.
            seed: The trial's.
            steps_per_epoch: Weight updates of an epoch.
            like: A tensor of the device and dtype of the rows.
        """
        self._config = config
        self._seed = torch.tensor(seed, device=like.device)
        self._shares = _Shares([(seed, config.mixup)], steps_per_epoch, like)

    def mix(self, step: int, n_rows: int) -> Mix | None:
        """How the rows of a step's batch are mixed; None where they are not."""
        if self._config.mixup == 0:
            return None
        return Mix(self._shares.of(step)[0], mixing_partners(self._seed, step, n_rows))

    def rows(self, x: Tensor, step: int, mix: Mix | None) -> Tensor:
        """What the network sees of a batch (B, F) in a step."""
        if mix is not None:
            x = mix.of(x)
        if self._config.noise > 0:
            x = x + self._config.noise * normal_noise(self._seed, step, (x.shape[0], x.shape[1]), x.dtype)
        return x


class StackAugmentation:
    """The same for the batches of a stack, in place."""

    def __init__(self, members: Sequence[Member], steps_per_epoch: int, like: Tensor) -> None:
        """Nothing is drawn yet.

        Args:
            members: In the order of the stack.
            steps_per_epoch: Weight updates of an epoch.
            like: A tensor of the device and dtype wanted.
        """
        configs = [member.train_config for member in members]
        self._seeds = torch.tensor([member.seed for member in members], device=like.device)
        noise = torch.tensor([config.noise for config in configs], dtype=torch.float64)
        self._noise = noise.to(like.dtype).to(like.device)[:, None, None] if noise.any() else None
        self._shares = _Shares([(m.seed, m.train_config.mixup) for m in members], steps_per_epoch, like)
        self._has_mixing = any(config.mixup > 0 for config in configs)
        self._like = like

    def room(self, n_rows: int) -> Mix | None:
        """For how batches of so many rows are mixed, to be given to `apply`; None where no member mixes any."""
        if not self._has_mixing:
            return None
        n = len(self._seeds)
        partners = torch.zeros(n, n_rows, dtype=torch.int64, device=self._like.device)
        return Mix(self._like.new_zeros(n, 1, 1), partners)

    def apply(self, step: int, x: Tensor, y: Tensor | None, mix: Mix | None) -> None:
        """Change a step's batches.

        Args:
            step: The members' weight update.
            x: (P, B, F), each member's own.
            y: Targets to be mixed as the rows are, (P, B, C); None where the loss does that.
            mix: Room; learns how they are mixed.
        """
        if mix is not None:
            mix.share.copy_(self._shares.of(step)[:, None, None])
            mix.partners.copy_(mixing_partners(self._seeds, step, x.shape[1]))
            x.copy_(mix.of(x))
            if y is not None:
                y.copy_(mix.of(y))
        if self._noise is not None:
            x.addcmul_(normal_noise(self._seeds, step, (x.shape[1], x.shape[2]), x.dtype), self._noise)


class _Shares:
    """How much of each row stays when it is mixed, step by step."""

    def __init__(self, members: Sequence[tuple[int, float]], steps_per_epoch: int, like: Tensor) -> None:
        """Of members, each a seed and its alpha; on the device and in the dtype of `like`."""
        self._members, self._steps, self._like = members, steps_per_epoch, like
        self._epoch = 0
        self._drawn = like

    def of(self, step: int) -> Tensor:
        """One for each member, (P,); 1 for those whose alpha is 0."""
        epoch, place = step // self._steps + 1, step % self._steps
        if epoch != self._epoch:
            drawn = [
                mixing_shares(seed, alpha, epoch, self._steps) if alpha > 0 else [1.0] * self._steps
                for seed, alpha in self._members
            ]
            self._epoch = epoch
            self._drawn = torch.tensor(drawn, dtype=self._like.dtype).T.to(self._like.device)
        return self._drawn[place]
