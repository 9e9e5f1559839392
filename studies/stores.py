"""Which way leads to the runs: the database of the home's own server where we know its schema, else the server."""

from collections.abc import Callable

from studies import server
from studies.errors import TrackingError
from studies.home import Home
from studies.mlflow_rest import RestStore
from studies.mlflow_sql import KNOWN_REVISIONS, SqlStore, damage, revision
from studies.tracking_store import TrackingStore


def existing_store(home: Home) -> TrackingStore | None:
    """The place where a home's studies are mirrored, as far as it can be read now; nothing is started.

    The home's own runs are read from its tracking database, for which no server need run.

    Raises:
        TrackingError: The tracking database is damaged.
        UserError: The address that the user gave is none.
    """
    if home.tracking_uri is not None:
        return RestStore(home.tracking_uri)
    database = home.root.resolve() / "mlflow.db"
    if not database.exists():
        return None
    if (found := damage(database)) is not None:
        raise TrackingError(f"the tracking database {database} is damaged: {found}")
    running = server.find(home.root)
    if revision(database) in KNOWN_REVISIONS:
        return SqlStore(database, database.parent / "artifacts", running.address if running else "")
    return RestStore(running.address) if running else None


def open_store(home: Home, say: Callable[[str], None]) -> TrackingStore:
    """The place where a home's studies are mirrored.

    Args:
        home: Names a tracking server, or has its own, which is started if need be.
        say: Is told where the server listens if its usual port is taken.

    Raises:
        TrackingError: The home's own server does not start.
        UserError: The address that the user gave is none.
    """
    if home.tracking_uri is not None:
        return RestStore(home.tracking_uri)
    found = server.find_or_start(home.root)
    if found.started and found.port != server.PORT:
        say(f"port {server.PORT} is taken; the tracking server listens on {found.port}")
    database = home.root.resolve() / "mlflow.db"
    if revision(database) in KNOWN_REVISIONS:
        return SqlStore(database, database.parent / "artifacts", found.address)
    return RestStore(found.address)
