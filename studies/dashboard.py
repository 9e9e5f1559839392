"""optuna-dashboard over a study database: reading only, on loopback only, with every epoch's value in its curves.

Optuna's tables hold a trial's values at rungs, which samplers and pruners compare; its whole curve is in
`dlcore_curves`. Here both are put together as they are read, so that nothing that decides is touched.

    python -m studies.dashboard [PORT]       # make dashboard
"""

import json
import signal
import socket
import sys
from collections.abc import Callable, Container, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.storages import _CachedStorage
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select

from studies.database import reading
from studies.errors import StudiesError, UserError
from studies.home import open_home
from studies.optuna_storage import StudyStorage
from studies.rows import TRIAL
from studies.tables import CURVES, STUDIES

PORT = 8080
_PORTS = 20
"""How many ports are tried, from the one asked for on."""
_CHUNK = 500
"""Trials whose curves are read at once."""
_METRIC_NAMES = "study:metric_names"
"""Where Optuna keeps them (`Study.set_metric_names`)."""
_Answer = Iterable[bytes]


class CurveStorage(StudyStorage):
    """A study database that shows curves as intermediate values, and takes nothing."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        trials = super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        for begin in range(0, len(trials), _CHUNK):
            self._put_curves(trials[begin : begin + _CHUNK])
        return trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial with its curve."""
        trial = super().get_trial(trial_id)
        self._put_curves([trial])
        return trial

    def get_all_studies(self) -> list[FrozenStudy]:
        """All studies, whose objectives have the names of their metrics: otherwise pages call them "Objective 0"."""
        studies = super().get_all_studies()
        with reading(self.engine) as connection:
            rows = connection.execute(select(STUDIES.c.study_id, STUDIES.c.objectives_json))
            names = {row.study_id: [one["metric"] for one in json.loads(row.objectives_json)] for row in rows}
        for study in studies:
            if study._study_id in names:  # another program may have named those of its own
                study.system_attrs[_METRIC_NAMES] = names[study._study_id]
        return studies

    def _put_curves(self, trials: list[FrozenTrial]) -> None:
        by_id = {trial._trial_id: trial for trial in trials}
        query = (
            select(CURVES.c.trial_id, CURVES.c.epoch, CURVES.c.val_loss, CURVES.c.val_metric, STUDIES.c.objectives_json)
            .join(TRIAL, TRIAL.c.trial_id == CURVES.c.trial_id)
            .join(STUDIES, STUDIES.c.study_id == TRIAL.c.study_id)
            .where(CURVES.c.trial_id.in_(by_id))
        )
        with reading(self.engine) as connection:
            for row in connection.execute(query):
                is_loss = row.objectives_json.startswith('[{"metric": "loss"')
                value = row.val_loss if is_loss else row.val_metric
                by_id[row.trial_id].intermediate_values[row.epoch] = float("nan") if value is None else value


def _refuse(self: CurveStorage, *_arguments: object, **_named: object) -> Any:
    raise StudiesError("the dashboard reads the study database and changes nothing; `studies` does")


for _name in (
    "create_new_study", "delete_study", "set_study_user_attr", "set_study_system_attr", "_create_new_trial",
    "_set_trial_param", "set_trial_state_values", "set_trial_intermediate_value", "set_trial_user_attr",
    "set_trial_system_attr",
):  # fmt: skip
    setattr(CurveStorage, _name, _refuse)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Requests are nobody's news."""


def guarded(app: Callable[..., _Answer], hosts: Container[str]) -> Callable[..., _Answer]:
    """The application for those who ask for it by one of its own names: a stranger's page in the browser does not."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> _Answer:
        if environ.get("HTTP_HOST") not in hosts:
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"this server answers on loopback only\n"]
        return app(environ, start_response)

    return answer


def make_dashboard(url: str, port: int) -> tuple[_Server, str]:
    """A server for the dashboard of a study database, and its address.

    Args:
        url: Of the database.
        port: To listen on; where it is taken, one of the next.

    Raises:
        UserError: optuna-dashboard is not installed, or no port is free.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise UserError(
            f"optuna-dashboard must be installed ({error}); `pip install 'dlcore[dashboard]'` does it"
        ) from error
    found = next((p for p in range(port, port + _PORTS) if _is_free(p)), None)
    if found is None:
        raise UserError(f"one of the ports {port} to {port + _PORTS - 1} must be free; give another one")
    app = guarded(wsgi(_CachedStorage(CurveStorage(url))), (f"127.0.0.1:{found}", f"localhost:{found}"))
    server = make_server("127.0.0.1", found, app, server_class=_Server, handler_class=_Handler)
    return server, f"http://127.0.0.1:{found}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def main(arguments: list[str]) -> int:
    """Serve until Ctrl-C; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments and not (arguments[0].isdecimal() and 0 < int(arguments[0]) < 65536):
            raise UserError(f"the port must be a number from 1 to 65535; got {arguments[0]}")
        server, address = make_dashboard(open_home().database_url, int(arguments[0]) if arguments else PORT)
    except StudiesError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{address}/dashboard\nCtrl-C ends it", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
