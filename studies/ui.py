"""`studies ui`: the tracking server, and a study's page in it."""

from studies import server
from studies.comparison import own_experiment
from studies.errors import UserError
from studies.home import Home, open_home, without_password
from studies.storage import Storage
from studies.stores import existing_store
from studies.tracking_store import Unreachable
from studies.view import study_page


def page(study: str | None) -> str:
    """Address of a study's page in MLflow, of the newest study without a name; of the server where there is no study.

    The home's own server is started if need be.

    Raises:
        UserError: There is no such study, or MLflow does not have it.
        TrackingError: A study is asked for, and the server does not answer.
    """
    home = open_home()
    if home.tracking_uri is None:
        address = server.find_or_start(home.root).address
    else:
        address = without_password(home.tracking_uri).rstrip("/")
    storage = Storage(home.database_url)
    try:
        names = [study] if study is not None else storage.names()[:1]
        experiment = _experiment(home, storage, names[0]) if names else None
    except Unreachable:
        if study is not None:
            raise
        experiment = None  # nobody asked for a study: the address is the answer, whether or not it answers now
    finally:
        storage.close()
    if experiment is not None:
        return study_page(address, experiment)
    if study is not None:
        raise UserError(
            f'MLflow at {address} does not show study "{study}" yet; `studies track {study}` brings it there'
        )
    return address


def _experiment(home: Home, storage: Storage, study: str) -> str | None:
    """Id of a study's experiment; None where MLflow has none of it."""
    facts = storage.known(study)
    store = existing_store(home)
    if store is None:
        return None
    try:
        found = own_experiment(store, facts)
    finally:
        store.close()
    return None if found is None or found.is_deleted else found.experiment_id
