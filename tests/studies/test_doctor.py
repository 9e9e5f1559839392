"""Faults that are injected by plain SQL, into files, and into MLflow: each is found under its name, and mended."""

import contextlib
import itertools
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from dlcore.exported import ExportedModel
from dlcore.files import sha256
from studies import mirroring, registry, server
from studies.doctor import examine
from studies.errors import StudiesError, UserError
from studies.findings import Diagnosis
from studies.home import Home, drive
from studies.mirroring import bring_in_line
from studies.records import StudyFacts, TrialRecord
from studies.repair import repair
from studies.runner import Run
from studies.sampler import ask_cohort
from studies.space import distributions
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.dlcore.forging import forge
from tests.postgres import Cluster
from tests.studies.conftest import NOBODY, SMALL_SPEC, Lines
from tests.studies.mirror_tools import PATIENCE_S, PORT, change

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
_copies = itertools.count()


@dataclass
class Ward:
    """A finished study in a database of its own, mirrored and exported in the home that all tests share."""

    home: Home
    name: str
    display: Lines

    def __post_init__(self) -> None:
        self.storage = Storage(self.home.database_url)

    def sql(self, *statements: str) -> None:
        """Change rows as no program of ours does: foreign keys are not looked at. T4 is the id of trial 4."""
        engine = create_engine(self.home.database_url)
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SET session_replication_role = replica"))
            for statement in statements:
                for number in range(9):
                    one = f"(SELECT max(trial_id) FROM trials WHERE number = {number})"
                    statement = statement.replace(f"T{number}", one)
                assert connection.execute(text(statement)).rowcount != 0, statement
        engine.dispose()

    def examine(self, study: str | None = "") -> Diagnosis:
        return examine(self.home, self.storage, self.name if study == "" else study)

    def repair(self, study: str | None = "") -> Diagnosis:
        found = self.examine(study)
        return repair(self.home, self.storage, self.name if study == "" else study, found, self.display)

    @property
    def records(self) -> list[TrialRecord]:
        return self.storage.records(self.name, has_curves=True)

    @property
    def export(self) -> Path:
        return self.home.exports / self.name

    def claim(self, *, is_released: bool = False) -> None:
        """Claim a third cohort, and die."""
        facts, other = self.storage.known(self.name), Storage(self.home.database_url)
        spec = spec_from_dict(facts.spec)
        asked = ask_cohort(spec, facts.objectives, self.records, 6, 3, lambda _: 1)
        other.claim(self.name, asked, [1] * 3, distributions(spec))
        if is_released:
            other.release(self.name)
        other.close()

    def run_of(self, number: int | None) -> str:
        """Id of the run of a trial, or of the study."""
        facts = self.storage.known(self.name)
        key, value = ("dlcore.study", facts.uuid) if number is None else ("dlcore.key", f"{facts.uuid}:{number}")
        with contextlib.closing(sqlite3.connect(self.home.root / "mlflow.db", timeout=20)) as database:
            query = "SELECT run_uuid FROM tags JOIN runs USING (run_uuid) WHERE key = ? AND value = ?"
            (found,) = database.execute(f"{query} AND lifecycle_stage = 'active'", (key, value)).fetchall()
        return str(found[0])

    def mlflow(self, *statements: str) -> None:
        """Change MLflow's rows; RUN is the run of trial 4, PARENT that of the study."""
        ids = {word: self.run_of(number) for word, number in (("RUN", 4), ("PARENT", None))}
        for statement in statements:
            for word, run_id in ids.items():
                statement = re.sub(rf"\b{word}\b", f"'{run_id}'", statement)
            change(self.home.root, statement)


