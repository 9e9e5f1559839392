"""Does everything agree: the study database with itself, with MLflow, and with the exports on disk?

Nothing is changed here, and no tracking server is started: the home's own runs are read from its tracking database, as
`stores` does where no server runs; another server is asked, and one that does not answer is said in one line.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from studies import exports, finals, inspection, integrity
from studies.comparison import compare, own_experiment
from studies.database import reading
from studies.errors import StudiesError, TrackingError, UserError
from studies.findings import FROM_COPY, Diagnosis, Finding
from studies.home import Home, is_driven, open_to_others, without_password
from studies.records import StudyFacts, TrialRecord, Winner
from studies.runs import STUDY, TAG_LENGTH
from studies.server import LOOPBACK
from studies.storage import Storage
from studies.stores import existing_store
from studies.tracking_store import TrackingStore, Unreachable


@dataclass(slots=True)
class _Ward:
    """A study that is looked at."""

    id: int
    name: str
    facts: StudyFacts | None = None
    sound: list[int] = field(default_factory=list)
    """Numbers of its finished trials that are as they were recorded."""
    is_whole: bool = True
    """Whether nothing is wrong with its trials."""
    is_winner_sound: bool = True
    n_trials: int = 0
    n_left: int = 0
    """Trials that are not finished."""


def examine(home: Home, storage: Storage, study: str | None) -> Diagnosis:
    """Look at one study, or at all of them and at what belongs to none.

    Raises:
        UserError: There is no such study, or the address of the tracking server is none.
    """
    found = [_exposed(path) for path in open_to_others(home)]
    notes: list[str] = []
    try:
        with reading(storage.engine) as connection:
            found += integrity.damage(connection)
            if missing := integrity.schema(connection):
                found += missing
            if any(f.cure for f in missing):
                return Diagnosis(tuple(found), (), "")
            found += integrity.orphans(connection)
            lost = integrity.lost_studies(connection)
            found += [f for f in lost if study in (None, f.study)]
            all_names = [_Ward(i, name) for i, name in integrity.studies(connection)]
    except StudiesError as error:
        return Diagnosis((*found, Finding("damaged database", str(error), cure=FROM_COPY)), (), "")
    wards = [w for w in all_names if study in (None, w.name)]
    if study is not None and not wards and not any(f.study == study for f in lost):
        raise UserError(f'there is no study "{study}" in the database; `studies list` names those there are')
    for ward in wards:
        found += _rows(storage, ward)
    quiet = [w for w in wards if w.facts is not None]
    if driven := [w for w in quiet if _is_run(home, storage, w)]:
        names = ", ".join(w.name for w in driven)
        notes.append(f"{names}: is being run now; MLflow and the exports were not compared")
        quiet = [w for w in quiet if w not in driven]
    found += _mirrors(home, storage, quiet, notes)
    for ward in quiet:
        try:
            found += _exports(home, storage, ward, frozenset(w.name for w in all_names))
        except StudiesError as error:
            found.append(_unreadable(ward, error))
    if study is None and all(w.facts is not None for w in wards):
        found += _of_nobody(home, {w.facts.uuid for w in wards if w.facts is not None})
    found += _leftovers(home, storage, study, {w.name: w for w in all_names})
    return Diagnosis(tuple(found), tuple(notes), _sound(wards, study))


def _exposed(path: Path) -> Finding:
    return Finding("open to others", f"{path} has mode {path.stat().st_mode & 0o777:o}; it must be for its user alone")


def _sound(wards: Sequence[_Ward], study: str | None) -> str:
    n, n_left = sum(w.n_trials for w in wards), sum(w.n_left for w in wards)
    what = f"{n} trials, {n_left} of them to be trained yet" if n_left else f"{n} trials"
    if study is not None:
        return f'study "{study}" is sound: {what}'
    if not wards:
        return "there are no studies, and nothing is wrong"
    return f"{len(wards)} studies are sound: {what}" if len(wards) > 1 else f"1 study is sound: {what}"


def _rows(storage: Storage, ward: _Ward) -> list[Finding]:
    """Look at a study's rows, and note which of its trials can be compared with what is elsewhere."""
    try:
        with reading(storage.engine) as connection:
            ward.facts, found = inspection.facts(connection, ward.id, ward.name)
            if ward.facts is None:
                return found
            rows = inspection.trials_of(connection, ward.id)
            false = inspection.falsified(connection, rows)
            owned = storage.ownership(connection, ward.id)
            found += inspection.study(connection, ward.id, ward.facts, false, owned)
            several = inspection.doubled(connection, rows)
    except StudiesError as error:
        ward.facts = None
        return [_unreadable(ward, error)]
    wrong = {t.id for t in false}
    finished = [t for t in rows if t.is_finished]
    sound = [t for t in finished if t.id not in wrong and t.cohort is not None and t.number not in several]
    ward.sound, ward.n_trials = [t.number for t in sound], len(rows)
    ward.n_left = len(rows) - len(finished)
    ward.is_whole = not found
    ward.is_winner_sound = not any(f.kind == "falsified winner" for f in found)
    return found


