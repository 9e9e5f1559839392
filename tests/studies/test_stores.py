import contextlib
import sqlite3
from pathlib import Path

import pytest

from studies import server, stores
from studies.errors import UserError
from studies.home import Home
from studies.mlflow_sql import KNOWN_REVISIONS


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, "", None)


def a_database(home: Home, revision: str) -> None:
    with contextlib.closing(sqlite3.connect(home.root / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES (?)", [revision])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    found = server.Server("http://127.0.0.1:5001", 1, 5001, started=True)
    monkeypatch.setattr(server, "find_or_start", lambda root: found)


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("revision", sorted(KNOWN_REVISIONS))
def test_the_homes_own_database_is_written_where_its_schema_is_known(home: Home, revision: str) -> None:
    said: list[str] = []
    a_database(home, revision)
    store = stores.open_store(home, said.append)
    assert store.identity == ("sql", str(home.root / "mlflow.db"))
    assert store.where == "http://127.0.0.1:5001"
    assert said == ["port 5000 is taken; the tracking server listens on 5001"]


@pytest.mark.usefixtures("started")
def test_another_schema_and_a_missing_database_go_through_the_server(home: Home) -> None:
    assert stores.open_store(home, print).identity == ("rest", "http://127.0.0.1:5001")
    a_database(home, "of the future")
    assert stores.open_store(home, print).identity == ("rest", "http://127.0.0.1:5001")


def test_a_server_that_the_user_names_is_asked_by_rest(tmp_path: Path) -> None:
    home = Home(tmp_path, "", "http://ann:s3cret@127.0.0.1:9/mlflow")
    a_database(home, next(iter(KNOWN_REVISIONS)))
    assert stores.open_store(home, print).identity == ("rest", "http://127.0.0.1:9/mlflow")
    with pytest.raises(UserError):
        stores.open_store(Home(tmp_path, "", "http://0.0.0.0:5000"), print)
