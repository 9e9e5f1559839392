from datetime import UTC, datetime

import numpy as np
import pytest

from dlcore.cells import AMBIGUOUS, DATE_FORMS, numbers_of, times_of, truths_of


@pytest.mark.parametrize(
    ("texts", "decimal", "numbers", "form"),
    [
        (["1", "-2.5", "3e2", ".5", "+4"], ".", [1, -2.5, 300, 0.5, 4], "1234.5"),
        (["1,234", "-12,345,678.9", "7"], ".", [1234, -12345678.9, 7], "1,234.5"),
        (["1.234,5", "7", "-3,25"], ".", [1234.5, 7, -3.25], "1.234,5"),
        (["1,5", "2,25"], ".", [1.5, 2.25], "1 234,5"),
        (["1 234,5", "7"], ".", [1234.5, 7], "1 234,5"),
        (["1'234.5", "999"], ".", [1234.5, 999], "1 234.5"),
        (["1\u202f234", "999"], ".", [1234, 999], "1 234.5"),
        (["1,234", "5,678"], ".", [1234, 5678], "1,234.5"),  # a comma alone: where commas separate columns, thousands,
        (["1,234", "5,678"], "?", [1.234, 5.678], "1.234,5"),  # where they do not, decimal,
        (["0,125", "5,678"], ".", [0.125, 5.678], "1 234,5"),  # unless some cell cannot be the one or the other
        (["1,234", "5,678,901"], "?", [1234, 5678901], "1,234.5"),
        (["1.234", "5.678"], "?", [1.234, 5.678], "1234.5"),
        (["1.234", "5.678"], ",", [1234, 5678], "1.234,5"),
        (["1.25", "5.678"], ",", [1.25, 5.678], "1234.5"),
        (["1e400", "1"], ".", [np.inf, 1], "1234.5"),
        (["$1.50", "-$2", "$-3", "$ 4"], ".", [1.5, -2, -3, 4], "$1234.5"),
        (["12.3%", "-5 %"], ".", [12.3, -5], "1234.5%"),
        (["1,234 €", "7 €"], ".", [1234, 7], "1,234.5€"),
        (["1.234,50 €", "7 €"], "?", [1234.5, 7], "1.234,5€"),
    ],
)
def test_a_column_of_numbers_is_read_as_it_is_written(
    texts: list[str], decimal: str, numbers: list[float], form: str
) -> None:
    found = numbers_of(texts, decimal=decimal)
    assert found is not None and found[1] == form
    assert found[0].tolist() == pytest.approx(numbers, rel=1e-15)
    again = numbers_of(texts, decimal=".", form=form)
    assert again is not None and again[0].tolist() == found[0].tolist()


@pytest.mark.parametrize(
    "texts",
    [
        ["1.5", "1,5"],
        ["1,23,456"],
        ["1_000"],
        ["12 34"],
        ["1,234.5", "1.234,5"],
        ["5", "five"],
        ["0x1"],
        ["1.2.3"],
        ["٣,٥ "],
        ["$1", "2"],
        ["$1", "€2"],
        ["1%", "2€"],
        ["$1€"],
        ["%5"],
        ["$"],
        ["-$-1"],
    ],
)
def test_what_is_not_written_in_one_way_is_no_column_of_numbers(texts: list[str]) -> None:
    for decimal in ".?,":
        assert numbers_of(texts, decimal=decimal) is None


def test_the_way_of_most_cells_is_taken_where_others_may_be_missing() -> None:
    found = numbers_of(["1,5", "unknown", "2,5", "3"], decimal="?", is_strict=False)
    assert found is not None
    np.testing.assert_array_equal(found[0], [1.5, np.nan, 2.5, 3])
    assert numbers_of(["a", "b"], decimal=".", is_strict=False) is None


def test_truth_is_said_in_pairs_of_words() -> None:
    for texts, truths in (
        (["TRUE", "False"], [1, 0]),
        (["no", "Yes"], [0, 1]),
        (["yes"], [1]),
        (["true", "0"], [1, 0]),
    ):
        found = truths_of(texts)
        assert found is not None and found.tolist() == truths
    for texts in (["0", "1"], ["yes", "false"], ["true", "maybe"], ["1"]):
        assert truths_of(texts) is None


@pytest.mark.parametrize(
    ("texts", "form", "moment"),
    [
        (["2024-02-29"], "year-month-day", datetime(2024, 2, 29)),
        (["2024-02-29T12:30:05.25Z"], "year-month-day", datetime(2024, 2, 29, 12, 30, 5, 250_000)),
        (["2024-02-29 12:30+02:00"], "year-month-day", datetime(2024, 2, 29, 10, 30)),
        (["2024/2/9 1:05"], "year-month-day", datetime(2024, 2, 9, 1, 5)),
        (["3.4.2024"], "day/month/year", datetime(2024, 4, 3)),
        (["3/4/2024", "13/4/2024"], "day/month/year", datetime(2024, 4, 3)),
        (["3/4/2024", "4/13/2024"], "month/day/year", datetime(2024, 3, 4)),
        (["4/4/2024"], "day/month/year", datetime(2024, 4, 4)),
        (["3 Apr 2024", "4-May-2023"], "day month year", datetime(2024, 4, 3)),
        (["September 3, 2024"], "month day year", datetime(2024, 9, 3)),
        (["0001-01-01"], "year-month-day", datetime(1, 1, 1)),
    ],
)
def test_a_column_of_dates_is_read_as_it_is_written(texts: list[str], form: str, moment: datetime) -> None:
    found = times_of(texts)
    assert isinstance(found, tuple) and found[1] == form
    assert found[0][0] == moment.replace(tzinfo=UTC).timestamp()
    assert set(DATE_FORMS) >= {form}


@pytest.mark.parametrize(
    "texts",
    [
        ["2024-02-30"],
        ["2024-02-29", "soon"],
        ["13/13/2024"],
        ["13/4/2024", "4/13/2024"],
        ["2024"],
        ["20240229"],
        ["1-2-3"],
        ["2024-02-29 25:00"],
        ["3 Foo 2024"],
        ["2024-02/29"],
        ["3/4/24"],
    ],
)
def test_what_is_no_date_for_certain_is_none(texts: list[str]) -> None:
    assert times_of(texts) is None


def test_days_that_may_be_months_are_ambiguous_until_a_person_says_so() -> None:
    texts = ["3/4/2024", "5/6/2023"]
    assert times_of(texts) == AMBIGUOUS
    days_first, months_first = times_of(texts, is_wanted=True), times_of(texts, form="month/day/year")
    assert isinstance(days_first, tuple) and days_first[1] == "day/month/year"
    assert isinstance(months_first, tuple) and months_first[0][0] == datetime(2024, 3, 4, tzinfo=UTC).timestamp()
    wanted = times_of(["20240229"], is_wanted=True)
    assert isinstance(wanted, tuple) and wanted[0][0] == datetime(2024, 2, 29, tzinfo=UTC).timestamp()
