"""`studies doctor --repair`: mends what can be mended, in the order in which one thing depends on the other.

First what other rows tell, then trials, which are trained again, then the export, at last MLflow; after each step
everything is looked at again. Nothing of a person's is deleted: an export of a study that is not in this database is
set aside, a trial that another program added is left alone.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlcore.errors import DlcoreError
from dlcore.tasks import curve_metric
from studies import doctor, exports, integrity, mending
from studies.database import lock_schema, reading, writing
from studies.display import Display
from studies.errors import StudiesError, StudyBusy, TrackingError, UserError
from studies.findings import Diagnosis
from studies.home import Home, drive, open_to_others
from studies.mirroring import bring_in_line
from studies.restoring import Restorer
from studies.rows import objectives_json
from studies.runner import Run
from studies.spec import cohort_size, resolved_objectives, spec_from_dict
from studies.storage import Storage

_TRIES = 2
"""How often one step is taken for a study: what is mended may show what was hidden."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One way to mend, and for what."""

    kinds: frozenset[str]
    mend: Callable[["_Patient"], None]
    needs_sound_trials: bool = False
    """Whether it must not be done with trials that are wrong still."""


class _Patient:
    """A study that is mended; its lock is held."""

    def __init__(self, home: Home, storage: Storage, name: str, display: Display) -> None:
        self.home, self.storage, self.name, self.display = home, storage, name, display

    def run(self) -> Run:
        """What trains its trials; loads its data."""
        spec = spec_from_dict(self.storage.known(self.name).spec, self.name)
        return Run(spec, self.home, self.storage, self.display)


def repair(home: Home, storage: Storage, study: str | None, found: Diagnosis, display: Display) -> Diagnosis:
    """Mend what was found, as far as it can be.

    Args:
        home: Of the studies.
        storage: Its study database.
        study: The one that was looked at; None is all.
        found: The outcome of an examination.
        display: Is told what takes long.

    Returns:
        What is left, and in its notes why.
    """
    reasons: dict[str, str] = {}
    tried: Counter[tuple[str, int]] = Counter()
    is_moving = True
    while is_moving and found.findings:
        is_moving = _mend_whole(home, storage, found, reasons, tried)
        by_study: dict[str, set[str]] = defaultdict(set)
        for finding in found.findings:
            if finding.study is not None:
                by_study[finding.study].add(finding.kind)
        for name, kinds in by_study.items():
            step = _next_step(name, kinds, tried)
            if step is None:
                continue
            tried[name, step] += 1
            is_moving = True
            reasons.pop(name, None)
            if (reason := _take(_Patient(home, storage, name, display), _STEPS[step])) is not None:
                reasons[name] = reason
        found = doctor.examine(home, storage, study)
    left = {f.study or "" for f in found.findings}
    return replace(found, notes=(*found.notes, *(reason for name, reason in reasons.items() if name in left)))


def _next_step(name: str, kinds: set[str], tried: Mapping[tuple[str, int], int]) -> int | None:
    """The first step that mends something of these kinds, and was not tried too often."""
    found = {kind.partition(":")[0] for kind in kinds}
    for i, step in enumerate(_STEPS):
        is_ready = not (step.needs_sound_trials and found & _TRIALS)
        if step.kinds & found and is_ready and tried[name, i] < _TRIES:
            return i
    return None


def _take(patient: _Patient, step: _Step) -> str | None:
    """Take a step under the study's lock; returns why it could not be taken."""
    home, storage, name = patient.home, patient.storage, patient.name
    try:
        with drive(home, name), storage.alone(name) as is_alone:
            if not is_alone or storage.others(name, holds_lock=True)[0]:
                raise StudyBusy(f'study "{name}" is being run; wait for its end, and repair it then')
            step.mend(patient)
    except (StudiesError, TrackingError, DlcoreError, OSError) as error:
        return str(error)
    return None


# ---- what belongs to no study


def _mend_whole(
    home: Home, storage: Storage, found: Diagnosis, reasons: dict[str, str], tried: Counter[tuple[str, int]]
) -> bool:
    """Mend what belongs to no study, once; returns whether anything was tried."""
    kinds = {f.kind for f in found.findings if f.study is None}
    if not kinds or tried["", 0]:
        return False
    tried["", 0] += 1
    for path in open_to_others(home):
        path.chmod(0o700 if path.is_dir() else 0o600)
    try:
        if kinds & {"damaged index", "missing view", "orphan rows"}:
            with writing(storage.engine) as connection:
                lock_schema(connection)
                mending.whole(connection)
        if kinds & {"leftover", "orphan export"}:
            _tidy(home, storage, kinds)
    except (StudiesError, OSError) as error:
        reasons[""] = str(error)
    return True


def _tidy(home: Home, storage: Storage, kinds: set[str]) -> None:
    if "leftover" in kinds:
        known_names = storage.names()
        for path in exports.leftovers(home.exports):
            if exports.study_of(path, known_names) is None:  # that of a study is cleared under its lock
                exports.clear(path)
    if "orphan export" in kinds:
        with reading(storage.engine) as connection:
            names = [name for _, name in integrity.studies(connection)]
        known = {storage.known(name).uuid for name in names}
        for orphan in exports.find(home.exports):
            if orphan.uuid is not None and orphan.uuid not in known:
                _set_aside(home, orphan.folder)


