import contextlib
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from studies.records import Winner
from studies.registry import SETTINGS, Request, begin, register_elsewhere, why_it_stays
from studies.tracking_store import Refused, Unreachable


def a_request(folder: Path) -> Request:
    winner = Winner(0, (0.9,), {"depth": 1}, 3, {"accuracy": 0.9}, {"accuracy": 0.8}, str(folder), "ab" * 32)
    return Request("http://127.0.0.1:9", "wine", "0" * 32, winner, "1" * 32)


CHAMPION = {"dlcore.study": "0" * 32, "dlcore.data": "d", "dlcore.metric": "accuracy", "dlcore.value": "0.9"}


@pytest.mark.parametrize(
    ("changes", "champion", "said"),
    [
        ({"value": 0.91}, {}, ""),
        ({"value": 0.9}, {}, "accuracy 0.9000 on val is not better than its 0.9000"),
        ({"value": 0.89}, {}, "not better than its 0.9"),
        ({"value": 0.89, "direction": "minimize"}, {}, ""),
        ({"value": 0.99, "fingerprint": "e"}, {}, "learned from other data or another split"),
        ({"value": 0.99, "metric": "f1"}, {}, "was not judged by f1"),
        ({"value": 0.1}, {"dlcore.value": None}, ""),  # this study's, of an earlier version of the program
        ({"value": 0.99}, {"dlcore.value": None, "dlcore.study": "9" * 32}, "was not judged by accuracy"),
        ({"value": 0.99}, dict.fromkeys(CHAMPION), "learned from other data"),  # somebody's own
        ({"value": 0.91}, {"dlcore.study": "9" * 32}, ""),  # another study of that name, on the same data
    ],
)
def test_the_alias_moves_to_what_is_better_on_the_same_data_alone(
    tmp_path: Path, changes: dict[str, object], champion: dict[str, str | None], said: str
) -> None:
    given = {"fingerprint": "d", "metric": "accuracy", "direction": "maximize"} | changes
    tags = {key: value for key, value in (CHAMPION | champion).items() if value is not None}
    found = why_it_stays(replace(a_request(tmp_path), **given), tags)  # type: ignore[arg-type]
    assert said in found and bool(found) == bool(said)


def test_importing_it_imports_no_mlflow() -> None:
    code = "import sys, studies.registry; sys.exit(bool({'mlflow', 'onnxruntime', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_repeated_or_unpickled_or_reported_home() -> None:
    assert SETTINGS["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert SETTINGS["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert SETTINGS["MLFLOW_DISABLE_TELEMETRY"] == SETTINGS["DO_NOT_TRACK"] == "true"


def test_a_cancelled_registration_ends_at_once(tmp_path: Path) -> None:
    asked: list[None] = []
    with pytest.raises(Unreachable, match="cut off"):
        register_elsewhere(a_request(tmp_path), {}, is_cancelled=lambda: asked.append(None) is None)
    assert len(asked) == 1


@pytest.mark.slow
def test_a_process_that_gets_no_request_ends_in_peace() -> None:
    with begin({}) as process:
        assert process.communicate("") == ("", "")
    assert process.returncode == 0


@pytest.mark.slow
def test_a_server_that_is_gone_is_unreachable_and_not_a_refusal(tmp_path: Path) -> None:
    credentials = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "s3cret"}
    came: list[None] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with contextlib.suppress(OSError):  # the listener is closed at the end
                while True:
                    listener.accept()[0].close()
                    came.append(None)

        threading.Thread(target=hang_up, daemon=True).start()
        gone = replace(a_request(tmp_path), address=f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(Unreachable, match="could not be registered") as caught:
            register_elsewhere(gone, credentials, is_cancelled=lambda: False)
    assert "s3cret" not in str(caught.value)
    assert len(came) == 1  # MLflow's client would try again for four minutes


@pytest.mark.slow
def test_a_wrong_request_is_refused_in_words(tmp_path: Path) -> None:
    request = a_request(tmp_path)
    object.__setattr__(request, "address", "no address")
    with pytest.raises((Refused, Unreachable)) as caught:
        register_elsewhere(request, {}, is_cancelled=lambda: False)
    assert "Traceback" not in str(caught.value)
