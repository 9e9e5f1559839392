"""Draws the report's pictures with matplotlib: numbers in, SVG and PNG out."""

from functools import partial, singledispatch

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from studies.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    SKY,
    bars,
    bound,
    files,
    legend,
    limits,
    logarithmic,
    short,
)
from studies.pictures import (
    Calibration,
    Confusion,
    Curves,
    Dot,
    Importances,
    Phases,
    Progress,
    Rates,
    Residuals,
    Sizes,
    Trade,
)
from studies.records import COMPLETE, FAIL, PRUNED

_FRONT = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PINK, ":"), (BLACK, (0, (5, 1, 1, 1, 1, 1))))
_MANY = 400
"""Dots or lines, above which they are an image in the SVG."""
_TEXT_CLASSES = 12
"""Classes up to which each cell of a confusion says its count."""


def draw(picture: object) -> tuple[bytes, bytes]:
    """Draw a picture; returns it as SVG and as PNG."""
    return files(partial(_draw, picture))


@singledispatch
def _draw(picture: object, axes: Axes) -> None:
    raise TypeError(f"nobody draws {type(picture).__name__}")


@_draw.register
def _(p: Progress, axes: Axes) -> None:
    for dots, marker, color, name in (
        (p.pruned, "x", GREY, "pruned, at its last rung"),
        (p.complete, "o", SKY, "trained to its end"),
    ):
        if dots:
            x, y = zip(*dots, strict=True)
            is_many = len(dots) > _MANY
            axes.scatter(x, y, s=14, marker=marker, color=color, alpha=0.7, lw=0.9, label=name, rasterized=is_many)
    if p.best:
        places = [at for at, _ in p.best]
        values = [value for _, value in p.best]
        axes.step([*places, p.end], [*values, values[-1]], where="post", color=BLUE, lw=2, label="best so far")
        axes.plot(places[-1], values[-1], marker="D", color=BLUE, ms=6)
    bound(axes, [v for _, v in (*p.complete, *p.pruned)], p.objective)
    axes.set_xlim(0, p.end * 1.02)
    axes.set_xlabel("trials" if p.axis == "trials" else "seconds of the study, pauses left out")
    axes.set_ylabel(f"{p.objective.metric} on val" if p.objective.metric != "n_parameters" else "parameters")
    legend(axes)