@pytest.fixture(scope="module", autouse=True)
def unregistered() -> Iterator[None]:
    """Registration and report are tested elsewhere; each takes a process and seconds, in each repair."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "begin", lambda _credentials: None)
        patch.setattr(registry, "register_elsewhere", lambda *_args, **_more: "")
        patch.setattr(mirroring, "ReportProcess", lambda *_args: None)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("doctor") / "mlruns"
    server.find_or_start(folder, port=PORT, timeout_s=PATIENCE_S)
    yield folder
    server.stop(folder)


def ran(home: Home, name: str) -> None:
    storage = Storage(home.database_url)
    Run(spec_from_dict(SMALL_SPEC | {"study": name}), home, storage, Lines()).execute(None)
    storage.close()
    shutil.copytree(home.exports / name, home.root / "kept" / name)


@pytest.fixture(scope="module")
def in_sqlite(root: Path) -> Home:
    home = Home(root, f"sqlite:///{root / 'studies.db'}", None)
    ran(home, "in-sqlite")
    return home


@pytest.fixture(scope="module")
def in_postgresql(root: Path, postgres: Cluster) -> Home:
    home = Home(root, postgres.create_database("doctor", "template_dlcore"), None)
    ran(home, "in-postgresql")
    return home


def admitted(home: Home, name: str) -> Ward:
    """A study as it was when it ended, with all that belongs to it."""
    shutil.rmtree(home.exports / name, ignore_errors=True)
    shutil.copytree(home.root / "kept" / name, home.exports / name)
    ward = Ward(home, name, Lines())
    if ward.examine().findings:  # an earlier test left MLflow in line with what it mended
        bring_in_line(home, ward.storage, ward.storage.known(name), ward.display)
    assert ward.examine().findings == ()
    return ward


@pytest.fixture
def sqlite_ward(in_sqlite: Home, tmp_path: Path) -> Iterator[Ward]:
    shutil.copy(in_sqlite.root / "studies.db", tmp_path / "studies.db")
    (tmp_path / "studies.db").chmod(0o600)
    ward = admitted(Home(in_sqlite.root, f"sqlite:///{tmp_path / 'studies.db'}", None), "in-sqlite")
    yield ward
    ward.storage.close()


@pytest.fixture
def postgresql_ward(in_postgresql: Home, postgres: Cluster) -> Iterator[Ward]:
    database = f"doctor_{next(_copies)}"
    url = postgres.create_database(database, "doctor")
    ward = admitted(Home(in_postgresql.root, url, None), "in-postgresql")
    yield ward
    ward.storage.close()
    postgres.execute(f"DROP DATABASE {database} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def ward(request: pytest.FixtureRequest) -> Ward:
    found: Ward = request.getfixturevalue(f"{request.param}_ward")
    return found


Fault = Callable[[Ward], None]


def executing(*statements: str) -> Fault:
    return lambda ward: ward.sql(*statements)


def in_mlflow(*statements: str) -> Fault:
    return lambda ward: ward.mlflow(*statements)


def damaging(name: str) -> Fault:
    def fault(ward: Ward) -> None:
        content = bytearray((ward.export / name).read_bytes())
        content[len(content) // 2] ^= 1
        (ward.export / name).write_bytes(content)

    return fault


def forging(key: str, value: object) -> Fault:
    """A manifest of which one key is another one, with right sums."""

    def fault(ward: Ward) -> None:
        forge(ward.export, {**json.loads((ward.export / "model.json").read_text()), key: value})

    return fault


def adding_to_sums(ward: Ward) -> None:
    """A line for a file that is there, and is none of the export's."""
    (ward.export.parent / "more").write_bytes(b"more")
    with (ward.export / "SHA256SUMS").open("a") as sums:
        sums.write(f"{sha256(b'more')}  ../more\n")


def waiting(*statements: str) -> Fault:
    """A cohort waits, and something is wrong with it."""

    def fault(ward: Ward) -> None:
        ward.claim(is_released=True)
        ward.sql(*statements)

    return fault


def claimed(*statements: str) -> Fault:
    """A cohort is claimed by an owner that died."""

    def fault(ward: Ward) -> None:
        ward.claim()
        ward.sql(*statements)

    return fault


def copying(run: str, prefix: str = "0-") -> list[str]:
    """Copy a run with its tags, and then with all that it has; its id begins as no other does."""
    row = "name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, source_version, "
    row += "lifecycle_stage, artifact_uri, experiment_id, deleted_time"
    point = "key, value, timestamp, step, is_nan"
    columns = {"runs": row, "tags": "key, value", "params": "key, value", "metrics": point, "latest_metrics": point}
    return [
        f"INSERT INTO {table} (run_uuid, {names}) SELECT '{prefix}' || substr(run_uuid, 3), {names} FROM {table} "
        f"WHERE run_uuid = {run}"
        for table, names in columns.items()
    ]


def doubling(ward: Ward) -> None:
    ward.sql(
        "INSERT INTO trials (number, study_id, state, datetime_start) "
        "SELECT number, study_id, state, datetime_start FROM trials WHERE number = 4"
    )