def _unreadable(ward: _Ward, error: StudiesError) -> Finding:
    return Finding("damaged database", str(error), ward.name, FROM_COPY)


def _is_run(home: Home, storage: Storage, ward: _Ward) -> bool:
    if is_driven(home, ward.name) or storage.is_driven(ward.name):
        return True
    with reading(storage.engine) as connection:
        living, _ = storage.ownership(connection, ward.id)
    return bool(living)


# ---- MLflow


def _mirrors(home: Home, storage: Storage, wards: Sequence[_Ward], notes: list[str]) -> list[Finding]:
    wards = [w for w in wards if w.sound]
    if not wards:
        return []
    try:
        store = existing_store(home)
        if store is None and (home.root / "mlflow.db").exists():
            notes.append("MLflow was not compared: its tracking server does not run; `studies ui` starts it")
            return []
        if store is None:
            return [Finding("MLflow: missing experiment", "there is no tracking database yet", w.name) for w in wards]
        try:
            return [finding for ward in wards for finding in _mirror(home, storage, store, ward)]
        finally:
            store.close()
    except Unreachable as error:
        notes.append(f"MLflow was not compared: {error}")
    except TrackingError as error:
        cure = "move it away, and `studies track` each study"
        return [Finding("MLflow: damaged database", str(error), cure=cure)]
    return []


def _mirror(home: Home, storage: Storage, store: TrackingStore, ward: _Ward) -> list[Finding]:
    facts = ward.facts
    assert facts is not None

    def read(numbers: Sequence[int]) -> list[TrialRecord]:
        return storage.records(facts.name, numbers, has_curves=True)

    try:
        differences = compare(store, facts, ward.sound, read)
    except StudiesError as error:
        return [_unreadable(ward, error)]
    if not ward.is_whole:
        # Of a trial that is itself wrong MLflow may be right; the running best waits until all trials are.
        differences = [d for d in differences if d.number in ward.sound]
    found = [Finding(f"MLflow: {d.kind}", _said(d.number, d.text), facts.name) for d in differences]
    experiment = own_experiment(store, facts)
    if experiment is None or experiment.is_deleted:
        return found
    found += _mark(storage, store, facts.name, experiment.experiment_id, is_own=home.tracking_uri is None)
    winner = storage.winner(facts.name)
    if winner is not None and ward.is_whole:
        found += _shown_winner(store, facts, experiment.experiment_id, winner[0])
    return found


def _said(number: int | None, text: str) -> str:
    whose = "the study" if number is None else f"trial {number}"
    return f"{whose}: {text}" if text else whose


def _mark(storage: Storage, store: TrackingStore, study: str, experiment_id: str, *, is_own: bool) -> list[Finding]:
    """Whether the database says rightly where the study is mirrored; before it is mirrored it says nothing.

    The home's own server (`is_own`) takes another port when its own is taken: of its address the host alone counts.
    """
    address, experiment = storage.mirror(study)
    if address is None and experiment is None:
        return []
    is_local = is_own and (address or "").startswith(LOOPBACK)
    if experiment == experiment_id and (address == store.where or is_local):
        return []
    named = f"{experiment} at {without_password(address or 'no address')}"
    right = f"{experiment_id} at {store.where}" if store.where else experiment_id
    return [Finding("wrong mirror mark", f"the database names experiment {named}; it is {right}", study)]


