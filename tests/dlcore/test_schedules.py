import pytest
import torch
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
)

from dlcore.errors import ConfigError
from dlcore.schedules import SCHEDULES, learning_rate_factors

PEAK = 0.37


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)


def rates(scheduler: LRScheduler, n_steps: int) -> torch.Tensor:
    """The learning rate that torch's scheduler gives to each step."""
    found = []
    for _ in range(n_steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step() if len(found) < n_steps else None
    return torch.tensor(found, dtype=torch.float64)


def after_warmup(main: type[LRScheduler], warmup: int, **options: float) -> LRScheduler:
    sgd = optimizer()
    if warmup == 0:
        return main(sgd, **options)
    rise = LinearLR(sgd, start_factor=1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(sgd, [rise, main(sgd, **options)], milestones=[warmup])


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step\\(\\)`:UserWarning")  # SequentialLR's
@pytest.mark.parametrize("n_steps", [2, 3, 10, 97])
@pytest.mark.parametrize("warmup", [0, 1, 2])
def test_constant_and_cosine_are_torchs_after_a_linear_warmup(n_steps: int, warmup: int) -> None:
    constant = rates(after_warmup(ConstantLR, warmup, factor=1.0, total_iters=0), n_steps)
    torch.testing.assert_close(PEAK * learning_rate_factors("constant", n_steps, warmup), constant)
    length = max(n_steps - warmup, 1)
    cosine = rates(after_warmup(CosineAnnealingLR, warmup, T_max=length), n_steps)
    torch.testing.assert_close(PEAK * learning_rate_factors("cosine", n_steps, warmup), cosine, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n_steps", [2, 3, 4, 10, 11, 97])
def test_one_cycle_is_torchs_with_its_defaults(n_steps: int) -> None:
    wanted = rates(OneCycleLR(optimizer(), PEAK, total_steps=n_steps), n_steps)
    found = PEAK * learning_rate_factors("one_cycle", n_steps)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n_steps", "warmup"), [(10, 2), (10, 5), (97, 60)])
def test_warmup_is_the_length_of_one_cycles_rise(n_steps: int, warmup: int) -> None:
    wanted = rates(OneCycleLR(optimizer(), PEAK, total_steps=n_steps, pct_start=warmup / n_steps), n_steps)
    found = learning_rate_factors("one_cycle", n_steps, warmup)
    torch.testing.assert_close(PEAK * found, wanted, rtol=1e-10, atol=1e-12)
    assert found.argmax().item() == warmup - 1


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_every_number_of_steps_and_of_warmup_steps_gives_usable_factors(name: str, n_steps: int) -> None:
    for warmup in range(n_steps + 1):
        factors = learning_rate_factors(name, n_steps, warmup)
        assert factors.shape == (n_steps,) and factors.dtype == torch.float64
        assert ((factors > 0) & (factors <= 1)).all()


def test_wrong_schedules_are_refused() -> None:
    with pytest.raises(ConfigError, match="schedule must be one of constant, cosine, one_cycle; got 'step'"):
        learning_rate_factors("step", 10)
    with pytest.raises(ConfigError, match="got n_steps = 3, warmup_steps = 4"):
        learning_rate_factors("cosine", 3, 4)
    with pytest.raises(ConfigError, match="got n_steps = 0"):
        learning_rate_factors("cosine", 0)
