"""Which hyperparameters mattered: PED-ANOVA over the finished trials, as Optuna computes it.

It compares the best tenth of the trials with all of them: a hyperparameter matters where the best have it otherwise.
Source: Watanabe, Bansal, Hutter, "PED-ANOVA", IJCAI 2023 (arXiv:2304.10255); optuna.importance.
"""

import math
import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from studies.records import COMPLETE, PRUNED, Objective, TrialRecord
from studies.space import distributions
from studies.spec import StudySpec

LEAST = 20
"""Trials with a value below which the best tenth is one or two, and nothing is said."""
BEST_SHARE = 0.1


def importances(spec: StudySpec, objectives: Sequence[Objective], trials: Sequence[TrialRecord]) -> dict[str, float]:
    """The share of each searched hyperparameter in what tells the best trials from all, the largest first.

    A pruned trial counts with its value where it was cut: it is not among the best tenth, and shows where they are
    not. With several objectives only trials that were trained to their end have values.

    Args:
        spec: Gives the ranges of the search.
        objectives: Of the study.
        trials: Of the study.

    Returns:
        Shares that add up to 1; empty with fewer than `LEAST` trials that have a value, or where all have the same.
    """
    known = distributions(spec)
    frozen = [made for t in valued(trials, objectives) if (made := _frozen(t, known, len(objectives))) is not None]
    names = {name for t in frozen for name in t.params}
    if len(frozen) < LEAST or not names or len({tuple(t.values) for t in frozen}) == 1:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # brings scikit-learn: seconds

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # Optuna announces every new study
    study = optuna.create_study(directions=[StudyDirection[o.direction.upper()] for o in objectives])
    study.add_trials(frozen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it assumes minimization, which it asks the study about
        evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
        return {name: float(share) for name, share in get_param_importances(study, evaluator=evaluator).items()}


def valued(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    """The trials that are compared: those with a finite value for every objective."""
    return [
        t
        for t in trials
        if t.state in (COMPLETE, PRUNED)
        and len(t.values or ()) == len(objectives)
        and all(map(math.isfinite, t.values or ()))
    ]


def _frozen(trial: TrialRecord, known: Mapping[str, BaseDistribution], n_objectives: int) -> FrozenTrial | None:
    """A trial as Optuna takes it; None for one that the search space of today does not hold."""
    names = [name for name in trial.searched if name in known]
    params = {name: trial.hyperparameters[name] for name in names}
    if not all(_holds(known[name], value) for name, value in params.items()):
        return None
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        params=params,
        distributions={name: known[name] for name in names},
        values=list(trial.values or ())[:n_objectives],
    )


def _holds(distribution: BaseDistribution, value: object) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:  # a choice that is none
        return False
