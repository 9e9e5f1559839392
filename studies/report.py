"""`studies report`: one HTML file that needs nothing else, and a PNG of each picture, from the study database alone."""

import base64
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from studies import finals, pictures
from studies.drawing import draw
from studies.errors import StudiesError, UserError
from studies.figures import number
from studies.home import Home, open_home
from studies.note import headline, next_steps, states_text, story, winner_text
from studies.pictures import Material
from studies.ranking import pareto_front, ranking
from studies.records import FINISHED_STATES, TrialRecord
from studies.runs import STORY
from studies.sentences import alternative, sentence
from studies.spec import spec_from_dict
from studies.storage import Storage

PAGE = "report.html"
FOLDER = "pictures"
_ROWS = 10

Numbers = Callable[[Material], object]
"""Gives a picture's numbers, or as a text why there is none."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture of a report, or the reason why it is missing."""

    name: str
    title: str
    text: str
    alternative: str = ""
    svg: bytes | None = None
    png: bytes | None = None

    @property
    def source(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg or b'').decode()}"


_SEARCH: tuple[tuple[str, str, Numbers], ...] = (
    ("best-over-trials", "Best value over trials", partial(pictures.progress, axis="trials")),
    ("best-over-seconds", "Best value over seconds", partial(pictures.progress, axis="seconds")),
    ("curves", "Loss curves", pictures.curves),
    ("importances", "What mattered", pictures.which_mattered),
    ("learning-rate-momentum", "Learning rate against momentum", pictures.rates),
    ("parameters", "Value against parameter count", pictures.sizes),
    ("phases", "Where the time went", pictures.time_spent),
)
_OBJECTIVES = ("objectives", "One objective against the other", pictures.trade)
_CLASSES: tuple[tuple[str, str, Numbers], ...] = (
    ("confusion", "What the winner confuses", pictures.confusion),
    ("calibration", "How sure the winner is, and how right", pictures.calibration),
)
_VALUES: tuple[tuple[str, str, Numbers], ...] = (("residuals", "By how much the winner misses", pictures.residuals),)
_NAMES = tuple(name for name, *_ in (*_SEARCH, _OBJECTIVES, *_CLASSES, *_VALUES))
"""All pictures that a report may have."""


def write_report(home: Home, study: str, folder: Path | None) -> Path:
    """Write the report of a study; returns its page.

    Args:
        home: Holds the study.
        study: Its name.
        folder: Where to; None is its place in the home.

    Raises:
        UserError: There is no such study, or the folder cannot be written.
    """
    target = folder.absolute() if folder is not None else home.root / "reports" / study
    _check(target)
    storage = Storage(home.database_url)
    try:
        files = report_files(material(storage, study))
    finally:
        storage.close()
    _write(target, files)
    return target / PAGE


def material(storage: Storage, study: str) -> Material:
    """All that a report is made from, in a few reads."""
    facts = storage.known(study)
    won = storage.winner(study)
    return Material(
        facts,
        spec_from_dict(facts.spec, study),
        tuple(storage.records(study, has_curves=True)),
        storage.claims(study),
        None if won is None else won[0],
        0 if won is None else won[1],
    )


def report_files(own: Material) -> dict[str, bytes]:
    """Every file of a report by its path; the same study gives the same files."""
    shown = [_shown(*one, own) for one in wanted(own)]
    files = {PAGE: page(own, shown).encode(), STORY: story(own).encode()}
    return files | {f"{FOLDER}/{s.name}.png": s.png for s in shown if s.png is not None}


def wanted(own: Material) -> list[tuple[str, str, Numbers]]:
    """The pictures that make sense for the kind of study."""
    # The parameter count is the third picture in any study.
    is_seen = len(own.facts.objectives) < 2 or own.facts.objectives[1].metric == "n_parameters"
    several = [] if is_seen else [_OBJECTIVES]
    return [*_SEARCH[:2], *several, *_SEARCH[2:], *(_VALUES if own.facts.task == "regression" else _CLASSES)]


