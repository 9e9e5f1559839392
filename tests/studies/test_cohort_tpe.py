import numpy as np
import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.samplers._tpe import _truncnorm
from scipy.special import log_ndtr

from studies.cohort_tpe import CohortTPESampler


def told(sampler: optuna.samplers.BaseSampler, n: int) -> optuna.Study:
    """A study with n finished trials of a space with conditions, all kinds of distributions and two states."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=3))
    for i in range(n):
        trial = study.ask()
        value = suggest(trial)
        if i % 3 == 0:
            trial.report(value, 5)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, value)
    study.sampler = sampler
    return study


def suggest(trial: optuna.Trial) -> float:
    rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
    width = trial.suggest_int("width", 16, 256, log=True)
    depth = trial.suggest_int("depth", 1, 4)
    kind = trial.suggest_categorical("kind", ["relu", "leaky", "tanh"])
    slope = trial.suggest_float("slope", 0.0, 0.3) if kind == "leaky" else 0.0
    return -abs(np.log(rate) + 2) - width / 256 - depth / 4 - slope


def asked(study: optuna.Study, n: int) -> list[dict[str, object]]:
    trials = [study.ask() for _ in range(n)]
    for trial in trials:
        suggest(trial)
    return [trial.params for trial in trials]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("n_told", [0, 5, 40, 150])
def test_blocks_of_one_are_optunas_own_sampler_draw_for_draw(n_told: int) -> None:
    theirs = TPESampler(seed=7, multivariate=True, group=True, constant_liar=True)
    for_optuna, for_us = told(theirs, n_told), told(CohortTPESampler(7, 1), n_told)
    for expected, found in zip(ask_each(for_optuna, 6), ask_each(for_us, 6), strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-9) if isinstance(value, float) else found[name] == value


def ask_each(study: optuna.Study, n: int) -> list[dict[str, object]]:
    return [asked(study, 1)[0] for _ in range(n)]


def test_a_block_is_drawn_from_one_fit_and_its_draws_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    original = CohortTPESampler._drawn
    monkeypatch.setattr(CohortTPESampler, "_drawn", lambda self, *rest: fits.append(1) or original(self, *rest))
    found = ask_each(told(CohortTPESampler(7, 4), 40), 8)
    assert len(fits) == 2 * 2  # two blocks, for the common hyperparameters and for the conditional one
    assert len({str(params) for params in found}) == 8


def test_draws_favour_what_was_good() -> None:
    found = ask_each(told(CohortTPESampler(7, 8), 150), 40)
    random = ask_each(told(optuna.samplers.RandomSampler(seed=7), 150), 40)
    mean = [np.mean([suggest(optuna.trial.FixedTrial(p)) for p in params]) for params in (found, random)]  # type: ignore[arg-type]
    assert mean[0] > mean[1] + 1


def test_scipys_log_of_the_normal_distribution_is_optunas() -> None:
    a = np.concatenate([np.linspace(-60, 60, 2001), [-1e4, 1e4]])
    # Near 0 SciPy keeps digits that log(1 - tiny) loses.
    np.testing.assert_allclose(log_ndtr(a), _truncnorm._log_ndtr(a), rtol=1e-12, atol=1e-15)
