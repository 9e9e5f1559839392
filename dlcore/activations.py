"""Names of activations -> functions and modules. A new one: one row here and its name in `dlcore.config`."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Slope = float | Tensor


@dataclass(frozen=True, slots=True)
class Activation:
    """One elementwise function f, in the forms that the two engines need."""

    function: Callable[[Tensor, Slope], Tensor]
    """(x, slope) -> f(x), any shape; the slope is a float, or one per member, shape (P, 1, 1)."""
    module: Callable[[float], nn.Module]
    """slope -> the same function as a module, for `nn.Sequential`."""
    at_zero: float = 0.0
    """f(0). Where it is not 0, padded units must be masked."""


def _leaky_relu(x: Tensor, slope: Slope) -> Tensor:
    if isinstance(slope, Tensor):
        return torch.where(x > 0, x, x * slope)
    return F.leaky_relu(x, slope)


ACTIVATIONS: dict[str, Activation] = {
    # max(0, x). Nair and Hinton, Rectified Linear Units Improve RBMs, ICML 2010.
    "relu": Activation(lambda x, _: F.relu(x), lambda _: nn.ReLU()),
    # x if x > 0 else slope x. Maas et al., Rectifier Nonlinearities Improve Acoustic Models, ICML 2013.
    "leaky_relu": Activation(_leaky_relu, lambda slope: nn.LeakyReLU(slope)),
    # 1 / (1 + exp(-x)). Rumelhart, Hinton and Williams, Nature 323, 1986.
    "sigmoid": Activation(lambda x, _: torch.sigmoid(x), lambda _: nn.Sigmoid(), at_zero=0.5),
    # (exp(x) - exp(-x)) / (exp(x) + exp(-x)). LeCun et al., Efficient BackProp, 1998.
    "tanh": Activation(lambda x, _: torch.tanh(x), lambda _: nn.Tanh()),
    # x Phi(x) = x (1 + erf(x / sqrt 2)) / 2, exact, without the tanh approximation.
    # Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv:1606.08415.
    "gelu": Activation(lambda x, _: F.gelu(x), lambda _: nn.GELU()),
    # x / (1 + exp(-x)). Elfwing, Uchibe and Doya, arXiv:1702.03118.
    "silu": Activation(lambda x, _: F.silu(x), lambda _: nn.SiLU()),
    # x if x > 0 else exp(x) - 1. Clevert, Unterthiner and Hochreiter, arXiv:1511.07289, with alpha = 1.
    "elu": Activation(lambda x, _: F.elu(x), lambda _: nn.ELU()),
    # 1.0507 (x if x > 0 else 1.6733 (exp(x) - 1)). Klambauer et al., Self-Normalizing Neural Networks,
    # arXiv:1706.02515; torch has both constants to double precision.
    "selu": Activation(lambda x, _: F.selu(x), lambda _: nn.SELU()),
}
