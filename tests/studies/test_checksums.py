import enum
from datetime import datetime

import pytest

from studies.checksums import COLUMNS, checksum


class State(enum.Enum):
    COMPLETE = 1


ROWS = {
    "trials": [(0, State.COMPLETE, datetime(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, 678))],
    "trial_params": [("width", 8.0, "{}"), ("depth", 1.0, "{}")],
    "dlcore_curves": [(1, 0.1 + 0.2, None, 0.5, 0.05, 1.0), (2, 0.1, 0.2, 0.5, 0.05, 2.0)],
}


def test_the_order_of_rows_does_not_matter() -> None:
    assert checksum(ROWS) == checksum({table: list(reversed(rows)) for table, rows in reversed(ROWS.items())})


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("trials", (1, State.COMPLETE, datetime(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, 678))),
        ("trials", (0, State.COMPLETE, datetime(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, 679))),
        ("trial_params", ("width", 8.000000000000002, "{}")),
        ("dlcore_curves", (1, 0.3, None, 0.5, 0.05, 1.0)),
        ("dlcore_curves", (1, 0.1 + 0.2, 0.0, 0.5, 0.05, 1.0)),
        ("trial_values", (0, 0.5, State.COMPLETE)),
    ],
)
def test_the_smallest_change_shows(table: str, row: tuple[object, ...]) -> None:
    kept = [old for old in ROWS.get(table, []) if old[0] != row[0] and table != "trials"]
    assert checksum(ROWS | {table: [*kept, row]}) != checksum(ROWS)


def test_what_is_no_column_is_refused() -> None:
    with pytest.raises(TypeError, match="object is no column"):
        checksum({"trials": [(0, object())]})


def test_a_trial_without_rows_has_one_too() -> None:
    assert len(checksum({})) == 64 and next(iter(COLUMNS)) == "trials"
