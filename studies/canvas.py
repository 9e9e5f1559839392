"""What all pictures of a report have in common: colours, letters, axes; and how they become files.

Colours are Okabe and Ito's, which people of every colour vision tell apart (jfly.uni-koeln.de/color); whatever a colour
says, a marker or a line style says too. Text stays text in the SVG; what there may be very much of is an image in it.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from studies.records import Objective

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
GREY = "#9a9a9a"
_SIZE_IN = (5.0, 3.4)
_PNG_DPI = 200
_IMAGE_DPI = 150
"""Of what is an image in an SVG."""
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.parse_math": False,  # a class may be called "$x"
    "svg.fonttype": "none",
    "svg.hashsalt": "dlcore",  # the same numbers give the same file
}


def files(paint: Callable[[Axes], None]) -> tuple[bytes, bytes]:
    """Let a function paint on axes; returns the picture as SVG and as PNG, the same for the same numbers."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE_IN, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure.subplots())
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", dpi=_IMAGE_DPI, metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return svg.getvalue(), png.getvalue()


def bars(axes: Axes, values: Mapping[str, float], text: Callable[[float], str]) -> None:
    """Horizontal bars, the first on top, each with its value as a text."""
    drawn = axes.barh(list(values), list(values.values()), color=BLUE, height=0.62)
    axes.bar_label(drawn, [text(v) for v in values.values()], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def limits(values: Sequence[float], objective: Objective) -> tuple[float, float]:
    """Where an axis of values begins and ends: all but the worst tenth, so that the good ones can be told apart."""
    found = np.array(values)
    if objective.direction == "maximize":
        low, high = float(np.quantile(found, 0.1)), float(found.max())
    else:
        low, high = float(found.min()), float(np.quantile(found, 0.9))
    return (low, high) if high > low else (low - 0.05 * abs(low or 1), high + 0.05 * abs(high or 1))


def bound(axes: Axes, values: Sequence[float], objective: Objective) -> None:
    """Show most of the values; where outliers are cut off, the axis says so by where it ends."""
    low, high = limits(values, objective)
    margin = 0.08 * (high - low)
    axes.set_ylim(low - margin, high + margin)


def logarithmic(axes: Axes, which: str) -> None:
    """Let the axis "x" or "y" be logarithmic, with numbers as people write them where there is room."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    subs = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(axes: Axes, *, is_reversed: bool = False) -> None:
    """What the marks mean, below the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if is_reversed:
        handles, labels = handles[::-1], labels[::-1]
    axes.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.45, -0.16), ncols=3, columnspacing=1.2, handletextpad=0.5
    )


def short(text: str, n: int = 14) -> str:
    """A name that may be very long, cut."""
    return text if len(text) <= n else text[: n - 1] + "…"
