"""How much memory a population will take, before anything is allocated."""

from collections.abc import Sequence

import torch

from dlcore.grouped import has_grouped_products
from dlcore.layout import Layout, lay_out
from dlcore.packing import Member, cost_of, cut_into_stacks, evaluation_chunk, has_dropout, padded_widths
from dlcore.precision import factor_dtype
from dlcore.program import arena_size, factor_size
from dlcore.rows import TensorData
from dlcore.updates import hyperparameters_of, n_states


def predict_memory_bytes(members: Sequence[Member], data: TensorData) -> int:
    """Bytes that `dlcore.population.Population` takes on the device at its peak, the rows of the data included.

    Counted tensor by tensor from shapes alone: parameters, gradients, optimizer, hyperparameters, hidden layers,
    outputs on val, kept weights. What PyTorch itself takes (kernels, workspaces, fragments) comes on top.

    Args:
        members: As for `Population`.
        data: As for `Population`.
    """
    like = data.x_train
    n_threads = torch.get_num_threads() if like.device.type == "cpu" else 1
    cost = cost_of(like.device.type, is_grouped=has_grouped_products(like.device, like.dtype))
    total = sum(t.numel() * t.element_size() for t in (data.x_train, data.y_train, data.x_val, data.y_val))
    transient = []
    for cut in cut_into_stacks(members, cost, like.element_size()):
        stack = [members[i] for i in cut]
        layout = lay_out([member.model_config for member in stack], padded_widths(stack, cost))
        total += like.element_size() * _lasting(stack, layout, data) + _rounded_bytes(stack, layout, data)
        transient.append(like.element_size() * _passing(len(stack), data))
    return total + sum(sorted(transient)[-n_threads:])


def _lasting(stack: Sequence[Member], layout: Layout, data: TensorData) -> int:
    """Numbers that a stack holds while it lives."""
    n_rows, n_features = data.x_train.shape
    config = stack[0].train_config
    drops = any(has_dropout(member.model_config) for member in stack)
    chunk = evaluation_chunk(len(data.x_val), config.batch_size)
    batch = min(config.batch_size, n_rows)
    arena = max(
        arena_size(layout, n_features, batch, has_backward=True, has_dropout=drops),
        arena_size(layout, n_features, chunk, has_backward=False, has_dropout=False),
    )
    # Parameters, gradients, weights of the best epoch, and what the optimizer keeps.
    copies = 3 + n_states(config.optimizer)
    configs = [member.train_config for member in stack]
    outputs = len(stack) * data.task.n_outputs * len(data.x_val)
    return copies * layout.n_parameters + hyperparameters_of(layout, configs) + arena + outputs


def _rounded_bytes(stack: Sequence[Member], layout: Layout, data: TensorData) -> int:
    """Bytes of the factors of a stack's products, where these are not the numbers themselves."""
    config, (n_rows, n_features) = stack[0].train_config, data.x_train.shape
    if config.precision != "bf16":
        return 0
    batch = min(config.batch_size, n_rows)
    sizes = {batch, n_rows % config.batch_size} - {0}
    drops = any(has_dropout(member.model_config) for member in stack)
    numbers = sum(factor_size(layout, n_features, size, has_dropout=drops) for size in sizes) + layout.n_parameters
    return factor_dtype(data.x_train).itemsize * numbers


def _passing(n_members: int, data: TensorData) -> int:
    """Numbers that exist only while val is measured: softmax, its logarithm, comparisons, ranks."""
    return 4 * n_members * data.task.n_outputs * len(data.x_val)