FALSE = "falsified trial"
EXACT: dict[str, Fault] = {
    "value": executing("UPDATE trial_values SET value = value + 1e-12 WHERE trial_id = T4"),
    "value gone": executing("DELETE FROM trial_values WHERE trial_id = T0"),
    "value of no objective": executing(
        "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (T4, 1, 0.5, 'FINITE')"
    ),
    "infinite value": executing("UPDATE trial_values SET value_type = 'INF_POS', value = NULL WHERE trial_id = T0"),
    "value at a rung": executing("UPDATE trial_intermediate_values SET intermediate_value = 0.25 WHERE trial_id = T4"),
    "point of a curve": executing("UPDATE dlcore_curves SET val_loss = 0.5 WHERE trial_id = T4 AND epoch = 2"),
    "one epoch more": executing("INSERT INTO dlcore_curves VALUES (T4, 9, 0.1, 0.1, 0.1, 0.1, 1.0)"),
    "Optuna's parameter": executing(
        "UPDATE trial_params SET param_value = param_value * 1.01 WHERE trial_id = T4 AND param_name = 'learning_rate'"
    ),
    "hyperparameter": executing(
        "UPDATE dlcore_results SET hyperparameters_json = replace(hyperparameters_json, '\"depth\": ', '\"depth\": 1')"
        " WHERE trial_id = T4"
    ),
    "no JSON": executing("UPDATE dlcore_results SET hyperparameters_json = '{' WHERE trial_id = T4"),
    "hyperparameter, by both tables": executing(
        "UPDATE trial_params SET param_value = 0.25 WHERE trial_id = T4 AND param_name = 'learning_rate'",
        "UPDATE dlcore_results SET hyperparameters_json = replace(hyperparameters_json, '\"learning_rate\": ', "
        '\'"learning_rate": 0.25, "x": \') WHERE trial_id = T4',
    ),
    "attribute": executing("UPDATE trial_user_attributes SET value_json = '7' WHERE trial_id = T4"),
    "state": executing("UPDATE trials SET state = 'FAIL' WHERE number = 4"),
    "finished trial that runs": executing("UPDATE trials SET state = 'RUNNING' WHERE number = 4"),
    "number of a trial": executing("UPDATE trials SET number = 2000000000 WHERE number = 4"),
    "reason": executing("UPDATE dlcore_results SET reason = 'because' WHERE trial_id = T4"),
    "parameter count": executing("UPDATE dlcore_results SET n_parameters = n_parameters + 1 WHERE trial_id = T4"),
    "number of the best epoch": executing("UPDATE dlcore_results SET best_epoch = 7 WHERE trial_id = T4"),
    "cohort of a trial": executing("UPDATE dlcore_results SET cohort = 0 WHERE trial_id = T4"),
}
"""Faults of a finished trial of which all that cannot be trained again is still there: every bit comes back."""

ANEW: dict[str, tuple[str, Fault]] = {
    "epoch gone": (FALSE, executing("DELETE FROM dlcore_curves WHERE trial_id = T4 AND epoch = 2")),
    "curve gone": (FALSE, executing("DELETE FROM dlcore_curves WHERE trial_id = T4")),
    "duration": (FALSE, executing("UPDATE dlcore_results SET duration_s = 9 WHERE trial_id = T4")),
    "end": (FALSE, executing("UPDATE trials SET datetime_complete = '2020-01-01 00:00:00' WHERE number = 4")),
    "checksum gone": (FALSE, executing("UPDATE dlcore_results SET sha256 = NULL WHERE trial_id = T4")),
    "checksum": (FALSE, executing("UPDATE dlcore_results SET sha256 = 'x' WHERE trial_id = T4")),
    "our row gone": ("missing row", executing("DELETE FROM dlcore_results WHERE trial_id = T4")),
    "trial gone": ("missing trial", executing("DELETE FROM trials WHERE number = 4")),
    "last trial gone": ("missing trial", executing("DELETE FROM trials WHERE number = 5")),
}
"""Faults that took a time or a checksum with them: the trial comes back with the times of today."""

