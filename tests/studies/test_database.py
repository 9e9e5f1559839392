import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from studies.database import database_file, now, open_engine, reading, writing
from studies.errors import DatabaseGone, StudiesError, UserError
from studies.migrations import migrate
from studies.storage import Storage
from tests.postgres import PASSWORD, Cluster


def test_a_new_database_is_private_and_of_the_newest_version(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    Storage(f"sqlite:///{path}").close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version FROM dlcore_migrations").fetchall() == [(1,), (2,), (3,), (4,)]
    connection.close()


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    Storage(f"sqlite:///{tmp_path / 'studies.db'}").close()
    before = (tmp_path / "studies.db").read_bytes()
    engine = open_engine(f"sqlite:///{tmp_path / 'studies.db'}")
    migrate(engine)
    engine.dispose()
    assert (tmp_path / "studies.db").read_bytes() == before


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    Storage(url).close()
    with sqlite3.connect(tmp_path / "studies.db") as connection:
        connection.execute("INSERT INTO dlcore_migrations VALUES (99, 0)")
    connection.close()
    with pytest.raises(UserError, match=r"version 99.*newer dlcore"):
        Storage(url)


@pytest.mark.parametrize(
    "content", [b"no database at all, but some text that is long enough" * 50, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "studies.db").write_bytes(content)
    with pytest.raises(UserError, match=r"studies\.db"):
        Storage(f"sqlite:///{tmp_path / 'studies.db'}")


def test_what_commits_is_flushed_and_keeps_foreign_keys(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with reading(engine) as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "delete"
    engine.dispose()


def test_a_failed_transaction_leaves_nothing_and_says_which_file(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER PRIMARY KEY)"))
    with pytest.raises(StudiesError, match=r"a\.db cannot be written"), writing(engine) as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
    with reading(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 0
    engine.dispose()


def test_a_writer_holds_the_write_lock_from_its_first_statement_on(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with writing(engine) as connection:
        connection.execute(text("SELECT 1"))
        other = sqlite3.connect(tmp_path / "a.db", timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("CREATE TABLE t (x)")
        other.close()
    engine.dispose()


def test_the_file_behind_a_url_is_known() -> None:
    assert database_file("sqlite:////tmp/a.db") == Path("/tmp/a.db")
    assert database_file("sqlite://") is None


def test_a_transaction_in_postgresql_keeps_to_utc_and_ends_what_takes_too_long(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    with reading(engine) as connection:
        shown = {
            name: connection.execute(text(f"SHOW {name}")).scalar()
            for name in ("timezone", "statement_timeout", "synchronous_commit", "transaction_isolation")
        }
    assert shown == {
        "timezone": "UTC",
        "statement_timeout": "30s",
        "synchronous_commit": "on",
        "transaction_isolation": "repeatable read",
    }
    engine.dispose()


@pytest.mark.parametrize(
    "break_url",
    [
        lambda url: url.replace("canary", "wrong-canary"),
        lambda url: url.replace(":", ":x", 3),
        lambda url: url.rpartition("@")[0] + "@127.0.0.1:9/studies",
        lambda url: url.rpartition("@")[0] + "@nowhere.invalid/studies",
        lambda url: url.rpartition("/")[0] + "/nothing",
        lambda url: url + "?connect_timeout=soon",
        lambda url: url + "?password=canary-5f1d-again",
    ],
)
def test_a_database_that_cannot_be_reached_is_one_line_without_the_password(
    postgres_url: str, break_url: Callable[[str], str]
) -> None:
    with pytest.raises(UserError) as caught:
        Storage(break_url(postgres_url))
    message = str(caught.value)
    assert "canary" not in message
    assert len(message.splitlines()) == 1
    assert "cannot be reached" in message or "STUDIES_DB must be" in message


def test_a_server_that_keeps_nothing_is_refused(postgres: Cluster, postgres_url: str) -> None:
    postgres.execute("ALTER SYSTEM SET full_page_writes = off")
    postgres.execute("SELECT pg_reload_conf()")
    try:
        for _ in range(100):
            if postgres.execute("SHOW full_page_writes") == [("off",)]:
                break
            time.sleep(0.1)
        with pytest.raises(UserError, match="its full_page_writes is off"):
            open_engine(postgres_url)
    finally:
        postgres.execute("ALTER SYSTEM RESET full_page_writes")
        postgres.execute("SELECT pg_reload_conf()")


@pytest.mark.slow
def test_a_server_that_is_killed_in_a_transaction_is_said_and_the_engine_finds_it_again(
    postgres: Cluster, postgres_url: str
) -> None:
    engine = open_engine(postgres_url)
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
    with pytest.raises(DatabaseGone, match="cannot be written") as caught, writing(engine) as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        postgres.stop()
        connection.execute(text("INSERT INTO t VALUES (2)"))
    assert PASSWORD not in str(caught.value)
    with pytest.raises(DatabaseGone), reading(engine) as connection:
        connection.execute(text("SELECT * FROM t"))
    postgres.start()
    with reading(engine) as connection:
        assert connection.execute(text("SELECT * FROM t")).all() == []
    engine.dispose()


def test_the_databases_clock_counts_seconds_since_1970(database_url: str) -> None:
    Storage(database_url).close()
    engine = open_engine(database_url)
    with reading(engine) as connection:
        assert abs(now(connection) - time.time()) < 5
    engine.dispose()