def _shown_winner(store: TrackingStore, facts: StudyFacts, experiment_id: str, winner: Winner) -> list[Finding]:
    """Whether the study's run shows its winner."""
    wanted = {k: text[:TAG_LENGTH] for k, text in finals.shown_tags(winner, facts.objectives[0]).items()}
    for run in store.runs(experiment_id, needed={STUDY, *wanted}):
        if run.is_deleted or run.tags.get(STUDY) != facts.uuid:
            continue
        if any(run.tags.get(key) != text for key, text in wanted.items()):
            shown_number = run.tags.get("dlcore.winner", "none")
            wrong = next(key for key, text in wanted.items() if run.tags.get(key) != text)
            text = f"it must be trial {winner.number}; MLflow shows {shown_number}, and another {wrong}"
            return [Finding("MLflow: wrong winner", text, facts.name)]
    return []


# ---- exports


def _exports(home: Home, storage: Storage, ward: _Ward, names: frozenset[str]) -> list[Finding]:
    facts = ward.facts
    assert facts is not None
    others = names - {facts.name}
    own = {f.folder: f for f in exports.of_study(home.exports, facts.name, facts.uuid, others)}
    won = storage.winner(facts.name) if ward.is_winner_sound else None
    found: list[Finding] = []
    if won is None and ward.is_winner_sound and home.exports / facts.name in own:
        text = f"{home.exports / facts.name}: no row of dlcore_winners tells of it"
        found.append(Finding("export without a row", text, facts.name))
    if won is not None:
        place = Path(won[0].export_dir)
        own[place] = own.get(place) or exports.look(place)
    for folder, export in own.items():
        winner = won[0] if won is not None and folder == Path(won[0].export_dir) else None
        if not folder.is_dir():
            found.append(Finding("missing export", str(folder), facts.name))
            continue
        cure = "move it away; until then no new export takes the place of this one"
        found += [Finding("foreign file", f"{folder / name}", facts.name, cure) for name in export.foreign]
        wrong = exports.damaged(export, None if winner is None else winner.onnx_sha256)
        found += [Finding("damaged export", f"{folder / name}", facts.name) for name in wrong]
        if winner is not None and not wrong and _tells(export) != _should_tell(facts, winner):
            text = f"{folder} and the row of the winner tell of different trials or metrics"
            found.append(Finding("wrong export", text, facts.name))
    return found


def _tells(export: exports.Found) -> tuple[object, ...]:
    facts = export.facts
    return (export.uuid, *(facts.get(key) for key in ("trial", "val_metrics", "test_metrics", "final")))


def _should_tell(facts: StudyFacts, winner: Winner) -> tuple[object, ...]:
    def plain(metrics: object) -> dict[str, float | None]:
        assert isinstance(metrics, dict)
        return {key: value if value - value == 0 else None for key, value in metrics.items()}  # as a manifest does

    final = finals.plain(winner.final)
    return facts.uuid, winner.number, plain(winner.val_metrics), plain(winner.test_metrics), final


def _leftovers(home: Home, storage: Storage, study: str | None, wards: Mapping[str, _Ward]) -> Iterator[Finding]:
    """What killed writers left of one study, or of all and of nobody; a study that is run is writing it now."""
    for path in exports.leftovers(home.exports):
        name = exports.study_of(path, wards)
        if study in (None, name) and (name is None or not _is_run(home, storage, wards[name])):
            yield Finding("leftover", str(path), name)


def _of_nobody(home: Home, uuids: set[str]) -> list[Finding]:
    """Exports of studies that are not in this database."""
    return [
        Finding("orphan export", f"{f.folder}: its study is not in this database")
        for f in exports.find(home.exports)
        if f.uuid is not None and f.uuid not in uuids
    ]
