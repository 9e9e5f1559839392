"""Config -> network: Linear, normalization, activation, dropout, repeated, then a Linear head, as one `nn.Sequential`.

The number of parameters is known before anything is built. Initial weights depend on the config, the seed and the
backbone alone, never on PyTorch's global generator. Losses and links are not here: a network gives raw outputs
(logits, standardised targets), and `dlcore.tasks` knows what they mean.
"""

from itertools import chain, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlcore.activations import ACTIVATIONS
from dlcore.backbone import Backbone
from dlcore.config import DRAWN_INITIALIZATIONS, PRETRAINED, ModelConfig
from dlcore.init import INITIALIZATIONS
from dlcore.naming import statistic_names, tensor_names
from dlcore.seeding import dropout_mask, generator


def layer_sizes(config: ModelConfig) -> list[tuple[int, int]]:
    """Inputs and outputs of each Linear layer, from the first to the head."""
    return list(pairwise((config.n_features, *config.widths, config.n_outputs)))


def count_parameters(config: ModelConfig) -> int:
    """Weights and biases of the network that `build_model` would build, gains of normalization included."""
    of_linears = sum((n_in + 1) * n_out for n_in, n_out in layer_sizes(config))
    # A gain and a shift for each hidden unit; over batches the shift is in the place of a bias.
    return of_linears + {"none": 0, "batch": 1, "layer": 2}[config.normalization] * sum(config.widths)


NORM_EPSILON, NORM_MOMENTUM = 1e-5, 0.1
"""Of `nn.BatchNorm1d` and `nn.LayerNorm`."""


class BatchNorm(nn.Module):
    """`nn.BatchNorm1d`, which in training also takes a batch of one row (the last of an epoch, say).

    One row has no spread to divide by: its standardised values are 0, and running statistics are left as they are.
    Weights and statistics have the names that `nn.BatchNorm1d` gives them, which loads them; the number of batches is
    not kept, since nothing needs it.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, n_units: int) -> None:
        """For rows of so many units."""
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(n_units)), nn.Parameter(torch.zeros(n_units))
        self.register_buffer("running_mean", torch.zeros(n_units))
        self.register_buffer("running_var", torch.ones(n_units))

    def forward(self, inputs: Tensor) -> Tensor:
        """Standardise `inputs` (B, H); returns (B, H)."""
        if self.training and len(inputs) == 1:
            return (inputs - inputs) * self.weight + self.bias
        statistics = self.running_mean, self.running_var
        return F.batch_norm(inputs, *statistics, self.weight, self.bias, self.training, NORM_MOMENTUM, NORM_EPSILON)

    def extra_repr(self) -> str:
        """What `print(model)` shows of it."""
        return str(len(self.weight))


def has_bias(config: ModelConfig, layer: int) -> bool:
    """Whether a Linear layer has a bias: not where the mean of its outputs is taken away again, over a batch."""
    return config.normalization != "batch" or layer == config.depth


def draw_tensors(config: ModelConfig, seed: int, backbone: Backbone | None = None) -> list[tuple[Tensor, ...]]:
    """What each layer trains, before the first step, on the CPU in float32.

    Weight (out, in) and bias (out,) of a Linear layer; then, all (out,), the gain and the shift of a normalization over
    layers. Over batches its shift comes in the place of the bias. Hidden layers that are pretrained are the backbone's
    own tensors, not to be written.
    """
    found: list[tuple[Tensor, ...]] = []
    for layer, (weight, bias) in enumerate(draw_linears(config, seed)):
        gain, shift = torch.ones_like(bias), torch.zeros_like(bias)
        if layer == config.depth or config.normalization == "none":
            found.append((weight, bias))
        else:
            found.append((weight, shift, gain) if config.normalization == "batch" else (weight, bias, gain, shift))
    if config.initialization == PRETRAINED and backbone is not None:
        found[:-1] = backbone.layers
    return found


def first_statistics(config: ModelConfig, backbone: Backbone | None = None) -> list[tuple[Tensor, ...]]:
    """Running mean and variance of each hidden layer before the first step, (out,) each, as `draw_tensors` gives its
    tensors; empty where there are none."""
    if config.normalization != "batch":
        return []
    if config.initialization == PRETRAINED and backbone is not None:
        return list(backbone.statistics)
    return [(torch.zeros(width), torch.ones(width)) for width in config.widths]


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

    Both engines start from these numbers, whatever device and dtype they train in. Of a network that is pretrained all
    layers are drawn as by "default", so that its head does not depend on what the others become.
    """
    stream = generator(seed, "init")
    name = DRAWN_INITIALIZATIONS[0] if config.initialization == PRETRAINED else config.initialization
    linears = []
    for n_in, n_out in layer_sizes(config):
        weight, bias = torch.empty(n_out, n_in), torch.empty(n_out)
        INITIALIZATIONS[name](weight, bias, stream, config.activation, config.slope)
        linears.append((weight, bias))
    return linears


def build_model(
    config: ModelConfig,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    backbone: Backbone | None = None,
) -> nn.Sequential:
    """Build and initialise one network, in training mode.

    Weights are drawn on the CPU in float32, layer after layer, and copied after that: every device and dtype
    starts from the same numbers.

    Args:
        config: Its architecture.
        seed: The trial's seed; the same seed gives the same weights.
        device: Where its parameters live.
        dtype: Of its parameters.
        backbone: What it begins with, where it is pretrained; without one, as for a network that is given all its
            weights afterwards, hidden layers are drawn too.

    Returns:
        A network from (B, F) to (B, C).
    """
    modules: list[nn.Module] = []
    for index, (n_in, n_out) in enumerate(layer_sizes(config)):
        # On the meta device, since nn.Linear's constructor would draw from the global generator.
        modules.append(nn.Linear(n_in, n_out, bias=has_bias(config, index), device="meta"))
        if index == config.depth:
            break
        if config.normalization != "none":
            modules.append(_norm(config.normalization, n_out))
        modules.append(ACTIVATIONS[config.activation].module(config.slope))
        if config.dropout > 0:
            modules.append(SeededDropout(config.dropout, seed, index))
    model = nn.Sequential(*modules)
    names = chain.from_iterable((*tensor_names(config), *statistic_names(config)))
    tensors = chain.from_iterable((*draw_tensors(config, seed, backbone), *first_statistics(config, backbone)))
    # Copied, since a backbone is shared.
    model.load_state_dict({name: tensor.clone() for name, tensor in zip(names, tensors, strict=True)}, assign=True)
    return model.to(device=device, dtype=dtype)


def _norm(normalization: str, n_units: int) -> nn.Module:
    return BatchNorm(n_units) if normalization == "batch" else nn.LayerNorm(n_units, NORM_EPSILON)


@torch.no_grad()
def nudge(model: nn.Module, seed: int = 0) -> None:
    """Move each parameter by one unit in the last place, up or down by chance, always the same way for a seed.

    How far a training goes astray after that is what rounding alone can do to it. All of them up would be hardly more
    than another scale, which a normalization does not see.
    """
    stream = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        up = torch.randint(2, parameter.shape, generator=stream).to(parameter.device) == 1
        parameter.copy_(torch.nextafter(parameter, torch.where(up, torch.inf, -torch.inf).to(parameter)))
