import random

import pytest
import torch

from dlcore import updates
from dlcore.config import SCHEDULES, ModelConfig, TrainConfig
from dlcore.layout import lay_out
from dlcore.optim import Optimizer
from dlcore.schedules import learning_rate_factors
from dlcore.updates import Schedules, Updates, n_states

STEPS = 6
SHAPES: list[tuple[int, ...]] = [(), (3,), (3,), (5, 2), (4, 4), (4, 4)]
N_FROZEN = [0, 0, 1, 1, 0, 2]


def configs(optimizer: str, schedules: tuple[str, ...]) -> list[TrainConfig]:
    draw = random.Random(4)
    return [
        TrainConfig(
            3,
            optimizer=optimizer,
            learning_rate=10 ** draw.uniform(-3, -1),
            momentum=draw.choice([0.0, 0.5, 0.9]),
            nesterov=draw.random() < 0.5,
            weight_decay=draw.choice([0.0, 0.01]),
            clip_norm=draw.choice([None, 0.5, 4.0]),
            schedule=schedules[i % len(schedules)],
            n_frozen=n_frozen,
            backbone_rate=[1.0, 0.1][i % 2],
        )
        for i, n_frozen in enumerate(N_FROZEN)
    ]


@pytest.mark.parametrize("large_block", [1, 12, 10_000])
@pytest.mark.parametrize("schedules", [("cosine",), SCHEDULES])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_each_member_is_updated_as_if_it_were_alone(optimizer, schedules, large_block, monkeypatch):
    monkeypatch.setattr(updates, "LARGE_BLOCK", large_block)
    layout = lay_out([ModelConfig(4, 2, widths) for widths in SHAPES], SHAPES)
    drawn = configs(optimizer, schedules)
    hidden = [c.backbone_rate for c, widths in zip(drawn, SHAPES, strict=True) for _ in widths[c.n_frozen :]]
    assert set(hidden) == {1.0, 0.1}
    stream = torch.Generator().manual_seed(0)
    flat = torch.randn(layout.n_parameters, generator=stream, dtype=torch.float64)
    begun = flat.clone()
    gradients = flat.new_zeros(layout.n_parameters + 1)
    states = [torch.zeros_like(flat) for _ in range(n_states(optimizer))]

    def pieces(tensor: torch.Tensor, member: int, *, frozen: bool) -> list[torch.Tensor]:
        found = []
        for block in layout.blocks:
            if block.member == member and (block.layer < drawn[member].n_frozen) == frozen:
                found.append(tensor[block.weight : block.weight + block.size].view(block.n_out, block.n_in))
                found.append(tensor[block.bias : block.bias + block.n_out])
        return found

    alone = [[piece.clone() for piece in pieces(flat, i, frozen=False)] for i in range(len(SHAPES))]
    rates = [[c.backbone_rate] * (len(own) - 2) + [1.0] * 2 for c, own in zip(drawn, alone, strict=True)]
    optimizers = [Optimizer(*each) for each in zip(alone, drawn, rates, strict=True)]
    factors = [learning_rate_factors(c.schedule, STEPS, 0).tolist() for c in drawn]
    update = Updates(layout, drawn, flat, gradients, states, Schedules(drawn, STEPS // 3, flat))
    for step in range(STEPS):
        gradients[:-1] = torch.randn(layout.n_parameters, generator=stream, dtype=torch.float64)
        for i, (optimizer_alone, config) in enumerate(zip(optimizers, drawn, strict=True)):
            for piece in pieces(gradients, i, frozen=True):
                piece.fill_(torch.nan)  # whatever it is, it plays no part
            of_member = [piece.clone() for piece in pieces(gradients, i, frozen=False)]
            optimizer_alone.step(of_member, config.learning_rate * factors[i][step])
        update.step(step)
    for i, expected in enumerate(alone):
        for left, right in zip(pieces(flat, i, frozen=False), expected, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
        for left, right in zip(pieces(flat, i, frozen=True), pieces(begun, i, frozen=True), strict=True):
            assert torch.equal(left, right)


def test_gradients_whose_norm_overflows_are_left_alone_where_there_is_no_clipping():
    layout = lay_out([ModelConfig(4, 2, (3,))] * 2, [(3,)] * 2)
    flat = torch.zeros(layout.n_parameters)
    gradients = torch.cat([torch.full_like(flat, 3e38), flat.new_zeros(1)])
    both = [TrainConfig(1, clip_norm=norm) for norm in (1.0, None)]
    Updates(layout, both, flat, gradients, [torch.zeros_like(flat)], Schedules(both, 1, flat)).step(0)
    for block in layout.blocks:
        # Nothing at all of the clipped: torch.nn.utils.clip_grad_norm_ divides by inf too.
        wanted = -0.1 * 3e38 if block.member == 1 else 0.0
        torch.testing.assert_close(flat[block.bias : block.bias + block.n_out], torch.full((block.n_out,), wanted))
