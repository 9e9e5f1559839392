"""`studies compare`: one spec searched by several samplers on one budget, as studies of their own, with the picture."""

from dataclasses import dataclass
from pathlib import Path

from studies import race
from studies.asked import find_asked
from studies.display import Display, open_display
from studies.errors import UserError
from studies.home import Home, open_home
from studies.picture_files import write_picture
from studies.race import Result
from studies.runner import Run
from studies.spec import StudySpec
from studies.storage import Storage
from studies.sweep_pictures import Race, race_sentence
from studies.transfer import open_source, resolved


@dataclass(frozen=True, slots=True)
class Comparison:
    """The arguments of `studies compare`."""

    spec: str
    samplers: str
    trials: int | None = None
    seeds: int = 1
    folder: Path | None = None
    """Where the picture goes; None is its place in the home."""


def compare(asked: Comparison) -> Path:
    """Run what is missing, then print the table and the verdict; returns the picture.

    The same command goes on where it was stopped, and runs nothing that is finished.

    Raises:
        UserError: The samplers or the spec cannot be compared.
    """
    display, home = open_display(), open_home()
    storage = Storage(home.database_url)
    spec = find_asked(asked.spec, storage)
    spec = resolved(spec, open_source(spec))
    trials = asked.trials or spec.budget.trials
    if len(spec.objectives) > 1 or trials is None:
        raise UserError("samplers are compared by one objective and a budget of trials: give the spec such")
    names = race.samplers_of(asked.samplers)
    entrants = [(name, race.entrant(spec, name, trials, i)) for i in range(asked.seeds) for name in names]
    for _, own in entrants:
        n = sum(storage.states(own.study).values()) if storage.facts(own.study) is not None else 0
        if n > trials:
            raise UserError(
                f'samplers are compared on one budget, and study "{own.study}" has {n} trials already: '
                f"give --trials {n} or more"
            )
    if blind := [name for name, own in entrants[: len(names)] if race.is_asked_at_once(own)]:
        display.note(
            f"{', '.join(blind)} will be asked for all {trials} trials at once and has nothing to learn from, so that "
            "it searches at random: give more --trials, or the spec a smaller [search] cohort"
        )
    results = []
    for place, (name, own) in enumerate(entrants, start=1):
        display.note(f"{name} ({place} of {len(entrants)}): study {own.study}, {trials} trials, seed {own.seed}")
        results.append(_searched(name, own, home, storage, display))
    objective = storage.known(entrants[0][1].study).objectives[0]
    display.note("")
    for line in _aligned(race.rows(results, objective)):
        display.note(line)
    drawn = Race(objective, race.lanes(results, objective), race.verdict(results, objective))
    display.note(f"\n{race_sentence(drawn)}")
    path = write_picture(asked.folder or home.root / "pictures" / spec.study, "samplers", drawn)
    display.note(f"picture {path}")
    return path


def _searched(sampler: str, spec: StudySpec, home: Home, storage: Storage, display: Display) -> Result:
    study = Run(spec, home, storage, display)
    outcome = study.execute(study.deadline(None))
    return Result(sampler, outcome.trials, outcome.export.winner)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows]
