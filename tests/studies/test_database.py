import sqlite3
import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from studies.database import database_file, migrate, open_engine, reading, writing
from studies.errors import StudiesError, UserError
from studies.storage import Storage


def test_a_new_database_is_private_and_of_the_newest_version(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    Storage(f"sqlite:///{path}").close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version FROM dlcore_migrations").fetchall() == [(1,)]
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