ROWS: dict[str, tuple[str, Fault]] = {
    "trial doubled": ("doubled trial", doubling),
    "number of another trial": ("doubled trial", executing("UPDATE trials SET number = 3 WHERE number = 4")),
    "zombie of a dead owner": ("zombie", claimed("UPDATE dlcore_leases SET host = 'here'")),
    "zombie without a lease": ("zombie", claimed("DELETE FROM dlcore_leases")),
    "zombie of another machine": (
        "zombie",
        claimed("UPDATE dlcore_leases SET machine = 'another', expires_at = 1"),
    ),
    "lease of nothing": (
        "idle lease",
        executing(
            "INSERT INTO dlcore_leases SELECT 'token', study_id, 0, 'another', 'host', 1, '1', 'claimer', 1.0, 2.0 "
            "FROM dlcore_studies"
        ),
    ),
    "half a result": (
        "half a result",
        waiting("INSERT INTO dlcore_curves VALUES (T7, 1, 0.1, 0.1, 0.1, 0.1, 1.0)"),
    ),
    "hyperparameter of a waiting trial": (
        FALSE,
        waiting("UPDATE trial_params SET param_value = 0.25 WHERE trial_id = T7 AND param_name = 'learning_rate'"),
    ),
    "waiting trial gone": ("missing trial", waiting("DELETE FROM trials WHERE number = 7")),
    "cohort gone": ("cohorts disagree", executing("DELETE FROM dlcore_cohorts WHERE cohort = 1")),
    "first cohort gone": ("cohorts disagree", executing("DELETE FROM dlcore_cohorts WHERE cohort = 0")),
    "cohort too long": ("cohorts disagree", executing("UPDATE dlcore_cohorts SET n_trials = 9 WHERE cohort = 1")),
    "cohort too short": ("cohorts disagree", executing("UPDATE dlcore_cohorts SET n_trials = 2 WHERE cohort = 0")),
    "cohort elsewhere": ("cohorts disagree", executing("UPDATE dlcore_cohorts SET first_number = 1 WHERE cohort = 1")),
    "results of no trial": (
        "orphan rows",
        executing(
            "INSERT INTO dlcore_results (trial_id, cohort, hyperparameters_json, n_parameters) VALUES (99, 0, '{}', 1)"
        ),
    ),
    "curve of no trial": (
        "orphan rows",
        executing("INSERT INTO dlcore_curves VALUES (99, 1, 0.1, 0.1, 0.1, 0.1, 1.0)"),
    ),
    "parameter of no trial": (
        "orphan rows",
        executing("INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
                  "VALUES (99, 'x', 1.0, '{}')"),
    ),
    "cohort of no study": ("orphan rows", executing("INSERT INTO dlcore_cohorts VALUES (99, 0, 0, 3, 1.0)")),
    "trial of no study": (
        "orphan rows",
        executing("INSERT INTO trials (number, study_id, state) VALUES (0, 99, 'WAITING')"),
    ),
    "direction": ("wrong direction", executing("UPDATE study_directions SET direction = 'MINIMIZE'")),
    "direction gone": ("wrong direction", executing("DELETE FROM study_directions")),
    "spec": (
        "falsified study",
        executing("UPDATE dlcore_studies SET spec_json = replace(spec_json, '\"epochs\": 4', '\"epochs\": 5')"),
    ),
    "objective": (
        "falsified study",
        executing("UPDATE dlcore_studies SET objectives_json = replace(objectives_json, 'maximize', 'minimize')"),
    ),
    "data": ("falsified study", executing("UPDATE dlcore_studies SET data_fingerprint = 'x'")),
    "winner's test": ("falsified winner", executing("UPDATE dlcore_winners SET test_metrics_json = '{}'")),
    "winner's finals": ("falsified winner", executing("UPDATE dlcore_winners SET final_json = NULL")),
    "winner's file": ("falsified winner", executing("UPDATE dlcore_winners SET onnx_sha256 = 'x'")),
    "winner gone": ("export without a row", executing("DELETE FROM dlcore_winners")),
    "view gone": ("missing view", executing("DROP VIEW dlcore_trials")),
    "mark": ("wrong mirror mark", executing("UPDATE dlcore_studies SET experiment_id = '77'")),
    "mark of another server": (
        "wrong mirror mark",
        executing("UPDATE dlcore_studies SET tracking_uri = 'http://example.org'"),
    ),
}  # fmt: skip
"""Faults that other rows, or files, tell how to mend."""

