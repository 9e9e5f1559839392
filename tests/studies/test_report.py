import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from studies import note, pictures, report, sentences
from studies.drawing import draw
from studies.errors import UserError
from studies.home import Home
from studies.pictures import Material
from studies.records import FAIL, PRUNED, RUNNING, Answers, Objective, StudyFacts, TrialRecord
from studies.report_process import ReportProcess
from studies.runs import SIGN, STORY
from studies.spec import spec_from_dict
from studies.tracking_store import Refused
from tests.conftest import Studies

Make = Callable[..., TrialRecord]
Facts = Callable[..., StudyFacts]
SPEC: dict[str, object] = {"study": "wine", "budget": {"trials": 40}, "data": {"source": "sklearn:wine"}}


def of(facts: StudyFacts, trials: list[TrialRecord]) -> Material:
    objectives = [{"metric": o.metric, "direction": o.direction} for o in facts.objectives]
    spec = spec_from_dict(SPEC | {"objective": objectives})
    return Material(dataclasses.replace(facts, spec=spec.to_dict()), spec, tuple(trials), {}, None)


def test_a_report_is_one_page_that_needs_nothing_and_a_png_of_each_picture(finished_home: Home, tmp_path: Path) -> None:
    page = report.write_report(finished_home, "wine", tmp_path / "out").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)[^"']""", page) and "<script" not in page
    shown = re.findall(r'<figure id="([^"]+)">', page)
    assert {"best-over-trials", "best-over-seconds", "curves", "parameters", "phases", "confusion", "calibration"} <= {
        *shown
    }
    assert {p.stem for p in (tmp_path / "out" / "pictures").iterdir()} == set(shown)
    for text in re.findall(r'alt="([^"]*)"', page):
        assert len(text) > 40
    first = {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    report.write_report(finished_home, "wine", tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")} == first


def test_a_folder_with_other_files_is_left_alone(finished_home: Home, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        report.write_report(finished_home, "wine", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match='no study "rum"'):
        report.write_report(finished_home, "rum", tmp_path / "out")


def test_a_study_that_failed_is_empty_or_runs_has_sentences_for_pictures(make_facts: Facts, make_trial: Make) -> None:
    failed = [make_trial(i, None, FAIL, reason="diverged in epoch 1", curve=(), best_epoch=None) for i in range(4)]
    running = [make_trial(0), make_trial(1, 0.4, PRUNED), make_trial(2, None, RUNNING, curve=(), best_epoch=None)]
    for trials, expected in (([], "no trial has a value"), (failed, "4 failed"), (running, "not at its end")):
        own = of(make_facts(), trials)
        files = report.report_files(own)
        assert expected in files["report.html"].decode()
        assert files[STORY].decode().endswith(SIGN)


def test_the_story_begins_with_its_headline_in_bold(make_facts: Facts, make_trial: Make) -> None:
    told = report.report_files(of(make_facts(name="a_b"), [make_trial(0, 0.5)]))[STORY].decode()
    assert told.startswith("**a\\_b: so far the best accuracy on val is 0.5000 (trial 0)**\n\n")


def test_names_of_others_are_no_markup(make_facts: Facts, make_trial: Make) -> None:
    facts = make_facts(data_name="<b>x</b>.csv")
    page = report.report_files(of(facts, [make_trial(0, None, FAIL, reason="<script>alert(1)</script>")]))[
        "report.html"
    ]
    assert b"<b>x</b>" not in page and b"<script" not in page and b"&lt;b&gt;x" in page
    answers = Answers("test", 2, classes=("$x_1$", "<i>"), confusion=((1, 0), (1, 0)))
    svg, png = draw(pictures.Confusion(answers))
    assert b"$x_1$" in svg and b"<i>" not in svg and png.startswith(b"\x89PNG")


def test_several_objectives_and_fixed_rates_work(make_facts: Facts, make_trial: Make) -> None:
    facts = make_facts(objectives=(Objective("accuracy", "maximize"), Objective("log_loss", "minimize")))
    trials = [dataclasses.replace(make_trial(i), values=(0.5 + i / 9, 0.1 + i)) for i in range(4)]
    page = report.report_files(of(facts, trials))["report.html"].decode()
    assert 'id="objectives"' in page and "The Pareto front" in page


def test_sentences_say_what_is_seen() -> None:
    value = Objective("accuracy", "maximize")
    flat = pictures.Progress(value, "trials", ((1, 0.5), (10, 0.9)), (), ((1, 0.5), (10, 0.9)), 100)
    assert "has converged" in sentences.sentence(flat)
    late = dataclasses.replace(flat, best=((1, 0.5), (95, 0.9)))
    assert "more may bring more" in sentences.sentence(late)
    table = pictures.Confusion(Answers("test", 10, classes=("cat", "dog"), confusion=((4, 0), (2, 4))))
    assert sentences.sentence(table) == (
        "Of 10 test rows the exported network answers 8 rightly; most often dog is taken for cat (2 rows)."
    )
    sure = pictures.Calibration(Answers("test", 10, classes=("a", "b"), calibration=((10, 0.95, 0.7),)))
    assert "too sure of itself" in sentences.sentence(sure) and "25.0%" in sentences.sentence(sure)
    high = Answers("test", 4, targets=("price",), points=(((1.0, 2.0), (2.0, 3.1), (3.0, 4.0), (4.0, 4.9)),))
    assert "too high by 1" in sentences.sentence(pictures.Residuals(high))
    assert sentences.alternative(table).startswith("A table of true classes")


def test_a_course_is_judged_where_it_says_something() -> None:
    value = Objective("accuracy", "maximize")
    flat = pictures.Progress(value, "trials", ((1, 0.5), (10, 0.9)), (), ((1, 0.5), (10, 0.9)), 100, is_telling=False)
    assert sentences.sentence(flat).endswith("; the last 90% of the trials brought nothing.")
    late = dataclasses.replace(flat, best=((1, 0.5), (95, 0.9)))
    assert sentences.sentence(late).endswith("; the last fifth of the trials brought 100% of the gain.")
    alone = dataclasses.replace(flat, complete=((1, 0.5),), best=((1, 0.5),), end=1)
    assert sentences.sentence(alone) == "The best accuracy is 0.5000, reached at trial 0 of 1."
    for cut, words in ((0.4, "other trial was better."), (0.6, "no other trial that trained to its end was better.")):
        pruned = dataclasses.replace(alone, pruned=((2, cut),), end=2)
        assert sentences.sentence(pruned).endswith(words)


def test_the_story_names_winner_budget_and_next_steps(finished_home: Home) -> None:
    files = ReportProcess(finished_home, "wine").files(lambda: False)
    told = files[STORY].decode()
    assert re.search(r"wine: trial \d won, with accuracy", told) and "gradient boosting" in told
    assert "Of 6 trials granted 6 are finished" in told and "What to try next" in told
    assert files["report.html"].startswith(b"<!DOCTYPE html>") and "pictures/curves.png" in files
    with pytest.raises(Refused, match='no study "rum"'):
        ReportProcess(finished_home, "rum").files(lambda: False)


def test_a_story_marks_nothing_but_code() -> None:
    assert note._plain("a_b `c_d` <e>") == r"a\_b `c_d` \<e\>"


def test_a_report_of_an_unknown_study_is_one_message(studies: Studies) -> None:
    answer = studies("report", "nobody")
    assert answer.returncode == 2 and answer.stderr.startswith('error: there is no study "nobody"')
