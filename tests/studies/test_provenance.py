import subprocess
from pathlib import Path

import pytest

from studies.provenance import changed, environment, git_commit, mathematics_changed


def test_versions_and_machine_are_text() -> None:
    found = environment(threads=2, device="a processor", capability="AVX2")
    assert found["torch"].startswith("2.") and found["threads"] == "2" and found["device"] == "a processor"
    assert all(isinstance(value, str) and value for value in found.values())


def test_what_decides_the_bits_is_compared_and_nothing_else() -> None:
    now = environment(threads=2, device="a processor", capability="AVX2")
    assert changed(now | {"git_commit": "another"}, now) == []
    assert changed(now | {"torch": "1.0"}, now) == [f"torch 1.0 -> {now['torch']}"]
    assert changed({}, {"threads": "1"}) == ["threads ? -> 1"]


def test_a_study_from_before_sgds_decay_was_decoupled_is_told_from_one_that_came_after() -> None:
    plain = environment(threads=2, device="a processor", capability="AVX2")
    decays = environment(threads=2, device="a processor", capability="AVX2", decays_sgd=True)
    assert changed(plain, decays) == ["weight_decay of SGD coupled -> decoupled"]
    assert mathematics_changed(plain, decays)
    assert changed(decays, decays) == [] and not mathematics_changed(decays, decays)
    assert not mathematics_changed(plain | {"torch": "1.0"}, plain), "a study without it trains as before"


def test_the_commit_of_the_working_directory_is_told_with_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert git_commit() == {}

    def git(*words: str) -> str:
        options = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *options, *words], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "one")
    commit = git("rev-parse", "HEAD")
    assert git_commit() == {"git_commit": commit}
    (tmp_path / "a").write_text("2")
    assert git_commit() == {"git_commit": f"{commit}-dirty"}
