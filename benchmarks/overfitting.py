"""What each cure for overfitting does on tables that are made to overfit: few rows, a wide network, many epochs.

Each cure alone is added to one configuration per table, with one strength, and trained by the reference loop on five
seeds: of the split, the rows, the initial weights and their order. What is measured is the plain loss and accuracy of
the network after the last epoch (with early stopping: after its best one on val), on its own training rows, on val and
on test.

    python -m benchmarks.overfitting                                            # digits, 100 rows
    python -m benchmarks.overfitting water_potability.csv:Potability --rows 400
    python -m benchmarks.overfitting water_potability.csv:Potability wine_quality.csv:quality --record
"""

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.record import provenance, record, table
from dlcore.config import DataConfig, ModelConfig, TrainConfig
from dlcore.data import load_splits, split_tensors, to_tensors
from dlcore.evaluation import evaluate
from dlcore.rows import Rows, TensorData
from dlcore.training import Training

SEEDS = 5
DIGITS_ROWS = 100
WIDTHS = (256, 256)
TRAINING = TrainConfig(150, batch_size=32, optimizer="adamw", learning_rate=0.002)

CURES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    # name -> changes of the network, changes of the training
    "none": ({}, {}),
    "early stopping, patience 16": ({}, {"patience": 16}),
    "dropout 0.3": ({"dropout": 0.3}, {}),
    "weight decay 1": ({}, {"weight_decay": 1.0}),
    "noise 0.3": ({}, {"noise": 0.3}),
    "mixup 0.3": ({}, {"mixup": 0.3}),
    "label smoothing 0.1": ({}, {"label_smoothing": 0.1}),
    "class weights": ({}, {"class_weights": "balanced"}),
    "batch normalization": ({"normalization": "batch"}, {}),
    "layer normalization": ({"normalization": "layer"}, {}),
}
HEADER = ["cure", "train", "val", "gap", "test", "seeds better on test", "balanced, test", "loss: val", "gap ", "test "]


def few_rows(config: DataConfig, seed: int, n_rows: int) -> tuple[TensorData, tuple[torch.Tensor, torch.Tensor]]:
    """So many training rows, all of val, and all of test."""
    splits = load_splits(config, seed)
    data = to_tensors(splits, "cpu")
    order = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(seed))
    rows = Rows(order[:n_rows], torch.arange(len(data.x_val)))
    return rows.of(data), split_tensors(splits, "test", "cpu")


def measured(
    data: TensorData,
    test: tuple[torch.Tensor, torch.Tensor],
    cure: tuple[Mapping[str, object], Mapping[str, object]],
    seed: int,
) -> dict[str, dict[str, float]]:
    """Train one network; returns what it does on train, val and test."""
    of_model, of_training = cure
    model = replace(ModelConfig(data.x_train.shape[1], data.task.n_outputs, WIDTHS), **of_model)  # type: ignore[arg-type]
    training = Training(model, replace(TRAINING, **of_training), data, seed=seed, order_seed=seed)  # type: ignore[arg-type]
    training.advance(TRAINING.epochs)
    if "patience" in of_training:
        training.model.load_state_dict(training.best_weights)
    splits = {"train": (data.x_train, data.y_train), "val": (data.x_val, data.y_val), "test": test}
    return {name: evaluate(training.model, data.task, *rows) for name, rows in splits.items()}


def lines_of(config: DataConfig, n_rows: int) -> list[list[str]]:
    """One line for each cure."""
    tables = [few_rows(config, seed, n_rows) for seed in range(SEEDS)]
    found = {
        name: [measured(data, test, cure, seed) for seed, (data, test) in enumerate(tables)]
        for name, cure in CURES.items()
    }
    plain = [seed["test"]["accuracy"] for seed in found["none"]]
    lines = []
    for name, seeds in found.items():

        def mean(split: str, metric: str = "accuracy", seeds: list[dict[str, dict[str, float]]] = seeds) -> float:
            return statistics.fmean(seed[split][metric] for seed in seeds)

        own = [seed["test"]["accuracy"] for seed in seeds]
        better = sum(ours > others for ours, others in zip(own, plain, strict=True))
        lines.append([
            name,
            *(f"{mean(split):.4f}" for split in ("train", "val")),
            f"{mean('train') - mean('val'):.4f}",
            f"{mean('test'):.4f} +- {statistics.stdev(own):.4f}",
            "" if name == "none" else f"{better} of {SEEDS}",
            f"{mean('test', 'balanced_accuracy'):.4f}",
            f"{mean('val', 'loss'):.3f}",
            f"{mean('val', 'loss') - mean('train', 'loss'):.3f}",
            f"{mean('test', 'loss'):.3f}",
        ])  # fmt: skip
        print(" | ".join(lines[-1]), flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="FILE:TARGET", help="tables of classes, beside the digits")
    parser.add_argument("--rows", type=int, default=400, help="training rows of these")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(provenance(), flush=True)
    cases = [("digits", DataConfig("sklearn:digits"), DIGITS_ROWS)]
    for given in arguments.tables:
        path, _, target = given.rpartition(":")
        # Half of the rows for val and test together would do; more of them make the figures steadier.
        own = DataConfig(path=path, target=(target,), val_fraction=0.3, test_fraction=0.3)
        cases.append((Path(path).stem, own, arguments.rows))
    parts = [
        f"ReLU networks of {WIDTHS[0]} and {WIDTHS[1]} units, AdamW at {TRAINING.learning_rate:g}, batches of "
        f"{TRAINING.batch_size}, {TRAINING.epochs} epochs, one cure at a time; accuracies, then losses, means over "
        f"{SEEDS} seeds (of the split too), measured without the cure. Gap is train less val, of losses val less train."
    ]
    for name, config, n_rows in cases:
        print(f"\n{name}, {n_rows} training rows", flush=True)
        parts.append(f"{name}, {n_rows} training rows:\n\n{table(HEADER, lines_of(config, n_rows))}")
    body = "\n\n".join(parts)
    print(f"\n{body}")
    if arguments.record:
        record("Cures for overfitting", body)


if __name__ == "__main__":
    main()
