"""`studies delete`: everything of a study, in MLflow, on disk, and at last in the study database.

The study database comes last: killed before that, the study is still there, and the same command finishes.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from studies import exports, papers, server, trials
from studies.comparison import own_experiments
from studies.database import writing
from studies.errors import StudyBusy, TrackingError, UserError
from studies.home import Home, drive, open_home, without_password
from studies.mlflow_http import Json
from studies.mlflow_rest import RestStore
from studies.records import StudyFacts
from studies.runs import STUDY
from studies.storage import Storage
from studies.tracking_store import Refused


@dataclass(frozen=True, slots=True)
class Belongings:
    """What there is of a study."""

    facts: StudyFacts
    n_trials: int
    exports: tuple[Path, ...]
    """Folders in the home."""
    papers: papers.Papers
    elsewhere: Path | None
    """An export that a person had written to another place, which is theirs."""
    tracking_uri: str | None
    """Where it was mirrored last."""


def delete(study: str, *, is_certain: bool) -> bool:
    """Delete a study after a plain question; returns whether it was deleted.

    Raises:
        UserError: There is no such study, nobody is there to answer, or the tracking server does not answer.
        StudyBusy: It is being run.
    """
    home = open_home()
    storage = Storage(home.database_url)
    try:
        own = belongings(home, storage, study)
        if not is_certain and not _is_wanted(own):
            print("nothing was deleted")
            return False
        with _held(home, storage, study):
            for line in _delete(home, storage, own):
                print(line)
    finally:
        storage.close()
    return True


def belongings(home: Home, storage: Storage, study: str) -> Belongings:
    """What there is of a study.

    Raises:
        UserError: There is no such study.
    """
    facts = storage.known(study)
    others = frozenset(storage.names()) - {study}
    own = tuple(f.folder for f in exports.of_study(home.exports, study, facts.uuid, others))
    won = storage.winner(study)
    elsewhere = None if won is None or Path(won[0].export_dir).parent == home.exports else Path(won[0].export_dir)
    written = papers.of_study(home.root, study)
    return Belongings(facts, sum(storage.states(study).values()), own, written, elsewhere, storage.mirror(study)[0])


def _is_wanted(own: Belongings) -> bool:
    """Ask the person.

    Raises:
        KeyboardInterrupt: They ended the command.
        UserError: The input ends without an answer.
    """
    what = [f"its {own.n_trials} trials", *(f"the export {folder}" for folder in own.exports)]
    what += map(str, own.papers.every)
    if own.tracking_uri is not None:
        what.append(f"its runs and models in MLflow at {without_password(own.tracking_uri)}")
    print(f'delete study "{own.facts.name}": {", ".join(what)}? This cannot be undone. [y/N] ', end="", flush=True)
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        print("\nnothing was deleted")
        raise
    if not answer.endswith("\n"):
        print()
        raise UserError("the question must be answered, or --yes given; nothing was deleted")
    return answer.strip().lower() in ("y", "yes")


@contextlib.contextmanager
def _held(home: Home, storage: Storage, study: str) -> Iterator[None]:
    """Be the only one who has to do with a study.

    Raises:
        StudyBusy: It is being run.
    """
    with drive(home, study), storage.alone(study) as is_alone:
        if not is_alone or storage.others(study, holds_lock=True)[0]:
            raise StudyBusy(f'study "{study}" is being run; wait for its end, or end it, and try again')
        yield


def _delete(home: Home, storage: Storage, own: Belongings) -> Iterator[str]:
    """Delete, and say what is left to a person."""
    name = own.facts.name
    kept = _delete_in_mlflow(home, own)
    for folder in own.exports:
        exports.remove(folder)
        if folder.exists():
            yield f"{folder} holds other files, which are left"
    known_names = storage.names()
    for leftover in exports.leftovers(home.exports):
        if exports.study_of(leftover, known_names) == name:
            shutil.rmtree(leftover)  # none is put back, not the old one of an export that is gone now
    for folder in papers.remove(own.papers):
        yield f"{folder} holds other files, which are left"
    if own.elsewhere is not None and own.elsewhere.exists():
        yield f"the export {own.elsewhere} is left, which was written to a place of your own"
    with writing(storage.engine) as connection:
        trials.delete_study(connection, trials.study_id(connection, name, is_locked=True))
    yield f'study "{name}" is deleted: {own.n_trials} trials, {len(own.exports)} exports; {kept}'


# ---- MLflow, as its own client deletes


def _delete_in_mlflow(home: Home, own: Belongings) -> str:
    """Delete the experiment with its runs, and the model versions; returns what MLflow still keeps.

    Raises:
        UserError: The tracking server does not answer.
    """
    if home.tracking_uri is None and not (home.root / "mlflow.db").exists():
        elsewhere = _elsewhere(own.tracking_uri, None, is_own=True)
        return "MLflow never had it" if own.tracking_uri is None else f"the home has no MLflow database{elsewhere}"
    try:
        store = RestStore(home.tracking_uri or server.find_or_start(home.root).address)
        try:
            n_versions = _delete_versions(store, own.facts)
            experiments = own_experiments(store, own.facts)
            for experiment in experiments:
                if not experiment.is_deleted:
                    store.delete_experiment(experiment.experiment_id)
        finally:
            store.close()
    except TrackingError as error:
        raise UserError(
            f"the tracking server must answer, so that the study goes from MLflow too, and does not: {error}; "
            "the study is still in the database"
        ) from error
    elsewhere = _elsewhere(own.tracking_uri, store.where, is_own=home.tracking_uri is None)
    if not experiments:
        return f"MLflow at {store.where} has no experiment of it{elsewhere}"
    return (
        f"MLflow shows it no more ({n_versions} model versions were deleted), and keeps its runs and files "
        f"in experiment {', '.join(e.experiment_id for e in experiments)} until `mlflow gc`{elsewhere}"
    )


def _elsewhere(mirrored: str | None, here: str | None, *, is_own: bool) -> str:
    """What to say of another server that the study was mirrored to; the home's own changes its port."""
    if mirrored in (None, here) or (is_own and str(mirrored).startswith("http://127.0.0.1:")):
        return ""
    return f"; it was mirrored to {without_password(str(mirrored))} too, which was not asked"


def _delete_versions(store: RestStore, facts: StudyFacts) -> int:
    """Delete the study's model versions, and the registered model if nobody else has a version of it."""
    versions = _versions(store, facts.name)
    own = [v for v in versions if {t["key"]: t.get("value") for t in v.get("tags", [])}.get(STUDY) == facts.uuid]
    for version in own:
        body = {"name": facts.name, "version": version["version"]}
        _ignoring_absence(store, "DELETE", "model-versions/delete", body)
    if own and len(own) == len(versions):
        _ignoring_absence(store, "DELETE", "registered-models/delete", {"name": facts.name})
    return len(own)


def _versions(store: RestStore, name: str) -> list[Json]:
    found: list[Json] = []
    token = ""
    while True:
        query = urlencode({"filter": f"name='{name}'", "max_results": 1000, "page_token": token})
        reply = store.rest.call("GET", f"model-versions/search?{query}")
        found += reply.get("model_versions", [])
        token = reply.get("next_page_token", "")
        if not token:
            return found


def _ignoring_absence(store: RestStore, method: str, path: str, body: Json) -> None:
    """A call that an earlier, lost one may have carried out."""
    try:
        store.rest.call(method, path, body)
    except Refused as error:
        if error.code != "RESOURCE_DOES_NOT_EXIST":
            raise
