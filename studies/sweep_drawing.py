"""Draws the pictures of `studies lr-range` and `studies compare`: numbers in, SVG and PNG out."""

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from studies.canvas import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY, bound, files, legend, logarithmic
from studies.sweep_pictures import Picture, Race, RatePicture

_LANES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PINK, ":"), (BLACK, (0, (5, 1, 1, 1))), (SKY, (0, (1, 1))))


def draw(picture: Picture) -> tuple[bytes, bytes]:
    """Draw a picture; returns it as SVG and as PNG."""
    return files(partial(_rates, picture) if isinstance(picture, RatePicture) else partial(_race, picture))


def _rates(p: RatePicture, axes: Axes) -> None:
    low, high = p.ends
    if low is not None and high is not None:
        axes.axvspan(low, high, color=SKY, alpha=0.25, lw=0, label="the loss falls")
    axes.plot(p.rates, p.losses, color=GREY, lw=0.8, label="of each step")
    axes.plot(p.rates, p.smoothed, color=BLUE, lw=2, label="smoothed")
    if p.steepest is not None:
        axes.axvline(p.steepest, color=ORANGE, ls="--", lw=1.2, label="falls fastest")
    logarithmic(axes, "x")
    least, first = min(p.smoothed), p.smoothed[0]
    top = max(first, least) + 0.6 * (first - least or 1.0)
    axes.set_ylim(least - 0.08 * (top - least), top)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss on train")
    legend(axes)


def _race(p: Race, axes: Axes) -> None:
    known: list[float] = []
    n_trials = max((len(lane.mean) for lane in p.lanes), default=1)
    for place, (lane, (color, style)) in enumerate(zip(p.lanes, _LANES, strict=False)):
        thick = 2 + 1.5 * (len(p.lanes) - 1 - place)  # what lies on another one lets it be seen
        if len(lane.searches) > 1:
            for search in lane.searches:
                axes.step(np.arange(1, len(search) + 1), search, where="post", color=color, lw=0.7, alpha=0.4)
        mean = lane.mean
        axes.step(np.arange(1, len(mean) + 1), mean, where="post", color=color, ls=style, lw=thick, label=lane.sampler)
        known += [value for search in (*lane.searches, mean) for value in search if np.isfinite(value)]
    if known:
        bound(axes, known, p.objective)
    axes.set_xlim(1, max(2, n_trials))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trials")
    axes.set_ylabel(f"best {p.objective.metric} so far, on val")
    legend(axes)
