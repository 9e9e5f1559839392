"""One network with a fixed architecture, as scikit-learn's estimators are used; no study, no Optuna, no MLflow.

`studies.estimators` searches for the architecture; these train the one that you name. Equal data, parameters,
random_state, versions, processor and n_jobs give the same network, to the bit.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from dlcore.config import DataConfig, ModelConfig, PreprocessConfig, TrainConfig
from dlcore.data import split_table, to_tensors
from dlcore.device import choose_device, using_threads
from dlcore.errors import ConfigError
from dlcore.export import export_model
from dlcore.seeding import derive_seed
from dlcore.tables import read_frame
from dlcore.tabular import Carried, Given, TableClassifier, TableEstimator, TableRegressor, n_threads, seed_of
from dlcore.training import train


class _Network(TableEstimator):
    """One feed-forward network on a table.

    The best of its epochs, by the loss on rows that are kept back from training, is what it answers with. There is no
    `sample_weight`: every row counts the same.

    Args:
        widths: Units of each hidden layer; () is a linear model.
        activation: relu, leaky_relu, sigmoid, tanh, gelu, silu, elu or selu.
        initialization: default, uniform, normal, xavier_uniform, xavier_normal, kaiming_uniform, kaiming_normal or
            orthogonal.
        dropout: Probability that a hidden unit is dropped, in [0, 0.99].
        epochs: Passes over the rows at most.
        batch_size: Rows of one weight update.
        optimizer: sgd or adamw.
        learning_rate: Its largest value; the schedule scales it.
        momentum: Of sgd, in [0, 1).
        weight_decay: Of weights, not of biases.
        schedule: constant, cosine or one_cycle.
        patience: Epochs without a better one after which training stops; None is never.
        scaling: Of numeric columns: standard, robust or quantile_normal.
        validation_fraction: Share of the rows that is kept back to choose the best epoch.
        device: auto, cpu, cuda or mps.
        n_jobs: Cores of the CPU; None is one, -1 all.
        random_state: A number, from which all chance follows; None draws one.

    Attributes:
        curve_: A row per epoch: losses and the metric on the rows kept back.
        best_epoch_: Counts from 1.
        n_parameters_: Weights and biases.
    """

    def __init__(  # noqa: PLR0913 - scikit-learn's way: each hyperparameter is an argument
        self,
        widths: Sequence[int] = (64,),
        *,
        activation: str = "relu",
        initialization: str = "default",
        dropout: float = 0.0,
        epochs: int = 40,
        batch_size: int = 128,
        optimizer: str = "sgd",
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        patience: int | None = 16,
        scaling: str = "standard",
        validation_fraction: float = 0.2,
        device: str = "cpu",
        n_jobs: int | None = None,
        random_state: Any = 0,
    ) -> None:
        """Keep the hyperparameters; they are checked by `fit`."""
        self.widths = widths
        self.activation = activation
        self.initialization = initialization
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.patience = patience
        self.scaling = scaling
        self.validation_fraction = validation_fraction
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _learn(self, given: Given) -> None:
        seed, device = seed_of(self.random_state), choose_device(self.device)
        config = DataConfig(
            target=given.targets,
            task=given.task,
            kinds=given.kinds,
            val_fraction=self.validation_fraction,
            test_fraction=0.0,
            preprocessing=PreprocessConfig(scaling=self.scaling),
        )
        splits = split_table(read_frame(given.frame, config), config, seed)
        architecture = ModelConfig(
            splits.n_features,
            splits.n_outputs,
            tuple(self.widths),
            activation=self.activation,
            initialization=self.initialization,
            dropout=self.dropout,
        )
        with using_threads(n_threads(self.n_jobs, os.cpu_count() or 1)):
            data = to_tensors(splits, device)
            order_seed, own_seed = derive_seed(seed, "order"), derive_seed(seed, "network")
            training = train(architecture, self._train_config(), data, seed=own_seed, order_seed=order_seed)
        if training.divergence is not None or training.best is None:
            found = training.divergence
            why = "no epoch had a finite loss" if found is None else f"in epoch {found.epoch}: {found.reason}"
            raise ConfigError(f"training must end with finite losses, and diverged ({why}): lower learning_rate")
        training.model.load_state_dict(training.best_weights)
        facts = {"estimator": type(self).__name__, "best_epoch": training.best.epoch, "random_state": seed}
        self.model_ = Carried.written(lambda folder: export_model(folder, training.model, architecture, splits, facts))
        self.curve_ = pd.DataFrame([asdict(epoch) for epoch in training.curve]).drop(columns="finished_at")
        self.best_epoch_ = training.best.epoch
        self.n_parameters_ = sum(own.numel() for own in training.model.parameters())

    def _train_config(self) -> TrainConfig:
        return TrainConfig(
            self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            patience=self.patience,
        )


class NetworkClassifier(TableClassifier, _Network):  # noqa: D101 - below
    __doc__ = _Network.__doc__


class NetworkRegressor(TableRegressor, _Network):  # noqa: D101 - below
    __doc__ = _Network.__doc__
