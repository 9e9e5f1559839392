"""Hyperparameter studies over dlcore: Optuna asks, cohorts train, SQL records, MLflow mirrors."""