ELSEWHERE: dict[str, tuple[str, Fault]] = {
    "run deleted": (
        "MLflow: missing run",
        in_mlflow("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = RUN"),
    ),
    "run doubled": ("MLflow: doubled run", in_mlflow(*copying("RUN"))),
    "run doubled by a repeated request": (
        "MLflow: doubled run",
        in_mlflow(
            *copying("RUN", "1-")[:2],
            "UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE run_uuid LIKE '1-%'",
        ),
    ),
    "study's run doubled": ("MLflow: doubled run", in_mlflow(*copying("PARENT"))),
    "run of no trial": (
        "MLflow: orphan run",
        in_mlflow("UPDATE tags SET value = replace(value, ':4', ':99') WHERE run_uuid = RUN AND key = 'dlcore.key'"),
    ),
    "param": (
        "MLflow: wrong param",
        in_mlflow("UPDATE params SET value = '9' WHERE run_uuid = RUN AND key = 'depth'"),
    ),
    "point": (
        "MLflow: extra points",
        in_mlflow("UPDATE metrics SET value = 9 WHERE run_uuid = RUN AND key = 'val_loss' AND step = 2"),
    ),
    "point gone": (
        "MLflow: missing points",
        in_mlflow("DELETE FROM metrics WHERE run_uuid = RUN AND key = 'val_loss' AND step = 1"),
    ),
    "status": ("MLflow: wrong state", in_mlflow("UPDATE runs SET status = 'SCHEDULED' WHERE run_uuid = RUN")),
    "finalists": (
        "MLflow: wrong winner",
        in_mlflow("UPDATE tags SET value = 'trial 77' WHERE run_uuid = PARENT AND key = 'dlcore.finalists'"),
    ),
    "winner": (
        "MLflow: wrong winner",
        in_mlflow("UPDATE tags SET value = '77' WHERE run_uuid = PARENT AND key = 'dlcore.winner'"),
    ),
    "experiment deleted": (
        "MLflow: missing experiment",
        in_mlflow("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE experiment_id = "
                  "(SELECT experiment_id FROM runs WHERE run_uuid = RUN)"),
    ),
    "export gone": ("missing export", lambda ward: shutil.rmtree(ward.export)),
    "graph": ("damaged export", damaging("model.onnx")),
    "weights": ("damaged export", damaging("weights.safetensors")),
    "manifest": ("damaged export", damaging("model.json")),
    "manifest gone": ("damaged export", lambda ward: (ward.export / "model.json").unlink()),
    "sums": ("damaged export", damaging("SHA256SUMS")),
    "sums of more": ("damaged export", adding_to_sums),
    "forged task": ("damaged export", forging("task", "ranking")),
    "forged columns": ("damaged export", forging("columns", [])),
    "forged version": ("damaged export", forging("format_version", 99)),
    "draft of an export": ("leftover", lambda ward: (ward.home.exports / ".in-sqlite.new").mkdir()),
    "home": ("open to others", lambda ward: ward.home.root.chmod(0o755)),
    "database's mode": (
        "open to others",
        lambda ward: Path(ward.home.database_url.removeprefix("sqlite:///")).chmod(0o644),
    ),
}  # fmt: skip
"""Faults outside of the study database."""


def kinds(found: Diagnosis) -> set[str]:
    return {f.kind for f in found.findings}


def results(records: list[TrialRecord]) -> list[object]:
    """All of records that does not depend on the hour and the speed."""
    from studies.replay import bits

    return [(t.number, dict(t.hyperparameters), t.searched, t.cohort, t.n_parameters, bits(t)) for t in records]


@pytest.mark.parametrize("name", EXACT)
def test_a_falsified_trial_is_trained_again_and_is_what_it_was_to_the_bit(ward: Ward, name: str) -> None:
    before = repr(ward.records)
    EXACT[name](ward)
    found = ward.examine()
    assert FALSE in kinds(found) and any("trial" in f.text for f in found.findings), found
    left = ward.repair()
    assert left.findings == (), left
    assert ward.examine().findings == ()
    assert repr(ward.records) == before


@pytest.mark.parametrize("name", ANEW)
def test_a_trial_whose_times_are_lost_is_trained_again_and_has_the_same_result(ward: Ward, name: str) -> None:
    before = results(ward.records)
    kind, fault = ANEW[name]
    fault(ward)
    assert kind in kinds(ward.examine())
    left = ward.repair()
    assert left.findings == (), left
    assert ward.examine().findings == ()
    assert results(ward.records) == before


