"""Config -> network: Linear, activation, dropout, repeated, then a Linear head, as one `nn.Sequential`.

The number of parameters is known before anything is built. Initial weights depend on the config and the seed
alone, never on PyTorch's global generator. Losses and links are not here: a network gives raw outputs
(logits, standardised targets), and `dlcore.tasks` knows what they mean.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from dlcore.activations import ACTIVATIONS
from dlcore.config import ModelConfig
from dlcore.init import INITIALIZATIONS
from dlcore.seeding import dropout_mask, generator


def layer_sizes(config: ModelConfig) -> list[tuple[int, int]]:
    """Inputs and outputs of each Linear layer, from the first to the head."""
    return list(pairwise((config.n_features, *config.widths, config.n_outputs)))


def count_parameters(config: ModelConfig) -> int:
    """Weights and biases of the network that `build_model` would build."""
    return sum((n_in + 1) * n_out for n_in, n_out in layer_sizes(config))


class SeededDropout(nn.Module):
    """Inverted dropout whose mask is a function of (seed, step, layer, row of the batch, unit).

    `nn.Dropout` draws from a global stream, so a member of a population could not meet the same masks as
    the same network trained alone. Kept units are scaled by 1 / (1 - p) (Srivastava et al., JMLR 15, 2014,
    section 10). The identity in eval mode.
    """

    seed: Tensor

    def __init__(self, p: float, seed: int, layer: int) -> None:
        """A dropout layer.

        Args:
            p: Probability that a unit's output is dropped, in [0, 1).
            seed: The trial's seed.
            layer: Index of the hidden layer that it follows, from 0.
        """
        super().__init__()
        self.p = p
        # A buffer, since the mask is made on the seed's device; not saved, since it is no weight.
        self.register_buffer("seed", torch.tensor(seed), persistent=False)
        self.layer = layer
        self.step = 0
        """Weight updates made before this one; `set_step` moves it."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop units of `inputs` (B, H); returns (B, H)."""
        if not self.training:
            return inputs
        n_rows, n_units = inputs.shape
        keep = dropout_mask(self.seed, self.step, self.layer, self.p, (n_rows, n_units))
        return inputs * (keep.to(inputs.dtype) / (1 - self.p))

    def extra_repr(self) -> str:
        """What `print(model)` shows of it."""
        return f"p={self.p}, layer={self.layer}"


def set_step(model: nn.Module, step: int) -> None:
    """Tell every dropout layer of `model` how many weight updates were made before this one."""
    for module in model.modules():
        if isinstance(module, SeededDropout):
            module.step = step


def draw_linears(config: ModelConfig, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Initial weight (out, in) and bias (out,) of each Linear layer, on the CPU in float32.

    Both engines start from these numbers, whatever device and dtype they train in.
    """
    stream = generator(seed, "init")
    linears = []
    for n_in, n_out in layer_sizes(config):
        weight, bias = torch.empty(n_out, n_in), torch.empty(n_out)
        INITIALIZATIONS[config.initialization](weight, bias, stream, config.activation, config.slope)
        linears.append((weight, bias))
    return linears


def build_model(
    config: ModelConfig,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """Build and initialise one network, in training mode.

    Weights are drawn on the CPU in float32, layer after layer, and copied after that: every device and dtype
    starts from the same numbers.

    Args:
        config: Its architecture.
        seed: The trial's seed; the same seed gives the same weights.
        device: Where its parameters live.
        dtype: Of its parameters.

    Returns:
        A network from (B, F) to (B, C).
    """
    modules: list[nn.Module] = []
    for index, (weight, bias) in enumerate(draw_linears(config, seed)):
        # On the meta device, since nn.Linear's constructor would draw from the global generator.
        linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
        modules.append(linear)
        if index == config.depth:
            break
        modules.append(ACTIVATIONS[config.activation].module(config.slope))
        if config.dropout > 0:
            modules.append(SeededDropout(config.dropout, seed, index))
    return nn.Sequential(*modules).to(device=device, dtype=dtype)
