"""Transfer learning on digits: to a new task of which few rows have labels, from a network that knows another one.

Twice: from 0 to 4 to 5 to 9, where the new classes were never seen; and from which digit it is to whether it is odd,
other rows of the same digits. Two sides learn the new task from the same labelled rows: one begins with the hidden
layers of a network that knows the old one (which layers are frozen, and how fast the others learn, is a part of its
configuration), the other from scratch. Twice again: with plain training, where a side has but a learning rate and its
start to choose; and with every cure for overfitting on both sides. Each side chooses among as many configurations,
which are drawn once, on one half of the new task's rows, by the mean accuracy over ten draws of labelled rows. Reported
is the other half: ten other draws, several networks for each, accuracy after the last epoch. Nothing is chosen there.
Logistic regression on the pixels stands beside them, its strength chosen in the same way.

Last, without any network, whether the old task holds what the new one needs: each row belongs to the nearest mean of
the labelled rows' classes, by distances in pixels, and by distances that count little where the rows of one class
differ among themselves (as in linear discriminant analysis), once as those of the old task do, once as the new one's.

    python -m benchmarks.transfer
    python -m benchmarks.transfer --configurations 16 --sizes 10 50
    python -m benchmarks.transfer --record

Needs nothing but dlcore's dependencies; with --record matplotlib, too. All networks of a size train as one population.
"""

import argparse
import math
import random
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks.record import provenance, record, table
from dlcore.backbone import Backbone, backbone_of
from dlcore.config import ModelConfig, TrainConfig
from dlcore.parallel import populate
from dlcore.population import Member, MemberState
from dlcore.rows import Rows, TensorData
from dlcore.tasks import Task

DRAWS = 10
NETWORKS = 5
"""Of each draw that is reported; their mean is the draw's figure."""
SIDES = ("transfer", "scratch")
TRAININGS = ("plain", "with cures")
SHAPES = {"one": (128,), "two": (128, 128), "wide": (256,)}
# A network that is trained for long keeps of its rows what tells 0 to 4 apart, and loses the rest, which 5 to 9 need:
# few epochs, noise and mixtures of rows work against that.
SHORT = TrainConfig(4, optimizer="adamw", learning_rate=1e-3, weight_decay=0.0, objective="accuracy")
LONG = replace(SHORT, epochs=60, schedule="cosine", noise=0.5, mixup=0.4)
SOURCES = [(shape, training) for shape in SHAPES for training in (SHORT, LONG)]
TRAINING = TrainConfig(60, batch_size=50, optimizer="adamw", schedule="cosine", objective="accuracy")
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SHRINKAGES = (0.05, 0.1, 0.3, 0.5, 0.8, 0.95)
HEADER = ["task", "training", "labelled rows", *SIDES, "lead, 95 % interval", "draws won", "p", "logistic regression"]
PLOT = Path(__file__).parent / "plots" / "transfer.svg"


