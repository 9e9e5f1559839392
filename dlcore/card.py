"""The model card of an export: what a stranger must know before trusting its answers, as Markdown.

What dlcore knows stands here: the table, its columns in the training rows, the network, versions, limits. How the
network was found and how good it is comes from whoever trained it, as sections. Texts of the table are escaped.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from dlcore.cells import ISO, PLAIN
from dlcore.columns import Column
from dlcore.data import DataSplits
from dlcore.ensemble import Part
from dlcore.models import count_parameters

_COLUMNS = 100
"""Lines of the table of columns; the manifest has all of them."""
_CATEGORIES = 8
_FIRST_S, _LAST_S = -62_135_596_800.0, 253_402_300_799.0

Sections = Mapping[str, str]
"""Title -> Markdown."""


def model_card(
    manifest: Mapping[str, Any], parts: Sequence[Part], splits: DataSplits, title: str, sections: Sections
) -> str:
    """Write the card.

    Args:
        manifest: Of the export, with the outcome of its check.
        parts: Its networks.
        splits: What they learned from.
        title: Of the card.
        sections: What else is known, in order; they stand between the data and the limits.
    """
    own = {
        "How to use it": _usage(manifest),
        "Data": _data(splits),
        "Columns": _columns(splits),
        "Network": _network(manifest, parts),
        **sections,
        "Limits": _limits(splits),
        "Versions": table(("", "version"), list(manifest["versions"].items())),
    }
    texts = [f"# {escaped(title)}", _purpose(splits), *(f"## {name}\n\n{text.strip()}" for name, text in own.items())]
    return "\n\n".join(texts) + "\n"


def escaped(value: object, most: int = 60) -> str:
    """A text of somebody's table, so that it says in Markdown what it says, in one line."""
    text = " ".join(str(value).split())
    text = text if len(text) <= most else text[: most - 2] + ".."
    return re.sub(r"([\\`*_{}\[\]<>#|~$&!])", r"\\\1", text)