def _set_aside(home: Home, folder: Path) -> None:
    """Move a folder to where nothing looks: it may be somebody's."""
    place = home.root / "set-aside"
    place.mkdir(mode=0o700, exist_ok=True)
    names = [folder.name, *(f"{folder.name}-{n}" for n in range(2, 1000))]
    folder.rename(next(place / name for name in names if not (place / name).exists()))


# ---- one study


def _mend_facts(patient: _Patient) -> None:
    """A study's facts stand in the manifests of its exports too."""
    with writing(patient.storage.engine) as connection:
        for study, name in integrity.studies(connection):
            if name == patient.name:
                for export in exports.find(patient.home.exports):
                    if mending.facts(connection, study, _facts_by(export)):
                        return
    raise UserError(
        f'no export tells what the row of study "{patient.name}" in dlcore_studies was (of a [transfer] none tells '
        "where its source lies); restore the database from a copy"
    )


def _facts_by(export: exports.Found) -> dict[str, object]:
    """Columns of `dlcore_studies`, and the study's name, as a manifest tells them."""
    facts, manifest = export.facts, export.manifest or {}
    try:
        spec = spec_from_dict(facts["spec"])
        objectives = resolved_objectives(spec, manifest["task"])
        return {
            "study_name": facts["study"],
            "uuid": facts["study_uuid"],
            "spec_json": json.dumps(facts["spec"]),
            "objectives_json": objectives_json(objectives),
            "task": manifest["task"],
            "curve_metric": curve_metric(manifest["task"], objectives[0].metric),
            "cohort_size": cohort_size(spec),
            "n_features": _architecture(manifest)["n_features"],
            "data_name": manifest["data"]["name"],
            "data_fingerprint": facts["data_fingerprint"],
            "environment_json": json.dumps(facts["environment"]),
        }
    except (KeyError, TypeError, StudiesError, DlcoreError):
        return {}


def _architecture(manifest: Mapping[str, Any]) -> Any:
    """Of the network, or of an ensemble's first one."""
    return manifest["members"][0]["architecture"] if "members" in manifest else manifest["architecture"]


def _mend_rows(patient: _Patient) -> None:
    facts = patient.storage.known(patient.name)
    with writing(patient.storage.engine) as connection:
        mending.study(connection, facts)


def _restore(patient: _Patient) -> None:
    run = patient.run()
    Restorer(patient.storage, run.spec, run.facts, run.trainer).restore(patient.display.note)


def _release(patient: _Patient) -> None:
    patient.storage.release(patient.name, holds_lock=True)


def _clear(patient: _Patient) -> None:
    names = patient.storage.names()
    for path in exports.leftovers(patient.home.exports):
        if exports.study_of(path, names) == patient.name:
            exports.clear(path)


def _export(patient: _Patient) -> None:
    """Train what was exported again, and write it again; the winner last, so that its row is the newest."""
    run, home = patient.run(), patient.home
    with reading(patient.storage.engine) as connection:
        others = frozenset(name for _, name in integrity.studies(connection)) - {patient.name}
    for found in exports.of_study(home.exports, patient.name, run.facts.uuid, others):
        if found.folder.name != patient.name and exports.damaged(found, None):
            run.export(_trial_of(found), found.folder)
    won = patient.storage.winner(patient.name)
    place = None if won is None else Path(won[0].export_dir)
    own = home.exports / patient.name
    if place not in (None, own) and own.is_dir() and exports.damaged(exports.look(own), None):
        run.export(None, None)  # an earlier one: the winner's is elsewhere
    run.export(None, place if place is not None and place.is_dir() else None)


def _trial_of(found: exports.Found) -> int:
    """Of which trial a damaged export is, by its manifest, or else by its name."""
    told, number = found.facts.get("trial"), found.folder.name.rpartition("-")[2]
    if type(told) is int:
        return told
    if not number.isdecimal():
        raise UserError(f"{found.folder} must say of which trial it is, and does not any more; move it away")
    return int(number)


def _track(patient: _Patient) -> None:
    facts = patient.storage.known(patient.name)
    bring_in_line(patient.home, patient.storage, facts, patient.display)


_TRIALS = frozenset({"falsified trial", "missing trial", "missing row"})
_STEPS = (
    _Step(frozenset({"falsified study"}), _mend_facts),
    _Step(
        frozenset({"cohorts disagree", "wrong direction", "doubled trial", "half a result", "falsified winner"}),
        _mend_rows,
    ),
    _Step(_TRIALS, _restore),
    _Step(frozenset({"zombie", "idle lease"}), _release, needs_sound_trials=True),
    _Step(frozenset({"leftover"}), _clear),
    _Step(
        frozenset({"missing export", "damaged export", "wrong export", "export without a row"}),
        _export,
        needs_sound_trials=True,
    ),
    _Step(frozenset({"MLflow", "wrong mirror mark"}), _track, needs_sound_trials=True),
)
