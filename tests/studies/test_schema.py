import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from studies import migrations
from studies.database import reading
from studies.errors import StudiesError, UserError
from studies.records import StudyFacts
from studies.schema import OPTUNA_SCHEMA, create
from studies.storage import Storage
from tests.postgres import PASSWORD, Cluster


def tables(path: Path) -> set[str]:
    with sqlite3.connect(path) as connection:
        found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    return found


def test_optunas_schema_is_the_one_that_is_known_here(tmp_path: Path) -> None:
    optuna.create_study(storage=f"sqlite:///{tmp_path / 'theirs.db'}")
    with sqlite3.connect(tmp_path / "theirs.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (OPTUNA_SCHEMA,)
    connection.close()
    create(tmp_path / "ours.db")
    assert tables(tmp_path / "ours.db") > tables(tmp_path / "theirs.db")


def test_a_database_that_optuna_made_is_taken_in(tmp_path: Path) -> None:
    optuna.create_study(storage=f"sqlite:///{tmp_path / 'studies.db'}", study_name="theirs")
    assert Storage(f"sqlite:///{tmp_path / 'studies.db'}").names() == []


@pytest.mark.parametrize("statement", ["CREATE TABLE thesis (x)", "CREATE TABLE alembic_version (version_num)"])
def test_a_foreign_database_is_refused_and_left_as_it_is(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "studies.db"
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match="left alone"):
        Storage(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_another_version_of_optunas_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    Storage(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9.z'")
    connection.close()
    with pytest.raises(UserError, match=r"it has v9\.9\.9\.z"):
        Storage(f"sqlite:///{path}")


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "studies.db").touch()
    assert Storage(f"sqlite:///{tmp_path / 'studies.db'}").names() == []


def test_where_no_database_can_be_made_one_line_says_so(tmp_path: Path) -> None:
    with pytest.raises((StudiesError, OSError)):
        create(tmp_path / "no" / "folder" / "studies.db")


@pytest.mark.slow
def test_a_kill_while_the_database_is_made_leaves_none_or_all_of_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from studies.schema import create\n"
        "print('go', flush=True)\ncreate(Path(sys.argv[1]))"
    )
    n_made = 0
    for i in range(12):
        path = tmp_path / f"{i}.db"
        with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None and child.stdout.readline() == b"go\n"
            time.sleep(0.03 * i)
            os.kill(child.pid, signal.SIGKILL)
        if path.exists():
            n_made += 1
        assert Storage(f"sqlite:///{path}").names() == []
    assert n_made < 12


def dumped(path: Path) -> set[str]:
    """The statements that make a database's tables and indexes, without ours."""
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'dlcore%'")
        statements = {" ".join(sql.split()) for (sql,) in found}
        statements |= {f"{row}" for row in connection.execute("SELECT * FROM version_info")}
    connection.close()
    return statements


def test_optunas_tables_are_made_as_optuna_makes_them(tmp_path: Path) -> None:
    optuna.create_study(storage=f"sqlite:///{tmp_path / 'theirs.db'}")
    create(tmp_path / "ours.db")
    assert dumped(tmp_path / "ours.db") == dumped(tmp_path / "theirs.db")


def columns(url: str) -> list[tuple[object, ...]]:
    engine = sqlalchemy.create_engine(url)
    query = (
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name NOT LIKE 'dlcore%' ORDER BY 1, 2"
    )
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(sqlalchemy.text(query))]
        indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename NOT LIKE 'dlcore%'"
        found += sorted(tuple(row) for row in connection.execute(sqlalchemy.text(indexes)))
    engine.dispose()
    return found


def test_optunas_tables_in_postgresql_are_made_as_optuna_makes_them(postgres: Cluster, postgres_url: str) -> None:
    theirs = postgres.create_database("theirs")
    optuna.create_study(storage=theirs)
    assert columns(postgres_url) == columns(theirs)


def make(url: str, start: Any, facts: StudyFacts) -> None:
    start.wait()
    storage = Storage(url)
    storage.create_study(facts)
    storage.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_several_processes_that_make_a_database_at_once_make_one(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, make_facts: Callable[..., StudyFacts]
) -> None:
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path / 'raced.db'}"
    else:
        url = request.getfixturevalue("postgres").create_database("raced")
    context = multiprocessing.get_context("spawn")
    start, names = context.Barrier(4), ["first", "second", "third", "fourth"]
    children = [context.Process(target=make, args=(url, start, make_facts(name))) for name in names]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0, 0]
    storage = Storage(url)
    assert sorted(storage.names()) == sorted(names)
    with reading(storage.engine) as connection:
        versions = connection.execute(sqlalchemy.text("SELECT version FROM dlcore_migrations ORDER BY version"))
        assert [version for (version,) in versions] == list(range(1, len(migrations._MIGRATIONS) + 1))
    storage.close()


def test_a_database_that_another_process_made_meanwhile_is_left_alone(tmp_path: Path) -> None:
    create(tmp_path / "studies.db")
    before = (tmp_path / "studies.db").read_bytes()
    create(tmp_path / "studies.db")
    assert (tmp_path / "studies.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["studies.db"]


def test_a_postgresql_database_of_something_else_is_refused_and_left_as_it_is(postgres: Cluster) -> None:
    url = postgres.create_database("thesis")
    postgres.execute("CREATE TABLE chapters (x INTEGER)", "thesis")
    with pytest.raises(UserError, match="left alone") as caught:
        Storage(url)
    assert PASSWORD not in str(caught.value) and "thesis" in str(caught.value)
    assert len(postgres.execute("SELECT * FROM pg_tables WHERE schemaname = 'public'", "thesis")) == 1
