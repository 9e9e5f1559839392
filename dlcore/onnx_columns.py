"""`Preprocessor.transform` in ONNX: raw columns in, rows for the network out, all computed in double.

Columns that are treated alike are treated together, so that a table of a thousand numbers has a dozen nodes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from dlcore import dates
from dlcore.encoders import CategoryEncoder, DateEncoder, MeanEncoder, NumberEncoder
from dlcore.onnx_nodes import Graph, curves
from dlcore.preprocess import Preprocessor
from dlcore.scaling import HARD_LIMIT, SOFT_LIMIT, FloatArray, Knots, Robust, Standard

Places = list[tuple[int, int]]
"""Which output of which encoder each column of a block is."""


def input_type(kind: str) -> int:
    """The ONNX type of a raw column: text for categories, double for all else."""
    return int(TensorProto.STRING if kind == "categorical" else TensorProto.DOUBLE)


def encode_columns(graph: Graph, columns: Sequence[str], preprocessor: Preprocessor) -> str:
    """Raw columns, each (N,) -> rows (N, F) float."""
    encoders = preprocessor.encoders
    blocks: list[tuple[str, Places]] = []
    for form, scale in _SCALINGS.items():
        alike = [i for i, e in enumerate(encoders) if isinstance(e, NumberEncoder) and isinstance(e.scaler, form)]
        if alike:
            raw = graph.columns([columns[i] for i in alike])
            fill = graph.row([encoders[i].fill for i in alike])  # type: ignore[union-attr]
            filled = graph.add("Where", graph.add("IsNaN", raw), fill, raw)
            scaled = scale(graph, filled, [encoders[i].scaler for i in alike])  # type: ignore[union-attr]
            blocks.append((_float(graph, scaled), [(i, 0) for i in alike]))
    if holed := [i for i, encoder in enumerate(encoders) if getattr(encoder, "has_indicator", False)]:
        missing = graph.add("IsNaN", graph.columns([columns[i] for i in holed]))
        blocks.append((_float(graph, missing), [(i, preprocessor.widths[i] - 1) for i in holed]))
    for i, encoder in enumerate(encoders):
        if isinstance(encoder, DateEncoder):
            blocks.append((_date(graph, columns[i], encoder), [(i, part) for part in range(len(encoder.parts))]))
        elif isinstance(encoder, CategoryEncoder | MeanEncoder) and preprocessor.widths[i]:
            table = graph.constant(encoder.table.astype(np.float32))
            rows = graph.add("Gather", table, graph.number_of(columns[i], encoder.keys))
            blocks.append((rows, [(i, output) for output in range(preprocessor.widths[i])]))
    return _in_order(graph, blocks, preprocessor)


def _in_order(graph: Graph, blocks: Sequence[tuple[str, Places]], preprocessor: Preprocessor) -> str:
    """Blocks (N, ...) -> rows (N, F), with the outputs of the encoders one after the other."""
    together = graph.add("Concat", *(name for name, _ in blocks), axis=1)
    position = {place: i for i, place in enumerate(place for _, places in blocks for place in places)}
    order = [position[i, output] for i, width in enumerate(preprocessor.widths) for output in range(width)]
    if order == sorted(order):
        return together
    return graph.add("Gather", together, graph.whole(*order), axis=1)


def _float(graph: Graph, name: str) -> str:
    return graph.add("Cast", name, to=TensorProto.FLOAT)


def _standard(graph: Graph, x: str, scalers: Sequence[Standard]) -> str:
    """Values (N, F) -> (N, F), as all functions of `_SCALINGS`."""
    centred = graph.plus(x, [-scaler.mean for scaler in scalers])
    return graph.add("Div", centred, graph.row([scaler.scale for scaler in scalers]))


def _robust(graph: Graph, x: str, scalers: Sequence[Robust]) -> str:
    half = graph.number(2.0)
    centred = graph.plus(graph.add("Div", x, half), [-scaler.median / 2 for scaler in scalers])
    scaled = graph.add("Div", centred, graph.row([scaler.scale / 2 for scaler in scalers]))
    z = graph.add("Clip", scaled, graph.number(-HARD_LIMIT), graph.number(HARD_LIMIT))
    part = graph.add("Div", z, graph.number(SOFT_LIMIT))
    root = graph.add("Sqrt", graph.add("Add", graph.add("Mul", part, part), graph.number(1.0)))
    return graph.add("Div", z, root)


def _quantile_normal(graph: Graph, x: str, scalers: Sequence[Knots]) -> str:
    low, high = (graph.row([scaler.knots[end] for scaler in scalers]) for end in (0, -1))
    inside = graph.add("Min", graph.add("Max", x, low), high)
    scaled = graph.add("Div", inside, graph.row([scaler.unit for scaler in scalers]))
    pieces = []
    for scaler in scalers:
        knots, slopes = scaler.pieces()
        pieces.append((knots, np.asarray(scaler.levels), slopes))
    return curves(graph, scaled, pieces)


_SCALINGS: Mapping[type, Callable[[Graph, str, Sequence[Any]], str]] = {
    Standard: _standard,
    Robust: _robust,
    Knots: _quantile_normal,
}
"""Class of scaler -> its nodes."""


def _date(graph: Graph, name: str, encoder: DateEncoder) -> str:
    """Seconds (N,) -> the encoder's parts, standardised, (N, parts) float."""
    filled = graph.add("Where", graph.add("IsNaN", name), graph.number(encoder.fill), name)
    seconds = graph.add("Clip", filled, graph.number(dates.FIRST_S), graph.number(dates.LAST_S))
    parts = graph.columns([_DATE_PARTS[part](graph, seconds, encoder) for part in encoder.parts])
    centred = graph.add("Sub", parts, graph.row(encoder.mean))
    return _float(graph, graph.add("Div", centred, graph.row(encoder.scale)))