def table(header: Sequence[str], rows: Sequence[Sequence[object]], most: int = 60) -> str:
    """A Markdown table; what stands in it is escaped, and cut after so many characters."""
    lines = [header, ["---"] * len(header), *([escaped(cell, most) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def number(value: float) -> str:
    """A number as people read it."""
    return f"{value:,.6g}"


def _purpose(splits: DataSplits) -> str:
    names = ", ".join(escaped(name) for name in splits.target_names)
    if splits.task == "regression":
        return f"Answers the value of {names} for rows of a table, in its own unit."
    labels = ", ".join(escaped(label) for label in splits.class_labels[:20])
    more = f", .. ({len(splits.class_labels)} classes)" if len(splits.class_labels) > 20 else ""
    return f"Answers which {names} a row of a table has, and how likely each is: {labels}{more}."


def _usage(manifest: Mapping[str, Any]) -> str:
    outputs = ", ".join(escaped(name) for name in list(manifest["outputs"])[:12])
    return f"""```sh
python predict.py rows.csv > answers.csv    # needs onnxruntime and numpy only
sha256sum -c SHA256SUMS                     # are all files as they were written?
```

`rows.csv` has a header with the columns below, in any order; others are not read. An empty cell, and ?, NA, N/A, NaN,
null and none in any case, is a missing value. Each row is answered in its place with {outputs}. `model.onnx` takes the
same raw columns, all of shape (N,): texts as strings ("" where missing), all else as doubles (NaN where missing; true
is 1; dates are seconds since 1970-01-01 UTC). `weights.safetensors` and `model.json` load the network back in PyTorch
(`dlcore.export.load_network`)."""


def _data(splits: DataSplits) -> str:
    rows = [
        (name, f"{len(splits.split(name).x):,}", what)
        for name, what in (
            ("train", "fitted preprocessing and weights"),
            ("val", "chose among networks"),
            ("test", "is read for the winner of a study alone, once"),
        )
    ]
    folds = f" With {len(splits.folds)} folds, train and val took turns." if splits.folds else ""
    notes = "".join(f"\n- {escaped(note, 300)}" for note in splits.notes)
    return (
        f"Table {escaped(splits.name)}; sha256 of its values and its split {splits.fingerprint}.{folds}\n\n"
        + table(("rows", "number", "which"), rows)
        + (f"\n{notes}" if notes else "")
    )


def _columns(splits: DataSplits) -> str:
    columns = splits.train.x.columns
    rows = [(c.name, _kind(c), seen(c), f"{int(c.is_missing.sum()):,}") for c in columns[:_COLUMNS]]
    rest = f"\n\n{len(columns) - _COLUMNS:,} more stand in `model.json`." if len(columns) > _COLUMNS else ""
    return table(("column", "kind", "in the training rows", "missing there"), rows) + rest


def _kind(column: Column) -> str:
    """Its kind, and how its cells are written where that is not as everybody would read them."""
    return column.kind if column.form in ("", PLAIN, ISO) else f"{column.kind}, written as {column.form}"


def seen(column: Column) -> str:
    """What a column holds, in a few words."""
    there = column.values[~column.is_missing]
    if not len(there):
        return "no value"
    if column.kind == "categorical":
        codes = sorted(set(there.tolist()))
        names = ", ".join(column.categories[code][:20] for code in codes[:3])
        return f"{len(codes):,} texts: {names}{', ..' if len(codes) > 3 else ''}"
    if column.kind == "boolean":
        return f"true in {there.mean():.0%}"
    low, high = there.min(), there.max()
    if column.kind == "date":
        return f"{_date(low)} to {_date(high)}"
    is_alike = low != high and number(low) == number(high)
    return f"{low:,.12g} to {high:,.12g}" if is_alike else f"{number(low)} to {number(high)}"


def _date(seconds: float) -> str:
    if not _FIRST_S <= seconds <= _LAST_S:
        return f"{seconds:.0f} s"
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ").removesuffix("+00:00").removesuffix(" 00:00:00")


def _network(manifest: Mapping[str, Any], parts: Sequence[Part]) -> str:
    check = manifest["check"]
    lines = []
    if len(parts) > 1:
        what = "standardised values" if manifest["task"] == "regression" else "probabilities"
        weights = [part.weight for part in parts]
        counted = f", which count for {', '.join(map(str, weights))}" if set(weights) != {1} else ""
        lines.append(f"An ensemble: the mean of the {what} of {len(parts)} networks{counted}.\n")
    n_outputs = parts[0].config.n_outputs
    ends = f"{n_outputs} output{'s' if n_outputs > 1 else ''}"
    different = dict.fromkeys(
        (part.config.widths, part.config.activation, part.config.normalization, part.preprocessor.n_outputs)
        for part in parts
    )
    for widths, activation, normalization, n_inputs in list(different)[:20]:
        hidden = f"hidden layers of {', '.join(map(str, widths))} units, {activation}" if widths else "no hidden layer"
        hidden += f", {normalization} normalization" if widths and normalization != "none" else ""
        lines.append(f"- {n_inputs} inputs after preprocessing, {hidden}, {ends}")
    n_parameters = sum(count_parameters(part.config) for part in parts)
    lines.append(f"- {n_parameters:,} parameters (weights and biases), float32")
    lines.append(
        f"- on {check['rows']:,} rows, some with missing and unseen values, onnxruntime answers as PyTorch does to "
        f"{check['largest_difference']:.1e} (allowed: {check['tolerance']:.0e})"
    )
    return "\n".join(lines)


def _limits(splits: DataSplits) -> str:
    y = np.concatenate([splits.train.y, splits.val.y]) if splits.folds else splits.train.y
    lines = [
        f"It has seen {len(y):,} rows, and takes for granted that new rows come about as they did. It "
        "does not say when a row is unlike them.",
        "A number or a date outside the range that the table of columns gives is answered all the same; nothing is "
        "known of how well.",
        "A text that no training row has counts as a rare one, or as none of those seen.",
        f"Whatever is said of test is of {len(splits.test.x):,} rows; other rows would give other numbers.",
    ]
    if splits.task == "regression":
        for name, values in zip(splits.target_names, y.T, strict=True):
            kept = "; no answer lies outside" if splits.preprocessor.target_transform is not None else ""
            lines.append(f"{escaped(name)} is {number(values.min())} to {number(values.max())} in training{kept}.")
    else:
        counts = [int((y == i).sum()) for i in range(len(splits.class_labels))]
        rarest = sorted(zip(counts, map(escaped, splits.class_labels), strict=True))[:_CATEGORIES]
        told = ", ".join(f"{label} ({count:,})" for count, label in rarest)
        lines.append(f"Training rows of {'the rarest classes' if len(counts) > _CATEGORIES else 'each class'}: {told}.")
        lines.append("Probabilities were not calibrated beyond what training with log-loss does.")
    return "\n".join(f"- {line}" for line in lines)