@dataclass(frozen=True)
class Move:
    """Rows of an old task and of a new one, scaled alike, labels from 0."""

    name: str
    source: tuple[Tensor, Tensor]
    x: Tensor
    y: Tensor

    @property
    def n_classes(self) -> int:
        """Of the new task."""
        return int(self.y.max()) + 1

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        """Numbers of the new task's rows to choose on, and of those to report on."""
        order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(1))
        return order[: len(order) // 2], order[len(order) // 2 :]


@dataclass(frozen=True)
class Configuration:
    """How one network learns the new task."""

    model: ModelConfig
    training: TrainConfig
    backbone: Backbone | None = None

    def __str__(self) -> str:
        own = [f"{'-'.join(map(str, self.model.widths))}", f"rate {self.training.learning_rate:.2g}"]
        values = {"dropout": self.model.dropout, "noise": self.training.noise, "mixup": self.training.mixup}
        values |= {"decay": self.training.weight_decay, "smoothing": self.training.label_smoothing}
        own += [f"{name} {value:g}" for name, value in values.items() if value]
        if self.backbone is None:
            own.append(self.model.initialization)
        else:
            own += [f"{self.training.n_frozen} frozen", f"backbone at {self.training.backbone_rate:.2g} of the rate"]
        return ", ".join(own)


@dataclass(frozen=True)
class Comparison:
    """What both sides reach with so many labelled rows, one figure per draw."""

    task: str
    training: str
    size: int
    values: dict[str, list[float]]
    linear: list[float]

    @property
    def leads(self) -> list[float]:
        """Of transfer, per draw."""
        return [ours - theirs for ours, theirs in zip(*(self.values[side] for side in SIDES), strict=True)]

    def row(self) -> list[str]:
        """A line of the table."""
        mean, low, high = interval(self.leads)
        won = sum(lead > 0 for lead in self.leads)
        p_value = float(stats.ttest_1samp(self.leads, 0, alternative="greater").pvalue)
        return [
            self.task,
            self.training,
            str(self.size),
            *(f"{statistics.fmean(self.values[side]):.4f}" for side in SIDES),
            f"{mean:+.4f} ({low:+.4f} to {high:+.4f})",
            f"{won} of {len(self.leads)}",
            f"{p_value:.3f}",
            f"{statistics.fmean(self.linear):.4f}",
        ]


def moves() -> list[Move]:
    """Both; pixels are 0 to 16, and scaled the same way in all rows."""
    bunch = load_digits()
    x, y = (torch.from_numpy(bunch.data).float() - 5) / 6, torch.from_numpy(bunch.target).long()
    is_new = y >= 5
    half = torch.randperm(len(y), generator=torch.Generator().manual_seed(2)) < len(y) // 2
    return [
        Move("0 to 4, then 5 to 9", (x[~is_new], y[~is_new]), x[is_new], y[is_new] - 5),
        Move("which digit, then whether odd", (x[half], y[half]), x[~half], y[~half] % 2),
    ]


def trained(members: Sequence[Member], data: TensorData) -> Sequence[MemberState]:
    """All of them to the end."""
    population = populate(members, data, order_seed=0)
    for _ in population.advance(members[0].train_config.epochs):
        pass
    return population.states


def sources(move: Move) -> list[Backbone]:
    """Hidden layers of networks that know the old task."""
    x, y = move.source
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, val = order[len(x) // 5 :], order[: len(x) // 5]
    n_classes = int(y.max()) + 1
    data = TensorData(Task("multiclass", n_classes), x[train], y[train], x[val], y[val])
    found = []
    for seed, (shape, training) in enumerate(SOURCES):
        member = Member(ModelConfig(64, n_classes, SHAPES[shape]), training, seed=seed)
        (state,) = trained([member], data)
        assert state.best is not None
        words = f"source {SHAPES[shape]}, {training.epochs} epochs"
        print(f"{words}: {state.best.val_metric:.4f} on val of the old task", flush=True)
        found.append(backbone_of(member.model_config, state.best_weights))
    return found


def configurations(side: str, kind: str, n: int, n_classes: int, backbones: Sequence[Backbone]) -> list[Configuration]:
    """Those of a side, the same whatever the number of labelled rows; both sides draw alike what both have."""
    common, start = random.Random(kind), random.Random(f"{kind} {side}")
    found = []
    for _ in range(n):
        training, dropout = replace(TRAINING, learning_rate=10 ** common.uniform(-3.5, -1.5)), 0.0
        if kind == "with cures":
            dropout = common.choice([0.0, 0.2, 0.4])
            training = replace(
                training,
                weight_decay=common.choice([0.0, 0.1, 1.0]),
                noise=common.choice([0.0, 0.3, 0.6, 1.0]),
                mixup=common.choice([0.0, 0.0, 0.4]),
                label_smoothing=common.choice([0.0, 0.1]),
            )
        if side == "scratch":
            initialization = start.choice(["default", "kaiming_normal", "orthogonal"])
            widths = start.choice(list(SHAPES.values()))
            model = ModelConfig(64, n_classes, widths, initialization=initialization, dropout=dropout)
            found.append(Configuration(model, training))
            continue
        backbone = start.choice(backbones)
        n_frozen, rate = start.randint(0, len(backbone.widths)), 10 ** start.uniform(-2, 0)
        own = replace(training, n_frozen=n_frozen, backbone_rate=rate)
        found.append(Configuration(backbone.model_config(n_classes, dropout=dropout), own, backbone))
    return found


def draws(move: Move, rows: Tensor, size: int, largest: int) -> list[Rows]:
    """Labelled rows, of each class as many, and those to measure on: the same whatever the size."""
    y, n = move.y, move.n_classes
    found = []
    for seed in range(DRAWS):
        order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
        by_class = [order[y[order] == label] for label in range(n)]
        labelled = torch.stack([own[: largest // n] for own in by_class], 1)
        rest = torch.cat([own[largest // n :] for own in by_class])
        found.append(Rows(labelled[: size // n].flatten(), rest))
    return found


def accuracies(move: Move, own: Sequence[Configuration], rows: Sequence[Rows], n_networks: int) -> list[list[float]]:
    """Of each configuration and draw, after the last epoch, the mean over its networks; one that diverged guesses."""
    x, y, n_classes = move.x, move.y, move.n_classes
    members = [
        Member(each.model, each.training, seed=1000 * place + network, rows=some, backbone=each.backbone)
        for each in own
        for place, some in enumerate(rows)
        for network in range(n_networks)
    ]
    states = trained(members, TensorData(Task("multiclass", n_classes), x, y, x, y))
    last = iter([1 / n_classes if s.divergence is not None else s.curve[-1].val_metric for s in states])
    return [[statistics.fmean(next(last) for _ in range(n_networks)) for _ in rows] for _ in own]


def linear(move: Move, strength: float, rows: Sequence[Rows]) -> list[float]:
    """Accuracy of logistic regression on the pixels, for each draw."""
    x, y = (values.numpy() for values in (move.x, move.y))
    found = []
    for some in rows:
        train, val = some.train.numpy(), some.val.numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a weak penalty wants more iterations
            model = LogisticRegression(C=strength, max_iter=500).fit(x[train], y[train])
        found.append(float((model.predict(x[val]) == y[val]).mean()))
    return found


def within(x: Tensor, y: Tensor) -> Tensor:
    """How rows differ from the mean of their class: a covariance, all classes together."""
    centered = torch.cat([x[y == label] - x[y == label].mean(0) for label in range(int(y.max()) + 1)])
    return centered.T @ centered / len(centered)


def nearest_mean(move: Move, covariance: Tensor, shrinkage: float, rows: Sequence[Rows]) -> list[float]:
    """Accuracy for each draw, by Mahalanobis distance; a covariance shrunk wholly (1) is the distance in pixels."""
    plain = covariance.diagonal().mean() * torch.eye(len(covariance))
    values, vectors = torch.linalg.eigh(torch.lerp(covariance, plain, shrinkage))
    z, found = move.x @ vectors * values.rsqrt(), []
    for some in rows:
        means = torch.stack([z[some.train][move.y[some.train] == label].mean(0) for label in range(move.n_classes)])
        nearest = torch.cdist(z[some.val], means).argmin(1)
        found.append((nearest == move.y[some.val]).double().mean().item())
    return found


def held(move: Move, sizes: Sequence[int]) -> list[list[str]]:
    """Lines of the table: what each kind of distance reaches, its shrinkage chosen as configurations are."""
    kinds = {"pixels": (within(move.x, move.y), (1.0,))}
    kinds |= {"as rows of a class differ in the old task": (within(*move.source), SHRINKAGES)}
    kinds |= {"as they differ in the new one, all its labels known": (within(move.x, move.y), SHRINKAGES)}
    found = []
    for name, (covariance, shrinkages) in kinds.items():
        cells = []
        for size in sizes:
            to_choose, to_report = (draws(move, half, size, max(sizes)) for half in move.halves)
            means = {s: statistics.fmean(nearest_mean(move, covariance, s, to_choose)) for s in shrinkages}
            best = max(means, key=means.__getitem__)
            cells.append(f"{statistics.fmean(nearest_mean(move, covariance, best, to_report)):.4f}")
        found.append([name, *cells])
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by Student's t."""
    mean = statistics.fmean(values)
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - reach, mean + reach


def compare(move: Move, size: int, largest: int, n: int, backbones: Sequence[Backbone]) -> list[Comparison]:
    """Choose on one half of the rows, and measure on the other."""
    to_choose, to_report = (draws(move, half, size, largest) for half in move.halves)
    strength = max(STRENGTHS, key=lambda each: statistics.fmean(linear(move, each, to_choose)))
    own_linear, found = linear(move, strength, to_report), []
    for kind in TRAININGS:
        values = {}
        for side in SIDES:
            own = configurations(side, kind, n, move.n_classes, backbones)
            means = [statistics.fmean(each) for each in accuracies(move, own, to_choose, 1)]
            chosen = own[means.index(max(means))]
            print(f"{size:>4} rows, {kind}, {side}: {max(means):.4f} by {chosen}", flush=True)
            (values[side],) = accuracies(move, [chosen], to_report, NETWORKS)
        found.append(Comparison(move.name, kind, size, values, own_linear))
        print(" | ".join(found[-1].row()), flush=True)
    return found


def draw(found: Sequence[Comparison]) -> None:
    """Accuracy over labelled rows, one line per side, with the intervals over draws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    panels = list(dict.fromkeys((each.task, each.training) for each in found))
    n_tasks = len({task for task, _ in panels})
    grid = figure.subplots(n_tasks, len(TRAININGS), sharex=True, sharey="row", squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=True):
        own = [each for each in found if (each.task, each.training) == panel]
        lines = {side: [each.values[side] for each in own] for side in SIDES}
        lines["logistic regression"] = [each.linear for each in own]
        sizes = [each.size for each in own]
        for (name, values), color in zip(lines.items(), ("#0072b2", "#d55e00", "#555555"), strict=True):
            spans = [interval(each) for each in values]
            reach = [mean - low for mean, low, _ in spans]
            axes.errorbar(sizes, [mean for mean, _, _ in spans], reach, marker="o", capsize=3, color=color, label=name)
        axes.set(xscale="log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_title(f"{panel[0]}: {panel[1]}", loc="left")
        axes.grid(visible=True, alpha=0.25)
    figure.supxlabel("labelled rows of the new task")
    figure.supylabel("accuracy on rows that nobody saw, mean and 95 % interval over draws")
    grid.flat[0].legend(frameon=False, loc="lower right")
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[10, 50, 200], help="labelled rows, multiples of 10")
    parser.add_argument("--configurations", type=int, default=16, help="of each side")
    parser.add_argument("--record", action="store_true", help="put table and picture into RESULTS.md")
    arguments = parser.parse_args()
    print(provenance(), flush=True)
    largest, found = max(arguments.sizes), list[Comparison]()
    for move in moves():
        backbones, own = sources(move), list[Comparison]()
        for size in arguments.sizes:
            own += compare(move, size, largest, arguments.configurations, backbones)
        found += sorted(own, key=lambda each: TRAININGS.index(each.training))
    text = (
        f"Digits. Mean accuracy over {DRAWS} draws of labelled rows, {NETWORKS} networks each; "
        f"of {arguments.configurations} configurations a side the best one on other rows; p is one-sided, of the lead."
    )
    text = f"{text}\n\n{table(HEADER, [each.row() for each in found])}"
    first = moves()[0]
    header = [f"nearest class mean, {first.name}", *(f"{size} rows" for size in arguments.sizes)]
    text = f"{text}\n\n{table(header, held(first, arguments.sizes))}"
    print("\n" + text)
    if arguments.record:
        draw(found)
        record(
            "Transfer learning", f"{text}\n\n![Accuracy over labelled rows, transfer and scratch](plots/{PLOT.name})"
        )


if __name__ == "__main__":
    main()
