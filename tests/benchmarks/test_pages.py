"""benchmarks.pages: a table of seconds beside those of a page with nothing on it."""

from benchmarks.pages import EMPTY, RIVAL, body


def test_each_page_stands_beside_mlflows_own_without_runs() -> None:
    text = body(1000, {RIVAL: [9.0, 3.0, 4.0], EMPTY: [2.0, 1.0, 5.0]})
    assert "1,000 trials; 3 turns" in text
    assert [line.split("|")[2:-1] for line in text.split("\n") if line.startswith(f"| {RIVAL}")] == [
        [" 4.00 ", " 3.00 ", " 9.00 ", " 2.0 "]
    ]
