"""Several networks that answer as one: the mean of what each of them predicts.

Probabilities are averaged; of a regression the standardised values, before a target transform is undone: the mean is
taken where the loss is. The mean is given as outputs, so that an ensemble is measured and exported like a network.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlcore.columns import Features
from dlcore.config import ModelConfig
from dlcore.preprocess import Preprocessor
from dlcore.scaling import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A network, and what stands before it."""

    network: nn.Sequential
    """From preprocessed rows (N, F) to (N, C)."""
    config: ModelConfig
    preprocessor: Preprocessor
    weight: int = 1
    """How many networks it counts for."""


@dataclass(frozen=True, slots=True)
class Preprocessors:
    """Different preparations of the same columns, their outputs side by side: what an `Ensemble` reads."""

    each: tuple[Preprocessor, ...]

    def transform(self, features: Features) -> FloatArray:
        """Raw columns of N rows -> (N, F of the first + F of the second + ..)."""
        return np.concatenate([own.transform(features) for own in self.each], axis=1)

    def unscale_target(self, y: FloatArray, *, is_prediction: bool = False) -> FloatArray:
        """As each of them does: they differ in features alone."""
        return self.each[0].unscale_target(y, is_prediction=is_prediction)


class Ensemble(nn.Module):
    """Networks whose outputs become those of one."""

    def __init__(
        self, task: str, networks: Sequence[nn.Sequential], reads: Sequence[slice], weights: Sequence[int]
    ) -> None:
        """Use `as_one`.

        Args:
            task: One of `dlcore.config.TASKS`.
            networks: At least one, with equally many outputs.
            reads: Which inputs each of them reads.
            weights: How many networks each of them counts for.
        """
        super().__init__()
        self.task, self.reads, self.weights = task, tuple(reads), tuple(weights)
        self.members = nn.ModuleList(networks)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (B, F of all preprocessors) -> outputs (B, C)."""
        outputs = [member(rows[:, own]) for member, own in zip(self.members, self.reads, strict=True)]
        counted = [own for own, weight in zip(outputs, self.weights, strict=True) for _ in range(weight)]
        return averaged(self.task, torch.stack(counted))


def as_one(task: str, parts: Sequence[Part]) -> tuple[Ensemble, Preprocessors]:
    """The parts as one module, and what prepares its rows."""
    different = different_preprocessors(parts)
    ends = np.cumsum([own.n_outputs for own in different]).tolist()
    slices = [slice(end - own.n_outputs, end) for own, end in zip(different, ends, strict=True)]
    reads = [slices[different.index(part.preprocessor)] for part in parts]
    weights = [part.weight for part in parts]
    return Ensemble(task, [part.network for part in parts], reads, weights), Preprocessors(different)


def each_once(parts: Sequence[Part]) -> list[Part]:
    """The parts, in order; a network that is there several times is there once, and counts so often (alone once)."""
    counts: dict[int, int] = {}
    for part in parts:
        counts[id(part.network)] = counts.get(id(part.network), 0) + part.weight
    first = {id(part.network): part for part in reversed(parts)}
    return [replace(first[own], weight=n if len(counts) > 1 else 1) for own, n in counts.items()]


def different_preprocessors(parts: Sequence[Part]) -> tuple[Preprocessor, ...]:
    """Those of the parts, each once, in order."""
    found: list[Preprocessor] = []
    for part in parts:
        if part.preprocessor not in found:
            found.append(part.preprocessor)
    return tuple(found)


def averaged(task: str, outputs: Tensor) -> Tensor:
    """Outputs of M networks (M, B, C) -> the outputs (B, C) of which a task makes the mean of their predictions.

    In logarithms, so that no probability is lost, however small: log(mean p) = logsumexp(log p) - log M.
    """
    if task == "regression":
        return outputs.mean(0)
    if task == "binary":  # log(mean p / mean (1 - p)): both sums are over the same M
        return F.logsigmoid(outputs).logsumexp(0) - F.logsigmoid(-outputs).logsumexp(0)
    return F.log_softmax(outputs, -1).logsumexp(0) - math.log(len(outputs))
