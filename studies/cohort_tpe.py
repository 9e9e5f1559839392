"""TPE for whole cohorts: fitted a few times per cohort, drawn many times from each fit.

Optuna's TPESampler fits its two densities anew for every trial that is asked, over all trials told; at 1,000 trials
that takes longer than training them. Within a cohort nothing is told, and only the trials asked before it (which the
constant liar counts as bad) move the fit. So a cohort is asked in a few blocks: one fit for each, which sees the blocks
before it, and all draws of the block at once. A block of one is Optuna's own sampler, draw for draw (tested).

It overrides `_sample` and what that calls, which is private to Optuna 5: the test that compares both guards that.

Source: J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011; the constant liar:
D. Ginsbourger et al., "Kriging is well-suited to parallelize optimization", 2010; as in `optuna.samplers.TPESampler`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.sampler import _split_trials, default_gamma, default_gamma_multiobjective
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy.special import log_ndtr

from studies.parzen import log_density


class CohortTPESampler(TPESampler):
    """TPE whose fits serve a block of trials each. For one cohort: make a new one for the next."""

    def __init__(self, seed: int, block: int) -> None:
        """Fit once for every `block` trials that are asked."""
        with warnings.catch_warnings():
            # Without `group` a conditional hyperparameter drops out of the joint model.
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(seed=seed, multivariate=True, group=True, constant_liar=True)
        self._block = block
        self._draws: dict[tuple[str, ...], Iterator[dict[str, Any]]] = {}
        self._space: dict[str, BaseDistribution] | None = None
        self._told: tuple[list[FrozenTrial], list[FrozenTrial]] | None = None
        self._rows: dict[tuple[str, ...], dict[int, tuple[float, ...]]] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The space of the trials told; looked for once, since no trial is told while a cohort is asked."""
        if self._space is None:
            self._space = super().infer_relative_search_space(study, trial)
        return self._space

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """The next draw for these hyperparameters; where there is none left, a fit and its draws."""
        key = tuple(search_space)
        found = next(self._draws.get(key, iter(())), None)
        if found is None:
            self._draws[key] = self._fit(study, trial, search_space)
            found = next(self._draws[key])
        return found

    def _fit(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Iterator[dict[str, Any]]:
        """Fit to all other trials, and draw a block: of each `n_ei_candidates` candidates the best."""
        below, above = self._told_trials(study)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        liars = [t for t in running if t.number != trial.number]
        above = sorted([*above, *liars], key=lambda t: t.number)
        with _fast_log_ndtr():
            return iter(self._drawn(study, search_space, below, above))

    def _told_trials(self, study: Study) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """Good and bad ones; parted once, since no trial is told while a cohort is asked."""
        if self._told is None:
            told = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
            gamma = default_gamma if len(study.directions) == 1 else default_gamma_multiobjective
            self._told = _split_trials(study, told, gamma(len(told)))
        return self._told

    def _drawn(
        self,
        study: Study,
        search_space: dict[str, BaseDistribution],
        below: list[FrozenTrial],
        above: list[FrozenTrial],
    ) -> list[dict[str, Any]]:
        """A block of draws from the fit to good and bad trials."""
        good = self._build_parzen_estimator(study, search_space, below, handle_below=True)
        bad = self._build_parzen_estimator(study, search_space, above, handle_below=False)
        candidates = good.sample(self._rng.rng, self._block * self._n_ei_candidates)
        gains = (log_density(good, candidates) - log_density(bad, candidates)).reshape(self._block, -1)
        best = gains.argmax(1) + np.arange(self._block) * self._n_ei_candidates
        return [
            {name: search_space[name].to_external_repr(values[i].item()) for name, values in candidates.items()}
            for i in best
        ]

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, np.ndarray]:
        """Values of the trials that have all these hyperparameters; a told trial's are looked up once."""
        names = tuple(search_space)
        rows = self._rows.setdefault(names, {})
        found = []
        for trial in trials:
            row = rows.get(trial.number)
            if row is None:
                params = self._get_params(trial, study)
                has_all = search_space.keys() <= params.keys()
                row = tuple(d.to_internal_repr(params[name]) for name, d in search_space.items()) if has_all else ()
                if trial.state != TrialState.RUNNING:
                    rows[trial.number] = row
            if row:
                found.append(row)
        values = np.array(found, dtype=float).reshape(len(found), len(names))
        return {name: values[:, i] for i, name in enumerate(names)}


@contextmanager
def _fast_log_ndtr() -> Iterator[None]:
    """Let Optuna take log Phi from SciPy, a loop in C, where it has one in Python that takes most of a fit's time."""
    before = _truncnorm._log_ndtr
    _truncnorm._log_ndtr = log_ndtr
    try:
        yield
    finally:
        _truncnorm._log_ndtr = before
