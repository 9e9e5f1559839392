"""studies.lr_range: the command as a person types it."""

import tomllib
from pathlib import Path

import pytest

from studies import lr_range
from studies.errors import SpecError
from studies.spec import parse_spec


def test_the_command_says_a_range_that_a_spec_can_take_and_draws_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STUDIES_DB", raising=False)
    picture = lr_range.measure("wine", None)
    said = capsys.readouterr().out
    assert picture == tmp_path / "home" / "pictures" / "wine" / "lr-range.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.with_suffix(".svg").read_text().count("<svg") == 1
    assert "The loss falls from" in picture.with_suffix(".txt").read_text()
    line = next(line for line in said.splitlines() if line.startswith("in [search_space]:")).partition(":")[2].strip()
    own = tomllib.loads(line)["learning_rate"]
    assert 1e-4 < own["low"] < own["high"] < 10
    parse_spec(f'study = "a"\ndata = {{ source = "sklearn:wine" }}\n[search_space]\n{line}\n', "a.toml")
    assert lr_range.measure("wine", tmp_path / "here") == tmp_path / "here" / "lr-range.png"
    with pytest.raises(SpecError, match="must name a spec or a study"):
        lr_range.measure("nothing", None)