def test_a_cohort_that_is_gone_whole_is_asked_again_and_waits_to_be_trained(ward: Ward) -> None:
    before = results(ward.records)
    ward.sql("DELETE FROM trials WHERE number > 2")
    assert [f.text for f in ward.examine().findings if f.kind == "missing trial"] == [
        f"trial {n} is not there" for n in (3, 4, 5)
    ]
    left = ward.repair()
    assert left.findings == () and left.sound.endswith("6 trials, 3 of them to be trained yet")
    Run(spec_from_dict(SMALL_SPEC | {"study": ward.name}), ward.home, ward.storage, ward.display).execute(None)
    assert results(ward.records) == before and ward.examine().findings == ()


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_disagree_are_found_and_mended(ward: Ward, name: str) -> None:
    kind, fault = ROWS[name]
    before = repr(ward.records)
    fault(ward)
    assert kind in kinds(ward.examine())
    left = ward.repair()
    assert left.findings == (), left
    assert ward.examine().findings == ()
    assert repr(ward.records[:6]) == before
    assert {t.state for t in ward.records[6:]} <= {"WAITING"}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_mlflow_and_files_that_differ_are_found_and_mended(sqlite_ward: Ward, name: str) -> None:
    ward, before = sqlite_ward, repr(sqlite_ward.records)
    kind, fault = ELSEWHERE[name]
    fault(ward)
    found = ward.examine()
    assert kind in kinds(found), found
    left = ward.repair()
    assert left.findings == (), left
    assert ward.examine().findings == () and repr(ward.records) == before


def test_a_server_that_moved_to_another_port_is_no_fault(sqlite_ward: Ward) -> None:
    sqlite_ward.sql("UPDATE dlcore_studies SET tracking_uri = 'http://127.0.0.1:1'")
    assert sqlite_ward.examine().findings == ()


def test_a_damaged_index_is_found_and_made_again(sqlite_ward: Ward) -> None:
    ward = sqlite_ward
    path = ward.home.database_url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        # A row that is inserted while nobody knows of the index is not in it.
        database.execute("PRAGMA writable_schema = ON")
        name, definition, root = database.execute(
            "SELECT name, sql, rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = 'trials' AND sql > ''"
        ).fetchone()
        database.execute("DELETE FROM sqlite_master WHERE name = ?", (name,))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("INSERT INTO trials (number, study_id, state) VALUES (0, 99, 'WAITING')")
        database.execute("PRAGMA writable_schema = ON")
        row = ("index", name, "trials", root, definition)
        database.execute("INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) VALUES (?, ?, ?, ?, ?)", row)
    assert "damaged index" in kinds(ward.examine())
    left = ward.repair()
    assert left.findings == (), left
    assert ward.examine().findings == ()


def test_an_export_of_nobody_is_set_aside_and_not_deleted(sqlite_ward: Ward) -> None:
    ward = sqlite_ward
    shutil.copytree(ward.export, ward.home.exports / "ghost")
    manifest = ward.home.exports / "ghost" / "model.json"
    uuid = ward.storage.known(ward.name).uuid
    manifest.write_text(manifest.read_text().replace(uuid, "f" * 32))
    own = [f for f in ward.examine(None).findings if "ghost" in f.text]
    assert [f.kind for f in own] == ["orphan export"]
    others = ward.home.exports / "in-postgresql"  # of a study that lies in another database
    if others.exists():
        others.rename(ward.home.root / "in-postgresql")
    try:
        assert ward.repair(None).findings == ()
    finally:
        if not others.exists() and (ward.home.root / "in-postgresql").exists():
            (ward.home.root / "in-postgresql").rename(others)
    assert (ward.home.root / "set-aside" / "ghost" / "model.onnx").is_file()
    shutil.rmtree(ward.home.root / "set-aside")


def test_a_forged_manifest_is_named_with_what_is_wrong(sqlite_ward: Ward) -> None:
    ward = sqlite_ward
    columns = json.loads((ward.export / "model.json").read_text())["columns"]
    cases = {
        "model.json must describe a network; task must be one of": ("task", "ranking"),
        "model.json must describe a network; columns must be objects": ("columns", ["alcohol"]),
        "model.json must describe a network; inputs must be those": ("columns", columns[1:]),
        "model.json must have format_version 2 or 3, not 99": ("format_version", 99),
    }
    for said, (key, value) in cases.items():
        forging(key, value)(ward)
        (found,) = [f for f in ward.examine().findings if f.kind == "damaged export"]
        assert found.text.startswith(f"{ward.export}/{said}"), found
        shutil.rmtree(ward.export)
        shutil.copytree(ward.home.root / "kept" / ward.name, ward.export)