def page(own: Material, shown: list[Shown]) -> str:
    """The HTML."""
    environment = Environment(
        loader=PackageLoader("studies"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["told"] = _told
    ends = [t.finished_at for t in own.trials if t.finished_at is not None]
    facts = own.facts
    return environment.get_template("report.html").render(
        facts=facts,
        objectives=", ".join(f"{o.direction} {o.metric}" for o in facts.objectives),
        headline=headline(own),
        winner=winner_text(own),
        states=states_text(own),
        last=f"{datetime.fromtimestamp(max(ends, default=facts.created_at), UTC):%Y-%m-%d %H:%M} UTC",
        pictures=shown,
        rivals=_rivals(own),
        searched=list(own.spec.searched),
        trials=[_row(t, own) for t in _best(own)[:_ROWS]],
        advice=next_steps(own),
        spec=json.dumps(facts.spec, indent=2, default=str),
        environment=dict(facts.environment),
    )


def _told(text: str) -> Markup:
    """A sentence in which `so` marks what people type."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _shown(name: str, title: str, numbers: Numbers, own: Material) -> Shown:
    found = numbers(own)
    if isinstance(found, str):
        return Shown(name, title, found)
    return Shown(name, title, sentence(found), alternative(found), *draw(found))


def _best(own: Material) -> list[TrialRecord]:
    several = len(own.facts.objectives) > 1
    ranked = pareto_front(own.trials, own.facts.objectives) if several else ranking(own.trials, own.facts.objectives)
    return ranked or [t for t in own.trials if t.state in FINISHED_STATES]


def _row(trial: TrialRecord, own: Material) -> Mapping[str, object]:
    """A trial as a row of the table."""
    chosen = [trial.hyperparameters.get(name, "") for name in own.spec.searched]
    return {
        "number": trial.number,
        "state": trial.state,
        "values": [number(v) for v in trial.values or ()] or [trial.reason or "no value"],
        "n_parameters": f"{trial.n_parameters:,}",
        "epochs": f"{trial.best_epoch or '-'} / {len(trial.curve)}",
        "chosen": [f"{v:.3g}" if isinstance(v, float) else str(v) for v in chosen],
    }


def _rivals(own: Material) -> list[tuple[str, str]]:
    """Who reached what on test by the first objective; empty without rivals."""
    winner, metric = own.winner, own.objective.metric
    if winner is None or winner.final is None or metric not in winner.test_metrics:
        return []
    measured = finals.on_test(winner.final).get(metric)
    network = number(winner.test_metrics[metric]) if measured is None else finals.of(measured)
    return [("network", network), *((r.name, number(r.test[metric])) for r in finals.others(winner.final))]


def _check(target: Path) -> None:
    """Whether a report may be written there."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UserError(f"{target} must be a folder, or not there; it is something else")
    found = {path.name for path in target.iterdir()} if target.is_dir() else set()
    is_ours = found <= {PAGE, STORY, FOLDER} and _is_ours(target / PAGE) and not (target / FOLDER).is_symlink()
    if found and not is_ours:
        raise UserError(f"{target} must be empty, not there, or an earlier report; it holds other files")


def _is_ours(page: Path) -> bool:
    """Whether a file is a report that was written before."""
    try:
        with page.open("rb") as file:
            return b'content="studies report"' in file.read(1_000)
    except OSError:
        return False


def _write(target: Path, files: Mapping[str, bytes]) -> None:
    """Write the files elsewhere first, so that a disk that is full leaves the old report as it is."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            for name, content in files.items():
                file = Path(scratch) / name
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(content)
            (target / FOLDER).mkdir(parents=True, exist_ok=True)
            for name in _NAMES:
                if f"{FOLDER}/{name}.png" not in files:
                    (target / FOLDER / f"{name}.png").unlink(missing_ok=True)
            for name in sorted(files, key=lambda name: name == PAGE):
                shutil.move(Path(scratch) / name, target / name)
    except OSError as error:
        raise UserError(f"{target} must be a folder that can be written; {error.strerror}") from error


def main() -> int:
    """Make the report that standard input asks for; see `report_process`."""
    asked = json.load(sys.stdin)
    try:
        storage = Storage(open_home().database_url)
        for name, content in report_files(material(storage, asked["study"])).items():
            file = Path(asked["folder"]) / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
        storage.close()
    except (StudiesError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
