"""What the columns of a table were found to be, as lines for people: read before anything is trained."""

from collections import Counter
from collections.abc import Sequence

from dlcore.columns import Finding

MAX_LINES = 30
_MAX_CELL = 32
_HEAD = ("column", "kind", "missing", "distinct", "example", "")
_NOT_NOTABLE = ("numeric", "boolean")


def column_table(findings: Sequence[Finding]) -> list[str]:
    """A heading and a line for each column; of many columns only those that are notable, and how many others.

    Notable are columns that are no plain numbers, or have holes, or of which something is to be said.
    """
    if not findings:
        return []
    shown = list(findings)
    if len(shown) > MAX_LINES:
        notable = [f for f in shown if f.kind not in _NOT_NOTABLE or f.why]
        with_holes = [f for f in shown if f.n_missing and f not in notable]
        chosen = {id(f) for f in [*notable, *with_holes][:MAX_LINES]}
        shown = [f for f in shown if id(f) in chosen]
    rows = [_HEAD, *(_cells(finding) for finding in shown)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = [
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(row, widths, (0, 0, 1, 1, 0, 0), strict=True)
        ).rstrip()
        for row in rows
    ]
    n_more = len(findings) - len(shown)
    if n_more:
        kinds = Counter(f.kind for f in findings)
        kinds.subtract(Counter(f.kind for f in shown))
        found = ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common() if n)
        lines.append(f"and {n_more:,} more: {found}")
    return lines


def _cells(finding: Finding) -> tuple[str, ...]:
    n_missing = f"{finding.n_missing:,}" if finding.n_missing else ""
    example = _short(finding.example)
    return _short(finding.name), finding.kind, n_missing, f"{finding.n_distinct:,}", example, finding.why


def _short(text: str) -> str:
    """One line that a terminal cannot take for a command."""
    plain = "".join(sign if sign.isprintable() else "�" for sign in text)
    return plain if len(plain) <= _MAX_CELL else plain[: _MAX_CELL - 1] + "…"