def test_a_forged_export_of_another_trial_is_written_again_by_the_number_in_its_name(sqlite_ward: Ward) -> None:
    ward = sqlite_ward
    other = ward.home.exports / f"{ward.name}-trial-3"
    shutil.copytree(ward.export, other)
    manifest = json.loads((other / "model.json").read_text())
    try:
        forge(other, {**manifest, "task": "ranking", "facts": {**manifest["facts"], "trial": "three"}})
        assert ward.repair().findings == ()
        assert json.loads((other / "model.json").read_text())["facts"]["trial"] == 3
        other.rename(ward.home.exports / "named")
        forge(ward.home.exports / "named", {**manifest, "facts": {**manifest["facts"], "trial": None}, "task": None})
        left = ward.repair()
        assert kinds(left) == {"damaged export"} and "must say of which trial it is" in left.notes[-1]
    finally:
        for place in (other, ward.home.exports / "named"):
            shutil.rmtree(place, ignore_errors=True)


# ---- what nobody can mend is left as it is, and said


def test_a_file_of_somebody_in_an_export_is_named_and_left(sqlite_ward: Ward) -> None:
    ward = sqlite_ward
    (ward.export / "answers.csv").write_text("mine")
    (found,) = ward.repair().findings
    assert (found.kind, found.text) == ("foreign file", str(ward.export / "answers.csv"))
    assert found.cure == "move it away; until then no new export takes the place of this one"
    ExportedModel.load(ward.export)  # it is none of its files
    damaging("model.onnx")(ward)
    left = ward.repair()
    assert kinds(left) == {"foreign file", "damaged export"} and "it holds other files: answers.csv" in left.notes[-1]
    assert (ward.export / "answers.csv").read_text() == "mine"
    (ward.export / "answers.csv").unlink()
    assert ward.repair().findings == ()


def test_a_trial_of_another_program_is_left_alone_and_named(ward: Ward) -> None:
    ward.sql("INSERT INTO trials (number, study_id, state) SELECT 6, study_id, 'WAITING' FROM dlcore_studies")
    left = ward.repair()
    (found,) = left.findings
    assert (found.kind, found.text) == ("foreign trial", "trial 6 was added by another program")
    assert found.cure is not None and len(ward.storage.records(ward.name)) == 6


def test_facts_of_which_no_export_tells_cannot_be_mended_and_are_never_used(ward: Ward) -> None:
    shutil.rmtree(ward.export)
    ward.sql("UPDATE dlcore_studies SET spec_json = replace(spec_json, '\"epochs\": 4', '\"epochs\": 5')")
    (found,) = ward.repair().findings
    assert found.kind == "falsified study" and found.cure == "restore the database from a copy"
    with pytest.raises(StudiesError, match="does not have its checksum"):
        ward.storage.known(ward.name)
    with pytest.raises(StudiesError, match="does not have its checksum"):
        ward.storage.store_spec(ward.name, {})


def test_a_study_whose_own_row_is_gone_is_said(ward: Ward) -> None:
    ward.sql("DELETE FROM dlcore_studies")
    assert {f.kind for f in ward.repair().findings} == {"lost study"}


