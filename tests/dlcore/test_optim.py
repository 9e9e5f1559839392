import math
import random

import pytest
import torch

from dlcore.config import TrainConfig
from dlcore.optim import Optimizer, adamw_step, clip_gradients, sgd_step

SHAPES = [(5, 4), (5,), (3, 5), (3,)]
STEPS = 50


def random_tensors(seed: int, shapes=SHAPES, scale: float = 1.0) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=stream, dtype=torch.float64) * scale for shape in shapes]


def groups(parameters, weight_decay):
    """As our Optimizer does it: biases without decay."""
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]


class SGDW(torch.optim.SGD):
    """torch.optim.SGD, and before each of its steps what Loshchilov and Hutter's SGDW does to the weights."""

    def __init__(self, parameters, config: TrainConfig) -> None:
        super().__init__(parameters, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov)
        self.decay = config.weight_decay

    def step(self):
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.dim() > 1:
                        p -= group["lr"] * self.decay * p
        super().step()


def torch_twin(parameters, config: TrainConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups(parameters, config.weight_decay), lr=config.learning_rate)
    return SGDW(parameters, config)


def random_config(rng: random.Random, optimizer: str) -> TrainConfig:
    momentum = rng.choice((0.0, rng.uniform(0.1, 0.99)))
    return TrainConfig(
        epochs=1,
        optimizer=optimizer,
        learning_rate=10 ** rng.uniform(-4, -1),
        momentum=momentum,
        nesterov=momentum > 0 and rng.random() < 0.5,
        weight_decay=rng.choice((0.0, 10 ** rng.uniform(-5, -1))),
        clip_norm=rng.choice((None, rng.uniform(0.1, 10))),
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_fifty_steps_agree_with_torch_for_random_configs(optimizer):
    rng = random.Random(optimizer)
    for trial in range(40):
        config = random_config(rng, optimizer)
        ours, theirs = random_tensors(trial), [p.requires_grad_() for p in random_tensors(trial)]
        ours_optimizer, theirs_optimizer = Optimizer(ours, config), torch_twin(theirs, config)
        for step in range(STEPS):
            gradients = random_tensors(1000 * trial + step + 1)
            # A schedule moves the rate at every step.
            rate = config.learning_rate * (1 + math.cos(step / STEPS * math.pi)) / 2
            for p, g in zip(theirs, gradients, strict=True):
                p.grad = g.clone()
            if config.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(theirs, config.clip_norm)
            for group in theirs_optimizer.param_groups:
                group["lr"] = rate
            theirs_optimizer.step()
            ours_optimizer.step(gradients, rate)
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q.detach(), rtol=1e-6, atol=1e-6, msg=str(config))


def column(values: list[float], dims: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, *[1] * dims)


@pytest.mark.parametrize("nesterov", [False, True])
def test_stacked_sgd_gives_each_member_its_own_hyperparameters(nesterov):
    rates, momenta, decays = [0.1, 0.01, 0.5], [0.0, 0.9, 0.5], [0.0, 1e-2, 1e-3]
    stacked, buffers = random_tensors(0, [(3, 4, 5)])[0], torch.zeros(3, 4, 5, dtype=torch.float64)
    alone = [stacked[i].clone() for i in range(3)]
    alone_buffers = [torch.zeros(4, 5, dtype=torch.float64) for _ in range(3)]
    for step in range(20):
        gradient = random_tensors(step + 1, [(3, 4, 5)])[0]
        for i in range(3):
            sgd_step(
                [alone[i]],
                [gradient[i].clone()],
                [alone_buffers[i]],
                rates[i],
                momenta[i],
                decays[i],
                nesterov,
            )
        sgd_step(
            [stacked],
            [gradient],
            [buffers],
            column(rates, 2),
            column(momenta, 2),
            column(decays, 2),
            nesterov,
        )
    torch.testing.assert_close(stacked, torch.stack(alone), rtol=1e-12, atol=1e-12)


def test_stacked_adamw_gives_each_member_its_own_hyperparameters():
    rates, decays = [0.1, 0.01, 0.5], [0.0, 1e-2, 1e-1]
    stacked = random_tensors(0, [(3, 4, 5)])[0]
    moments = [torch.zeros_like(stacked) for _ in range(2)]
    alone = [stacked[i].clone() for i in range(3)]
    alone_moments = [[torch.zeros_like(p) for _ in range(2)] for p in alone]
    for step in range(1, 21):
        gradient = random_tensors(step, [(3, 4, 5)])[0]
        for i, (first, second) in enumerate(alone_moments):
            adamw_step([alone[i]], [gradient[i].clone()], [first], [second], step, rates[i], decays[i])
        adamw_step([stacked], [gradient], [moments[0]], [moments[1]], step, column(rates, 2), column(decays, 2))
    torch.testing.assert_close(stacked, torch.stack(alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e6])
def test_clipping_agrees_with_torch(scale):
    gradients = random_tensors(3, scale=scale)
    theirs = [torch.zeros_like(g, requires_grad=True) for g in gradients]
    for p, g in zip(theirs, gradients, strict=True):
        p.grad = g.clone()
    norm = torch.nn.utils.clip_grad_norm_(theirs, 0.7)
    torch.testing.assert_close(clip_gradients(gradients, 0.7), norm, rtol=1e-12, atol=0)
    for p, g in zip(theirs, gradients, strict=True):
        torch.testing.assert_close(g, p.grad, rtol=1e-12, atol=0)


def test_stacked_clipping_clips_each_member_alone():
    gradients = random_tensors(4, [(3, 4, 5), (3, 5)])
    limits = [0.1, 1e9, math.inf]
    alone = [[g[i].clone() for g in gradients] for i in range(3)]
    norms = torch.stack([clip_gradients(gs, limit) for gs, limit in zip(alone, limits, strict=True)])
    found = clip_gradients(gradients, torch.tensor(limits, dtype=torch.float64), stacked=True)
    torch.testing.assert_close(found, norms, rtol=1e-12, atol=0)
    for k, g in enumerate(gradients):
        torch.testing.assert_close(g, torch.stack([gs[k] for gs in alone]), rtol=1e-12, atol=0)


def test_a_nan_gradient_stays_visible_after_clipping():
    gradients = [torch.tensor([1.0, math.nan]), torch.tensor([1.0])]
    assert clip_gradients(gradients, 1.0).isnan()
    assert gradients[1].isnan()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weights_shrink_by_rate_times_decay_in_each_step_and_biases_do_not(optimizer):
    weight, bias = torch.ones(2, 2), torch.ones(2)
    rule = Optimizer([weight, bias], TrainConfig(epochs=1, optimizer=optimizer, momentum=0.9, weight_decay=0.5))
    for _ in range(3):  # momentum does not see it: coupled, the third step would take more away than the first
        rule.step([torch.zeros(2, 2), torch.zeros(2)], 0.1)
    assert torch.equal(bias, torch.ones(2))
    assert torch.allclose(weight, torch.full((2, 2), 0.95**3))