@_draw.register
def _(p: Curves, axes: Axes) -> None:
    lines = [np.column_stack([np.arange(1, len(c.val_loss) + 1), c.val_loss]) for c in p.others]
    faint = LineCollection(lines, colors=GREY, linewidths=0.6, alpha=0.35 if len(lines) < 100 else 0.2)
    faint.set_rasterized(len(lines) > 20)
    axes.add_collection(faint)
    ends = [(len(c.val_loss), c.val_loss[-1]) for c in (*p.others, *p.top) if c.is_pruned]
    if ends:
        x, y = zip(*ends, strict=True)
        axes.scatter(
            x, y, marker="x", s=12, color=RED, lw=0.8, alpha=0.6, label="pruned", zorder=3, rasterized=len(ends) > 100
        )
    for curve, (color, style) in reversed(list(zip(p.top, _FRONT, strict=False))):
        epochs = np.arange(1, len(curve.val_loss) + 1)
        axes.plot(epochs, curve.val_loss, color=color, ls=style, lw=1.8, label=f"trial {curve.number}", zorder=4)
        axes.plot(curve.best_epoch, curve.val_loss[curve.best_epoch - 1], marker="o", color=color, ms=4.5, zorder=5)
    if p.top:
        best = p.top[0]
        epochs = np.arange(1, len(best.train_loss) + 1)
        axes.plot(
            epochs, best.train_loss, color=BLUE, lw=0.9, ls=(0, (1, 1)), label=f"trial {best.number} on train", zorder=4
        )
    low, high, is_wide = _loss_limits(p)
    axes.set_ylim(low, high)
    if is_wide:
        logarithmic(axes, "y")
    axes.set_xlim(1 if p.epochs > 1 else 0.5, p.epochs + (0.3 if p.epochs > 1 else 0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss on val")
    legend(axes, is_reversed=True)


def _loss_limits(p: Curves) -> tuple[float, float, bool]:
    """Where the axis of losses begins and ends, and whether it is logarithmic; diverging curves leave it."""
    front = _positive([v for c in p.top for v in c.val_loss] + [v for c in p.top[:1] for v in c.train_loss])
    known = _positive([v for c in (*p.others, *p.top) for v in c.val_loss])
    if not known.size:  # a loss may be 0 from the first epoch on
        return 0.0, 1.0, False
    low = float(min(known.min(initial=np.inf), front.min(initial=np.inf)))
    high = float(max(np.quantile(known, 0.95), front.max(initial=0.0)))
    if high > 8 * low:
        return low / 1.15, high * 1.3, True
    return max(0.0, low - 0.05 * (high - low)), high + 0.05 * (high - low or 1.0), False


def _positive(values: list[float]) -> NDArray[np.float64]:
    found = np.array(values, dtype=np.float64)
    kept: NDArray[np.float64] = found[np.isfinite(found) & (found > 0)]
    return kept


@_draw.register
def _(p: Importances, axes: Axes) -> None:
    bars(axes, p.shares, lambda share: f"{share:.0%}")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("share in what tells the best trials from all")


@_draw.register
def _(p: Phases, axes: Axes) -> None:
    bars(axes, p.seconds, lambda seconds: f"{seconds:,.1f} s")
    axes.set_xlabel("seconds")


@_draw.register
def _(p: Rates, axes: Axes) -> None:
    known = [d.value for d in p.dots if np.isfinite(d.value)]
    low, high = limits(known, p.objective)
    is_many = len(p.dots) > _MANY
    shown = None
    for state, marker, name in ((PRUNED, "x", "pruned"), (COMPLETE, "o", "trained to its end")):
        own = sorted(
            (d for d in p.dots if d.state == state and np.isfinite(d.value)),
            key=lambda d: d.value,
            reverse=p.objective.direction == "minimize",
        )
        if own:
            shown = axes.scatter(
                [d.x for d in own], [d.y for d in own], c=[d.value for d in own], marker=marker,
                cmap="cividis", vmin=low, vmax=high, s=20, lw=1, label=name, rasterized=is_many,
            )  # fmt: skip
    if failed := [d for d in p.dots if d.state == FAIL]:
        axes.scatter(
            [d.x for d in failed],
            [d.y for d in failed],
            marker="v",
            s=20,
            facecolors="none",
            edgecolors=RED,
            label="failed",
            rasterized=is_many,
        )
    axes.scatter(
        [p.best.x], [p.best.y], marker="*", s=150, color=ORANGE, edgecolors="black", lw=0.8, label="best", zorder=4
    )
    if p.is_log:
        logarithmic(axes, "x")
    if shown is not None and axes.figure is not None:
        bar = axes.figure.colorbar(shown, ax=axes, pad=0.02, extend="both")
        bar.set_label(f"{p.objective.metric} on val")
        bar.outline.set_visible(False)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("momentum")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=4, columnspacing=1, handletextpad=0.3)


@_draw.register
def _(p: Sizes, axes: Axes) -> None:
    _plane(axes, p.dots, p.front)
    logarithmic(axes, "x")
    bound(axes, [d.y for d in p.dots], p.objective)
    axes.set_xlabel("parameters")
    axes.set_ylabel(f"{p.objective.metric} on val")
    legend(axes)


@_draw.register
def _(p: Trade, axes: Axes) -> None:
    first, second = p.objectives
    _plane(axes, p.dots, p.front)
    if second.metric == "n_parameters":
        logarithmic(axes, "x")
    bound(axes, [d.y for d in p.dots], first)
    axes.set_xlabel(
        "parameters" if second.metric == "n_parameters" else f"{second.metric} on val ({second.direction}d)"
    )
    axes.set_ylabel(f"{first.metric} on val ({first.direction}d)")
    legend(axes)


def _plane(axes: Axes, dots: tuple[Dot, ...], front: tuple[Dot, ...]) -> None:
    """Trials as dots, and the front as a stepped line."""
    is_many = len(dots) > _MANY
    for state, marker, color, name in ((PRUNED, "x", GREY, "pruned"), (COMPLETE, "o", SKY, "trained to its end")):
        own = [d for d in dots if d.state == state]
        if own:
            axes.scatter(
                [d.x for d in own],
                [d.y for d in own],
                marker=marker,
                s=16,
                color=color,
                alpha=0.7,
                lw=0.9,
                label=name,
                rasterized=is_many,
            )
    x, y = [d.x for d in front], [d.y for d in front]
    axes.step(x, y, where="post", color=BLUE, lw=1.5, zorder=3)
    axes.plot(x, y, "D", color=BLUE, ms=5, label="Pareto front", zorder=4)


@_draw.register
def _(p: Confusion, axes: Axes) -> None:
    table = np.array(p.answers.confusion)
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(False)
    n = len(table)
    if n <= _TEXT_CLASSES:
        for i, j in np.ndindex(table.shape):
            if table[i, j]:
                axes.text(
                    j,
                    i,
                    f"{table[i, j]:,}",
                    ha="center",
                    va="center",
                    color="white" if share[i, j] > 0.55 else "black",
                    fontsize=9 if n <= 8 else 8,
                )
    ticks = np.arange(n) if n <= 20 else np.linspace(0, n - 1, 10).round().astype(int)
    names = [short(p.answers.classes[i]) for i in ticks]
    is_long = max(map(len, names)) * len(names) > 48
    axes.set_xticks(ticks, names, rotation=45 if is_long else 0, ha="right" if is_long else "center")
    axes.set_yticks(ticks, names)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("answered")
    axes.set_ylabel("true")


@_draw.register
def _(p: Calibration, axes: Axes) -> None:
    counts = np.array([n for n, _, _ in p.answers.calibration])
    sure = [confidence for _, confidence, _ in p.answers.calibration]
    right = [share for _, _, share in p.answers.calibration]
    axes.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1.2, label="as sure as right")
    axes.plot(sure, right, color=BLUE, lw=1.2, zorder=3)
    axes.scatter(
        sure, right, s=20 + 180 * counts / counts.max(), color=BLUE, alpha=0.75, zorder=4, label="rows (larger: more)"
    )
    for n, x, y in p.answers.calibration:
        axes.annotate(f"{n:,}", (x, y), textcoords="offset points", xytext=(7, -11), fontsize=8)
    low = min([*sure, *right]) - 0.08
    axes.set_xlim(max(-0.02, low), 1.04)
    axes.set_ylim(max(-0.04, low), 1.04)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("how sure it is")
    axes.set_ylabel("how often it is right")
    legend(axes)


@_draw.register
def _(p: Residuals, axes: Axes) -> None:
    predicted, missed = zip(*p.dots, strict=True)
    axes.axhline(0, color="black", lw=1)
    axes.scatter(
        predicted, missed, s=14, color=BLUE, alpha=0.6, lw=0, label="rows of test", rasterized=len(predicted) > _MANY
    )
    most = float(np.quantile(np.abs(missed), 0.9))
    for level, label in ((-most, None), (most, "nine in ten lie between")):
        axes.axhline(level, color=ORANGE, ls="--", lw=1.2, label=label)
    name = p.answers.targets[p.target]
    axes.xaxis.set_major_locator(MaxNLocator(5))  # numbers of many digits would run into each other
    axes.set_xlabel(f"predicted {short(name, 30)}")
    axes.set_ylabel("prediction − truth")
    legend(axes)