def _floor(graph: Graph, x: str, divisor: float) -> str:
    return graph.add("Floor", graph.add("Div", x, graph.number(divisor)))


def _rest(graph: Graph, x: str, whole: str, divisor: float) -> str:
    """X - whole * divisor."""
    return graph.add("Sub", x, graph.add("Mul", whole, graph.number(divisor)))


def _day_and_year(graph: Graph, seconds: str) -> tuple[str, str]:
    """`dates.day_and_year`: the day as an index (N,) int64, the year as double."""
    days = graph.add("Add", _floor(graph, seconds, dates.DAY_S), graph.number(dates.MARCH_0))
    era = _floor(graph, days, dates.ERA_DAYS)
    day = _rest(graph, days, era, dates.ERA_DAYS)
    leaps = graph.add("Sub", _floor(graph, day, 1460), _floor(graph, day, 36_524))
    leaps = graph.add("Add", leaps, _floor(graph, day, 146_096))
    year = _floor(graph, graph.add("Sub", day, leaps), 365)
    start = graph.add("Add", graph.add("Mul", year, graph.number(365)), _floor(graph, year, 4))
    start = graph.add("Sub", start, _floor(graph, year, 100))
    index = graph.add("Cast", graph.add("Sub", day, start), to=TensorProto.INT64)
    return index, graph.add("Add", year, graph.add("Mul", era, graph.number(400)))


def _of_day(table: FloatArray) -> Callable[[Graph, str, DateEncoder], str]:
    return lambda graph, seconds, encoder: graph.add("Gather", graph.constant(table), _day_and_year(graph, seconds)[0])


def _year(graph: Graph, seconds: str, encoder: DateEncoder) -> str:
    day, year = _day_and_year(graph, seconds)
    is_after_december = graph.constant((dates.MONTH_OF_DAY <= 2).astype(np.float64))
    return graph.add("Add", year, graph.add("Gather", is_after_december, day))


def _days(graph: Graph, seconds: str, encoder: DateEncoder) -> str:
    return graph.add("Div", graph.add("Sub", seconds, graph.number(encoder.fill)), graph.number(dates.DAY_S))


def _day_of_week(graph: Graph, seconds: str, encoder: DateEncoder) -> str:
    days = graph.add("Add", _floor(graph, seconds, dates.DAY_S), graph.number(3))
    return _rest(graph, days, _floor(graph, days, 7), 7)


def _time_of_day(phase: float) -> Callable[[Graph, str, DateEncoder], str]:
    def sine(graph: Graph, seconds: str, encoder: DateEncoder) -> str:
        rest = _rest(graph, seconds, _floor(graph, seconds, dates.DAY_S), dates.DAY_S)
        angle = graph.add("Mul", rest, graph.number(2 * np.pi / dates.DAY_S))
        return graph.add("Sin", graph.add("Add", angle, graph.number(phase)))

    return sine


_DATE_PARTS: Mapping[str, Callable[[Graph, str, DateEncoder], str]] = {
    "days": _days,
    "year": _year,
    "month": _of_day(dates.MONTH_OF_DAY),
    "day of week": _day_of_week,
    "day of year (sine)": _of_day(dates.SINE_OF_DAY),
    "day of year (cosine)": _of_day(dates.COSINE_OF_DAY),
    "time of day (sine)": _time_of_day(0.0),
    "time of day (cosine)": _time_of_day(np.pi / 2),
}
"""Name in `dates.PARTS` -> its nodes."""
