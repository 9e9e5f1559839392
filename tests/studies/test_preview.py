from dlcore.columns import Finding
from studies.preview import MAX_LINES, column_table


def finding(name: str, kind: str = "numeric", why: str = "", n_missing: int = 0, example: str = "1.5") -> Finding:
    return Finding(name, kind, why, n_missing, 7, example)


def test_every_column_of_a_small_table_has_its_line() -> None:
    lines = column_table([finding("age", n_missing=1200), finding("id", "identifier", "counts the rows", example="0")])
    assert lines == [
        "column  kind        missing  distinct  example",
        "age     numeric       1,200         7  1.5",
        "id      identifier                  7  0        counts the rows",
    ]
    assert column_table([]) == []


def test_of_many_columns_the_notable_ones_are_shown_and_the_others_counted() -> None:
    plain = [finding(f"x{i}", "boolean" if i % 2 else "numeric") for i in range(100)]
    odd = [finding("city", "categorical"), finding("price", why="written as 1,234.5"), finding("hole", n_missing=3)]
    lines = column_table([*plain[:50], *odd, *plain[50:]])
    assert [line.split()[0] for line in lines] == ["column", "city", "price", "hole", "and"]
    assert lines[-1] == "and 100 more: 50 numeric, 50 boolean"
    lines = column_table([finding(f"c{i}", "categorical") for i in range(1000)])
    assert len(lines) == MAX_LINES + 2 and lines[-1] == "and 970 more: 970 categorical"


def test_a_cell_cannot_command_the_terminal_nor_fill_the_screen() -> None:
    [_, line] = column_table([finding("a\x1b[31m\nb", example="x" * 1000)])
    assert "\x1b" not in line and "\n" not in line and len(line) < 120
