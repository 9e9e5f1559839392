"""How much memory a population will take, before anything is allocated."""

from collections.abc import Sequence
from math import prod

import torch

from dlcore.criterion import is_weighed, n_classes
from dlcore.grouped import has_grouped_products
from dlcore.layout import Layout, lay_out
from dlcore.packing import Member, cost_of, cut_into_stacks, has_dropout, padded_widths
from dlcore.precision import factor_dtype
from dlcore.program import arena_size, factor_size
from dlcore.rows import TensorData
from dlcore.seeding import N_QUANTILES
from dlcore.updates import hyperparameters_of, n_states
from dlcore.visits import Visits


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
    # Folds have one table as train and val.
    tables = {t.data_ptr(): t for t in (data.x_train, data.y_train, data.x_val, data.y_val)}
    total = sum(t.numel() * t.element_size() for t in tables.values())
    if any(member.train_config.noise > 0 for member in members):
        total += N_QUANTILES * like.element_size()
    transient = []
    for cut in cut_into_stacks(members, cost, like.element_size()):
        stack = [members[i] for i in cut]
        layout = lay_out([member.model_config for member in stack], padded_widths(stack, cost))
        visits = Visits(stack, data)
        total += like.element_size() * _lasting(stack, layout, visits, data) + _rounded_bytes(
            stack, layout, visits, data
        )
        transient.append(like.element_size() * _passing(stack, visits, data))
    return total + sum(sorted(transient)[-n_threads:])


def _lasting(stack: Sequence[Member], layout: Layout, visits: Visits, data: TensorData) -> int:
    """Numbers that a stack holds while it lives."""
    config = stack[0].train_config
    drops = any(has_dropout(member.model_config) for member in stack)
    arena = max(
        arena_size(layout, visits.train_shapes(config.batch_size)[0], has_backward=True, has_dropout=drops),
        arena_size(layout, visits.val_shapes(config.batch_size)[0], has_backward=False, has_dropout=False),
    )
    # Parameters, gradients, weights of the best epoch, and what the optimizer keeps.
    copies = 3 + n_states(config.optimizer)
    configs = [member.train_config for member in stack]
    outputs = len(stack) * data.task.n_outputs * visits.n_val
    numbers = copies * layout.n_parameters + hyperparameters_of(layout, configs) + arena + outputs
    if layout.normalization == "batch":
        numbers += 4 * sum(layer.rows for layer in layout.layers)  # running statistics, now and in the best epoch
    if data.task.name != "regression" and any(map(is_weighed, configs)):
        shapes = visits.train_shapes(config.batch_size)
        numbers += len(stack) * n_classes(data.task) * (2 + sum(shape[-2] for shape in shapes))
    # Row numbers of 64 bits and targets, where members have val rows of their own.
    has_own = stack[0].rows is not None
    return numbers + has_own * visits.val_copies * visits.n_val * (8 // data.x_train.element_size() + 1)


def _rounded_bytes(stack: Sequence[Member], layout: Layout, visits: Visits, data: TensorData) -> int:
    """Bytes of the factors of a stack's products, where these are not the numbers themselves."""
    config = stack[0].train_config
    if config.precision != "bf16":
        return 0
    drops = any(has_dropout(member.model_config) for member in stack)
    shapes = visits.train_shapes(config.batch_size)
    numbers = sum(factor_size(layout, shape, has_dropout=drops) for shape in shapes) + layout.n_parameters
    return factor_dtype(data.x_train).itemsize * numbers


def _passing(stack: Sequence[Member], visits: Visits, data: TensorData) -> int:
    """Numbers that exist only for a moment: softmax, its logarithm, comparisons and ranks while val is measured, or the
    noise of augmented rows."""
    measured = 4 * len(stack) * data.task.n_outputs * visits.n_val
    config = stack[0].train_config
    return max(measured, 4 * prod(visits.train_shapes(config.batch_size)[0]) if config.is_augmented else 0)
