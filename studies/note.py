"""A study told in a few sentences of Markdown: what MLflow shows as the description of the study's run.

A pure function of the records, so that telling it twice changes nothing.
"""

import re

from studies import finals
from studies.diagnosis import advise
from studies.figures import number
from studies.pictures import Material, progress
from studies.ranking import best_trial
from studies.records import COMPLETE, FAIL, FINISHED_STATES, PRUNED, Value
from studies.runs import SIGN, TAG_LENGTH
from studies.sentences import sentence


def story(material: Material) -> str:
    """The story of a study."""
    parts = [winner_text(material), states_text(material)]
    if not isinstance(shown := progress(material, "trials"), str):
        parts.append(sentence(shown))
    told = "\n\n".join([f"**{_plain(headline(material))}**", *(_plain(part) for part in parts if part)])
    nexts = "\n".join(f"- {_plain(text)}" for text in next_steps(material))
    return f"{told[: TAG_LENGTH // 2]}\n\nWhat to try next:\n\n{nexts[: TAG_LENGTH // 4]}\n\n{SIGN}"


def next_steps(material: Material) -> tuple[str, ...]:
    """What to try next, one sentence at least."""
    found = tuple(
        f"{one.text[0].upper()}{one.text[1:]}." for one in advise(material.facts, material.trials, material.winner)
    )
    if not any(t.state in FINISHED_STATES for t in material.trials):
        return (f"`studies run {material.facts.name}` goes on: no trial is finished yet.",)
    return found or ("Nothing stands out: more trials refine this search, other columns may change it.",)


def headline(material: Material) -> str:
    """How the study stands, in one line."""
    metric = material.objective.metric
    best = best_trial(material.trials, material.facts.objectives)
    if material.winner is None and best is None:
        return f"{material.facts.name}: no trial has a value yet"
    if material.winner is None:
        assert best is not None and best.value is not None
        return f"{material.facts.name}: so far the best {metric} on val is {number(best.value)} (trial {best.number})"
    winner = material.winner
    on_test = finals.on_test(winner.final).get(metric) if winner.final is not None else None
    if on_test is not None:
        reached = f"{metric} {finals.of(on_test)} on test"
    elif metric in winner.test_metrics:
        reached = f"{metric} {number(winner.test_metrics[metric])} on test"
    else:
        reached = f"{winner.n_parameters:,} parameters"
    return f"{material.facts.name}: trial {winner.number} won, with {reached}"


def winner_text(material: Material) -> str:
    """What the winner is, how surely, and against whom; "" without one."""
    winner, objective = material.winner, material.objective
    if winner is None:
        return ""
    hyperparameters = ", ".join(
        f"{name} {_short(value)}" for name, value in winner.hyperparameters.items() if name in material.spec.searched
    )
    text = f"Trial {winner.number} has {winner.n_parameters:,} parameters: {hyperparameters}."
    final = winner.final
    if final is None:
        return text
    if final.finalists and final.test:
        val = finals.intervals(final.finalists[0].val).get(objective.metric)
        test, over = finals.on_test(final).get(objective.metric), finals.over(final, objective.metric)
        if val is not None and test is not None:
            text += (
                f" Trained on {len(final.test)} fresh seeds it comes to {objective.metric} {finals.of(val)} on val "
                f"(mean, 95 % over seeds) and {finals.of(test)} on test (95 % over {over})."
            )
    if finals.others(final) and objective.metric in winner.test_metrics:
        text += f" On test: {finals.table(winner, objective)}."
        if said := finals.verdict(winner, objective):
            text += f" {said[0].upper()}{said[1:]}."
    return text


def states_text(material: Material) -> str:
    """What was granted, and what became of it."""
    spec, trials = material.spec, material.trials
    done = [t for t in trials if t.state in FINISHED_STATES]
    counts = {state: sum(t.state == state for t in trials) for state in (COMPLETE, PRUNED, FAIL)}
    granted = [f"{spec.budget.trials:,} trials"] if spec.budget.trials is not None else []
    granted += [f"{spec.budget.seconds:g} seconds"] if spec.budget.seconds is not None else []
    text = (
        f"Of {' or '.join(granted) or 'no budget'} granted {len(done):,} are finished: {counts[COMPLETE]:,} trained to "
        f"their end, {counts[PRUNED]:,} pruned, {counts[FAIL]:,} failed."
    )
    if len(trials) > len(done):
        text += f" {len(trials) - len(done):,} more wait or are being trained: the study is not at its end."
    elif material.winner is not None and material.n_at_winner < len(done):
        text += f" The winner was chosen among the first {material.n_at_winner:,}."
    return text


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    """Text in which Markdown sees no markup but ours, `code`: names may hold `_`, `<` and the like."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\_<>\[\]*#|])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
