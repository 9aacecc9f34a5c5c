"""Which genes set the better candidates of a search apart."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from evolve.trials.trial import Trial

_TELLING = 10  # candidates, from which on something can be told of their genes


def gene_importances(trials: Sequence[Trial]) -> dict[str, float]:
    """Gene -> its share in what sets the better candidates apart; empty where too few were scored to tell.

    PED-ANOVA (Watanabe et al., PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces,
    2023), as Optuna has it, over the values that were tried.

    Args:
        trials: candidates with an objective.
    """
    if len(trials) < _TELLING:
        return {}
    distributions = {
        name: _distribution([trial.genes[name] for trial in trials])
        for name in trials[0].genes
        if all(name in trial.genes for trial in trials) and len({str(trial.genes[name]) for trial in trials}) > 1
    }
    if not distributions:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials([_frozen(trial, distributions) for trial in trials])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(distributions))


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return FloatDistribution(float(min(values)), float(max(values)))
    return CategoricalDistribution(list(dict.fromkeys(values)))


def _frozen(trial: Trial, distributions: Mapping[str, BaseDistribution]) -> optuna.trial.FrozenTrial:
    genes = {name: trial.genes[name] for name in distributions}
    return optuna.trial.create_trial(value=trial.objective, params=genes, distributions=dict(distributions))
