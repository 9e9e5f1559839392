"""What the model card of an export says of its study: how the network was found, how good it is, and beside what."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlcore.card import escaped, table
from studies import finals
from studies.records import Interval, Measured, StudyFacts, TrialRecord, Winner
from studies.starts import starts_line


def sections(winner: Winner, trials: Sequence[TrialRecord], facts: StudyFacts) -> dict[str, str]:
    """Title -> Markdown.

    Args:
        winner: What is exported, measured.
        trials: All finished ones of the study.
        facts: Of the study.
    """
    found = {"Results": _results(winner, facts), "Rivals": _rivals(winner, facts), "Search": _search(trials, facts)}
    found["Trained under"] = table(("", ""), list(facts.environment.items()))
    return {title: text for title, text in found.items() if text}


def _results(winner: Winner, facts: StudyFacts) -> str:
    final, objective = winner.final, facts.objectives[0]
    header, rows = ["metric", "val", "test"], _exported(winner)
    lines = []
    if final is not None and final.finalists:
        n_seeds = len(final.finalists[0].val)
        over = finals.over(final, objective.metric)
        header += [f"val, {n_seeds} seeds: mean [95 %]", f"test, {n_seeds} seeds: mean [95 % over {over}]"]
        val, test = finals.intervals(final.finalists[0].val), finals.on_test(final)
        rows = [[*row, _of(val.get(str(row[0]))), _of(test.get(str(row[0])))] for row in rows]
        lines.append(
            f"The first two columns are of the exported {'ensemble' if final.is_ensemble else 'network'}, the others "
            f"of trial {winner.number} trained again on {n_seeds} fresh seeds. Test was read after val had chosen."
        )
    if not winner.test_metrics:
        why = "that is read for the winner of a study alone, where rows were kept back for it"
        lines.append(f"It was not measured on test: {why}.")
    if final is not None and (said := finals.ensemble_line(final, objective)):
        lines.append(_sentence(said))
    return "\n\n".join([*lines, table(header, rows)])


def _exported(winner: Winner) -> list[list[object]]:
    return [
        [name, _number(value), _number(winner.test_metrics[name]) if name in winner.test_metrics else "not measured"]
        for name, value in winner.val_metrics.items()
    ]


def _of(over: Interval | None) -> str:
    return "" if over is None else f"{over.mean:.5g} [{over.low:.5g}, {over.high:.5g}]"


def _number(value: float) -> str:
    return f"{value:.5g}"


def _rivals(winner: Winner, facts: StudyFacts) -> str:
    if winner.final is None or not (others := finals.others(winner.final)):
        return ""
    objective = facts.objectives[0]

    def cell(measured: Measured) -> str:
        return _number(measured[objective.metric]) if objective.metric in measured else "not measured"

    rows = [(rival.name, cell(rival.val), cell(rival.test), rival.remark) for rival in others]
    said = finals.verdict(winner, objective)
    text = table(("on the same rows", f"{objective.metric} on val", f"{objective.metric} on test", ""), rows)
    return text + (f"\n\n{_sentence(said)}" if said else "")


def _sentence(text: str) -> str:
    return f"{escaped(text[0].upper() + text[1:], 500)}."


def _search(trials: Sequence[TrialRecord], facts: StudyFacts) -> str:
    spec: Mapping[str, Any] = facts.spec
    states = Counter(trial.state for trial in trials)
    seconds = sum((t.duration_s or 0.0) / t.population_size for t in trials)
    budget = {key: value for key, value in spec.get("budget", {}).items() if value is not None}
    rows: list[tuple[str, object]] = [
        ("study", f"{facts.name} ({facts.uuid})"),
        ("objective", ", ".join(f"{o.metric}, {o.direction}" for o in facts.objectives)),
        ("budget", ", ".join(f"{value:g} {key}" for key, value in budget.items()) or "none"),
        ("trials", ", ".join(f"{n:,} {state}" for state, n in sorted(states.items()))),
        ("training", f"{seconds:,.0f} s in all, at most {spec.get('training', {}).get('epochs', '?')} epochs each"),
        ("sampler", spec.get("search", {}).get("sampler", "?")),
        ("seed", spec.get("seed", "?")),
        ("split", _split(spec.get("data", {}))),
        ("searched", ", ".join(sorted({name for trial in trials for name in trial.searched}))),
    ]
    if isinstance(source := spec.get("transfer"), Mapping):
        rows.append(("source", f"{Path(source['from']).name}, fingerprint {source['fingerprint']}"))
        rows.append(("starts", starts_line(trials, facts.objectives)))
    return table(("", ""), rows, most=400)


def _split(data: Mapping[str, Any]) -> str:
    chosen = {key: value for key, value in (data.get("split") or {}).items() if value is not None}
    shares = f"{data.get('val_fraction', '?')} val, {data.get('test_fraction', '?')} test"
    if not chosen:
        return f"by chance, {shares}"
    return ", ".join(f"by {key} {value}" for key, value in chosen.items()) + f"; {shares} where chance decides"