def test_trials_that_were_recorded_elsewhere_are_not_replaced_by_what_comes_out_here(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a whole cohort no checksum is left, and nothing tells whether this machine trains as that one did."""
    ward.sql("UPDATE dlcore_results SET sha256 = 'x' WHERE cohort = 1")
    before = repr(ward.records)
    monkeypatch.setattr("studies.restoring.changed", lambda *_: ["torch 2.12.0 -> 2.13.0"])
    left = ward.repair()
    assert [f.kind for f in left.findings] == [FALSE] * 3 and repr(ward.records) == before
    monkeypatch.undo()
    assert ward.repair().findings == ()


def test_a_study_whose_data_changed_keeps_its_falsified_trial_and_says_why(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.sql("UPDATE trial_values SET value = 0.5 WHERE trial_id = T4")
    monkeypatch.setattr("studies.repair.Run", _refusing)
    left = ward.repair()
    assert [f.kind for f in left.findings] == [FALSE] and left.notes == ("the data changed",)


def _refusing(*_: object) -> None:
    raise UserError("the data changed")


def test_a_study_that_is_run_is_looked_at_and_not_repaired(sqlite_ward: Ward) -> None:
    ward = sqlite_ward
    ward.sql("UPDATE trial_values SET value = 0.5 WHERE trial_id = T4")
    shutil.rmtree(ward.export)
    with drive(ward.home, ward.name):
        found = ward.examine()
        assert kinds(found) == {FALSE} and "is being run now" in found.notes[0]
        left = ward.repair()
        assert kinds(left) == {FALSE} and "is being run" in left.notes[-1]
    assert ward.repair().findings == ()


def test_what_a_study_that_is_run_is_writing_is_no_leftover(
    sqlite_ward: Ward, make_facts: Callable[..., StudyFacts]
) -> None:
    ward = sqlite_ward
    ward.storage.create_study(make_facts("other"))
    draft, trials = ward.home.exports / f".{ward.name}.new", ward.home.exports / f".{ward.name}-trial-3.new"
    draft.mkdir(), trials.mkdir()
    found = ward.examine()
    assert [f.text for f in found.findings] == [str(trials), str(draft)]
    assert ward.examine("other").findings == () and ward.repair("other").findings == () and draft.is_dir()
    with drive(ward.home, ward.name):
        assert "leftover" not in kinds(ward.examine()) | kinds(ward.examine(None))
        repair(ward.home, ward.storage, None, found, ward.display)  # it was begun after the examination
        assert draft.is_dir() and trials.is_dir()
    assert ward.repair().findings == () and not draft.exists() and not trials.exists()


def test_a_study_whose_driver_in_postgresql_holds_its_finals_is_run(postgresql_ward: Ward) -> None:
    ward = postgresql_ward
    draft = ward.home.exports / f".{ward.name}.new"
    draft.mkdir()
    found, driver = ward.examine(), Storage(ward.home.database_url)
    assert kinds(found) == {"leftover"}
    with driver.leading(ward.name):  # nothing is claimed, and another driver may be the one that mirrors
        seen = ward.examine()
        assert seen.findings == () and "is being run now" in seen.notes[0]
        ward.sql("UPDATE trial_values SET value = 0.5 WHERE trial_id = T4")
        left = repair(ward.home, ward.storage, ward.name, found, ward.display)  # it was begun after the examination
        assert kinds(left) == {FALSE} and "is being run" in left.notes[-1] and draft.is_dir()
    assert ward.repair().findings == () and not draft.exists()
    driver.close()


def test_a_damaged_export_in_the_home_is_written_again_though_the_winners_is_elsewhere(
    sqlite_ward: Ward, tmp_path: Path
) -> None:
    ward, elsewhere = sqlite_ward, tmp_path / "model"
    run = Run(spec_from_dict(SMALL_SPEC | {"study": ward.name}), ward.home, ward.storage, ward.display)
    run.export(None, elsewhere)
    assert ward.examine().findings == ()
    damaging("model.onnx")(ward)
    assert kinds(ward.examine()) == {"damaged export"}
    assert ward.repair().findings == ()
    won = ward.storage.winner(ward.name)
    assert won is not None and won[0].export_dir == str(elsewhere)


def test_a_tracking_server_that_does_not_answer_is_one_line_and_the_rest_is_looked_at(sqlite_ward: Ward) -> None:
    ward = sqlite_ward
    away = replace(ward.home, tracking_uri=NOBODY)
    found = examine(away, ward.storage, ward.name)
    assert found.findings == () and len(found.notes) == 1 and NOBODY in found.notes[0]
    ward.sql("UPDATE trial_values SET value = 0.5 WHERE trial_id = T4")
    assert kinds(examine(away, ward.storage, ward.name)) == {FALSE}


def test_a_damaged_tracking_database_is_named(sqlite_ward: Ward, tmp_path: Path) -> None:
    ward = sqlite_ward
    root = tmp_path / "home"
    root.mkdir(mode=0o700)
    shutil.copytree(ward.home.exports, root / "exports")
    (root / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    (root / "mlflow.db").chmod(0o600)
    (found,) = examine(replace(ward.home, root=root), ward.storage, ward.name).findings
    assert found.kind == "MLflow: damaged database" and str(root / "mlflow.db") in found.text and found.cure


def test_there_are_no_fewer_than_35_faults() -> None:
    assert sum(map(len, (EXACT, ANEW, ROWS, ELSEWHERE))) >= 35
