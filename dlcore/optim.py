"""Update rules: SGD with momentum, AdamW, and clipping by the global norm.

Own rules rather than `torch.optim`, because a hyperparameter may be a tensor with one value per member of a
population, shaped so that it broadcasts against stacked parameters: (P, 1, 1) against (P, in, out). With
plain floats they agree with `torch.optim` (tested; its SGD has no decoupled decay, which the test adds). All work in
place, on preallocated state.

Not covered: dampening, AMSGrad, sparse gradients, maximisation.

References:
    SGD: torch.optim.SGD's algorithm (dampening 0); momentum as in Sutskever et al., ICML 2013.
    Weight decay: Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019: SGDW (algorithm 1, with
        the learning rate as its alpha too) and AdamW (algorithm 2).
    Clipping: Pascanu et al., ICML 2013, algorithm 1; torch.nn.utils.clip_grad_norm_'s formula.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dlcore.config import TrainConfig

Number = float | Tensor
"""One value for all, or a tensor that broadcasts against the parameters."""

BETAS = (0.9, 0.999)
EPSILON = 1e-8
CLIP_EPSILON = 1e-6
"""Keeps the quotient finite where all gradients are 0; torch.nn.utils.clip_grad_norm_'s constant."""


@torch.no_grad()
def sgd_step(  # noqa: PLR0913 - the symbols of the update rule
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    momentum_buffers: Sequence[Tensor],
    learning_rate: Number | Sequence[Number],
    momentum: Number,
    weight_decay: Number | Sequence[Number],
    nesterov: bool,
) -> None:
    """One step of SGD with momentum and decoupled weight decay, in place.

    w <- w - rate * decay * w;  v <- momentum * v + g;  w <- w - rate * v  (Nesterov: w - rate * (g + momentum * v))

    Args:
        parameters: Tensors w of any shape.
        gradients: Their gradients g, shaped alike; overwritten.
        momentum_buffers: Their buffers v, shaped alike; zeros before the first step.
        learning_rate: Rate of this step, one for all, or one per parameter.
        momentum: 0 is plain SGD.
        weight_decay: One for all, or one per parameter (0 for biases).
        nesterov: Look ahead by one step of momentum.
    """
    rates, decays = (_per_parameter(number, len(parameters)) for number in (learning_rate, weight_decay))
    for w, g, v, rate, decay in zip(parameters, gradients, momentum_buffers, rates, decays, strict=True):
        if not _is_zero(decay):
            w.mul_(1 - rate * decay)
        v.mul_(momentum).add_(g)
        if nesterov:
            _add_scaled(g, v, momentum)
        _add_scaled(w, g if nesterov else v, -rate)


@torch.no_grad()
def adamw_step(  # noqa: PLR0913 - the symbols of the update rule
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    first_moments: Sequence[Tensor],
    second_moments: Sequence[Tensor],
    step: int,
    learning_rate: Number | Sequence[Number],
    weight_decay: Number | Sequence[Number],
) -> None:
    """One step of AdamW with betas `BETAS` and `EPSILON`, in place.

    w <- w - rate * decay * w;  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;
    w <- w - rate / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + epsilon)

    Args:
        parameters: Tensors w of any shape.
        gradients: Their gradients g, shaped alike.
        first_moments: Their running means m, shaped alike; zeros before the first step.
        second_moments: Their running squares v, shaped alike; zeros before the first step.
        step: Number t of this step, from 1.
        learning_rate: Rate of this step, one for all, or one per parameter.
        weight_decay: One for all, or one per parameter (0 for biases).
    """
    beta1, beta2 = BETAS
    root = (1 - beta2**step) ** 0.5
    rates, decays = (_per_parameter(number, len(parameters)) for number in (learning_rate, weight_decay))
    for w, g, m, v, rate, decay in zip(
        parameters, gradients, first_moments, second_moments, rates, decays, strict=True
    ):
        if not _is_zero(decay):
            w.mul_(1 - rate * decay)
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        _add_scaled(w, m / (v.sqrt().div_(root).add_(EPSILON)), -(rate / (1 - beta1**step)))


@torch.no_grad()
def clip_gradients(gradients: Sequence[Tensor], clip_norm: Number, *, stacked: bool = False) -> Tensor:
    """Scale gradients down, in place, so that their L2 norm together is at most `clip_norm`.

    Args:
        gradients: Tensors of any shape; with `stacked` each is (P, ...) and each member is clipped alone.
        clip_norm: The largest norm; with `stacked` also (P,), where inf leaves a member alone.
        stacked: Whether the first dimension counts members.

    Returns:
        The norm before clipping: (), with `stacked` (P,). NaN gradients stay NaN.
    """
    if stacked:
        norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients])
    else:
        norms = torch.stack([torch.linalg.vector_norm(g) for g in gradients])
    norm: Tensor = torch.linalg.vector_norm(norms, dim=0)
    scale = (clip_norm / (norm + CLIP_EPSILON)).clamp(max=1)
    for g in gradients:
        g.mul_(scale.view(-1, *[1] * (g.dim() - 1)) if stacked else scale)
    return norm


class Optimizer:
    """Update rule and state of one network, chosen by its `TrainConfig`. Biases are not decayed."""

    def __init__(self, parameters: Sequence[Tensor], config: TrainConfig, rates: Sequence[float] | None = None) -> None:
        """Allocate the state.

        Args:
            parameters: Weights (out, in) and biases (out,) of the network that are to be updated.
            config: Optimizer, momentum, decay and clipping; the learning rate comes with each step.
            rates: Learning rate of each parameter, divided by that of the step; None is 1 for all.
        """
        self._parameters = list(parameters)
        self._rates = [1.0] * len(self._parameters) if rates is None else list(rates)
        self._config = config
        self._weight_decay = [config.weight_decay if p.dim() > 1 else 0.0 for p in self._parameters]
        n_states = 2 if config.optimizer == "adamw" else 1
        self._states = [[torch.zeros_like(p) for p in self._parameters] for _ in range(n_states)]
        self._step = 0

    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        """Clip, then update the parameters, in place.

        Args:
            gradients: One per parameter, shaped alike; overwritten.
            learning_rate: Rate of this step.
        """
        self._step += 1
        rates = [learning_rate * rate for rate in self._rates]
        if self._config.clip_norm is not None:
            clip_gradients(gradients, self._config.clip_norm)
        if self._config.optimizer == "adamw":
            first, second = self._states
            adamw_step(self._parameters, gradients, first, second, self._step, rates, self._weight_decay)
        else:
            sgd_step(
                self._parameters,
                gradients,
                self._states[0],
                rates,
                self._config.momentum,
                self._weight_decay,
                self._config.nesterov,
            )


def _per_parameter(number: Number | Sequence[Number], n: int) -> Sequence[Number]:
    """One number for each of n parameters."""
    return [number] * n if isinstance(number, (int, float, Tensor)) else number


def _is_zero(decay: Number) -> bool:
    """Whether decay is known to do nothing; a tensor is not asked, since that would wait for the device."""
    return not isinstance(decay, Tensor) and decay == 0


def _add_scaled(target: Tensor, source: Tensor, factor: Number) -> None:
    """target <- target + factor * source, in place, without a temporary."""
    if isinstance(factor, Tensor):
        target.addcmul_(source, factor)
    else:
        target.add_(source, alpha=factor)
