"""benchmarks.pages: a table of seconds beside those of a page with nothing on it."""

from benchmarks.pages import EMPTY, RIVAL, Visit, body


def test_each_page_stands_beside_mlflows_own_without_runs() -> None:
    ours = [Visit(9.0, 5.0), Visit(3.0, 2.0), Visit(4.0, 3.0)]
    text = body(1000, {RIVAL: ours, EMPTY: [Visit(2.0, 1.0), Visit(1.0, 1.5), Visit(5.0, 2.0)]})
    assert "1,000 trials; 3 turns" in text
    (line,) = [line for line in text.split("\n") if line.startswith(f"| {RIVAL}")]
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["4.00", "3.00-9.00", "2.0", "3.00", "2.00-5.00", "2.0"]
