"""`studies serve` as a process of its own, asked over loopback."""

import asyncio
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcore.export import export_model
from dlcore.exported import ExportedModel
from studies.bounds import Limits
from studies.errors import UserError
from studies.image import DOCKERFILE, write_image
from studies.serving import _listen, serve
from tests.conftest import studies_environment
from tests.dlcore.column_tools import splits_of_all_kinds
from tests.dlcore.test_export import make_network

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Service:
    port: int
    model: ExportedModel
    folder: Path
    process: "subprocess.Popen[str]"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            content = answer.read()
            is_json = "json" in answer.getheader("content-type", "")
            return answer.status, json.loads(content) if is_json else content.decode()
        finally:
            connection.close()

    def predict(self, rows: object) -> tuple[int, Any]:
        return self.ask("POST", "/predict", json.dumps(rows).encode())


def start(words: list[str], cwd: Path, environment: dict[str, str]) -> "tuple[subprocess.Popen[str], str]":
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment
    )
    assert process.stdout is not None and process.stderr is not None
    first = process.stdout.readline()
    assert first.startswith("answers at "), process.stderr.read()
    return process, first


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("served")
    splits = splits_of_all_kinds("multiclass")
    network, config = make_network(splits)
    export_model(folder / "export", network, config, splits, {"study": "made", "metrics": {"accuracy": 0.5}})
    words = [sys.executable, "-m", "studies", "serve", "export", "--port", "0"]
    process, first = start(words, folder, studies_environment(folder / "home"))
    port = int(first.split(":")[2].split("/")[0])
    yield Service(port, ExportedModel.load(folder / "export"), folder / "export", process)
    process.terminate()
    assert process.wait(20) == 0 and process.stderr is not None
    assert process.stderr.read() == ""
    process.stdout.close()
    process.stderr.close()


@pytest.fixture(scope="module")
def rows(service: Service) -> list[dict[str, Any]]:
    columns = {column.name: column.raw()[:40] for column in splits_of_all_kinds("multiclass").val.x.columns}
    made = []
    for values in zip(*columns.values(), strict=True):
        row: dict[str, Any] = {"id": 7}
        for (name, kind), value in zip(service.model.kinds.items(), values, strict=True):
            if kind == "categorical":
                row[name] = value or None
            else:
                row[name] = None if np.isnan(value) else bool(value) if kind == "boolean" else float(value)
        made.append(row)
    return made


pytestmark = pytest.mark.slow


def test_rows_are_answered_as_by_the_export(service: Service, rows: list[dict[str, Any]]) -> None:
    columns = {column.name: column.raw()[:40] for column in splits_of_all_kinds("multiclass").val.x.columns}
    expected = service.model.predict(columns)
    status, answers = service.predict(rows)
    assert status == 200 and len(answers) == 40
    for name, values in expected.items():
        found = [answer[name] for answer in answers]
        assert np.array(found, dtype=values.dtype).tolist() == values.tolist()
    assert [service.predict(row) for row in rows[:5]] == [(200, answer) for answer in answers[:5]]


def test_it_describes_itself_with_the_columns_of_the_export(service: Service) -> None:
    assert service.ask("GET", "/health") == (200, {"status": "ok"})
    status, facts = service.ask("GET", "/model")
    assert status == 200 and facts["title"] == "made" and facts["facts"]["metrics"] == {"accuracy": 0.5}
    assert {column["name"]: column["kind"] for column in facts["columns"]} == service.model.kinds
    assert service.ask("GET", "/") == (200, facts)
    _, openapi = service.ask("GET", "/openapi.json")
    row = openapi["components"]["schemas"]["Row"]
    assert list(row["properties"]) == row["required"] == list(service.model.kinds)
    assert service.predict(row["example"])[0] == 200
    assert "swagger" in service.ask("GET", "/docs")[1]


def test_many_may_ask_at_once(service: Service, rows: list[dict[str, Any]]) -> None:
    expected = service.predict(rows)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(lambda _: service.predict(rows), range(64)))


def test_what_is_wrong_is_said_in_one_sentence(service: Service, rows: list[dict[str, Any]]) -> None:
    numeric = next(name for name, kind in service.model.kinds.items() if kind == "numeric")
    date = next(name for name, kind in service.model.kinds.items() if kind == "date")
    without = {name: value for name, value in rows[0].items() if name != numeric}
    cases: list[tuple[Any, int, str]] = [
        (without, 422, f"column {numeric!r}: Field required"),
        ([rows[0], {**rows[0], numeric: "many"}], 422, f"row 2: column {numeric!r}: Input should be a valid number"),
        ({**rows[0], date: "soon"}, 422, f"column {date} must hold dates"),
        ([], 422, "at least 1 item"),
        ([without] * 10_001, 422, "at most 10000 items"),
    ]
    for body, code, sentence in cases:
        status, said = service.predict(body)
        assert status == code and sentence in said["detail"], said
    assert service.ask("POST", "/predict", b"{")[0] == 400
    assert service.ask("POST", "/predict", b"[" * 100_000)[0] == 400
    assert service.ask("GET", "/predict")[0] == 405 and service.ask("GET", "/none")[0] == 404


def test_bodies_that_are_too_large_and_hosts_of_strangers_are_refused(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", "10000001")
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413 and b"at most 10,000,000 bytes" in answer.read()
    connection.close()
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    try:  # of a length that nobody says
        connection.request("POST", "/predict", iter([b" " * 1_000_000] * 11), {"Content-Type": "application/json"})
        assert connection.getresponse().status == 413
    except (ConnectionResetError, BrokenPipeError):
        pass  # it had answered, and reads no more
    connection.close()
    code, said = service.ask("GET", "/model", Host="10.evil.example")
    assert code == 400 and "must be asked for as 127.0.0.1 or localhost" in said["detail"]


@pytest.mark.parametrize("text", [r'"\ud800"', r'"\udfff\ud800"', r'"a\udc00b"'])
def test_half_of_a_surrogate_pair_is_refused_wherever_it_stands(
    service: Service, rows: list[dict[str, Any]], text: str
) -> None:
    whole = json.dumps(rows[0])
    for name, kind in service.model.kinds.items():
        body = whole.replace(f'"{name}": {json.dumps(rows[0][name])}', f'"{name}": {text}')
        status, said = service.ask("POST", "/predict", body.encode())
        assert body != whole and status == 422 and f"column {name!r}" in said["detail"], (kind, said)
    assert service.ask("POST", "/predict", f"{text}".encode())[0] == 422
    assert service.ask("POST", "/predict", whole.replace("{", f"{{{text}: {text}, ", 1).encode())[0] == 200


def test_an_address_of_version_6_is_served_under_its_name_in_brackets(
    service: Service, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    try:
        _listen("::1", 0).close()
    except UserError as error:
        pytest.skip(f"no ::1 here: {error}")
    words = [sys.executable, "-m", "studies", "serve", str(service.folder), "--host", "::1", "--port", "0"]
    process, first = start(words, tmp_path, studies_environment(tmp_path / "home"))
    try:
        found = re.match(r"answers at http://\[::1\]:(\d+)/predict", first)
        assert found is not None
        connection = http.client.HTTPConnection("::1", int(found[1]), timeout=30)
        connection.request("POST", "/predict", json.dumps(rows), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200 and json.loads(answer.read()) == service.predict(rows)[1]
        connection.close()
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and errors == ""


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
CELL = JSON | st.sampled_from(["2024-02-30", "9999999-01-01", "now", "NaT", "1e400", 1e300, -1e300, "\0"])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_body_is_a_failure_of_the_server(service: Service, data: st.DataObject) -> None:
    names = list(service.model.kinds)
    row = st.fixed_dictionaries(dict.fromkeys(names, CELL))
    near = st.sampled_from(names).flatmap(lambda name: CELL.map(lambda cell: {**dict.fromkeys(names), name: cell}))
    body = data.draw(
        st.one_of(JSON, row, near, st.lists(near | row, max_size=3)).map(lambda v: json.dumps(v).encode())
        | st.binary(max_size=40)
    )
    status, said = service.ask("POST", "/predict", body)
    assert status in (200, 400, 422) and (status == 200 or isinstance(said["detail"], str))


def test_another_address_than_loopback_must_be_meant(service: Service) -> None:
    with pytest.raises(UserError, match="lets other machines in"):
        serve(service.model, "0.0.0.0", 0, Limits(), is_public=False)
    with pytest.raises(UserError, match="must be free"):
        serve(service.model, "127.0.0.1", service.port, Limits(), is_public=False)


def test_the_folder_of_an_image_runs_as_its_dockerfile_says(
    service: Service, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """No Docker is needed: the same layout, the same command, and of our code only what the folder holds."""
    write_image(service.folder, tmp_path / "image")
    command = json.loads(DOCKERFILE.rpartition("CMD ")[2])
    assert "USER server" in DOCKERFILE and "HEALTHCHECK" in DOCKERFILE
    shutil.copytree(tmp_path / "image", tmp_path / "srv")
    code = (
        "import runpy, sys, studies.serving as s\nsys.argv = ['serving', 'export']\n"
        "from studies.serving import *\n"
        "serve(ExportedModel.load(Path('export')), '127.0.0.1', 0, Limits(), is_public=True)\n"
        "assert not {'torch', 'sklearn', 'mlflow', 'optuna', 'typer'} & set(sys.modules)\n"
        "assert s.__file__.startswith(sys.path[1]), s.__file__"
    )
    assert command == ["python", "-m", "studies.serving", "export"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "srv" / "app")}
    process, first = start([sys.executable, "-c", code], tmp_path / "srv", environment)
    other = Service(int(first.split(":")[2].split("/")[0]), service.model, service.folder, process)
    try:
        assert other.predict(rows) == service.predict(rows)
        process.send_signal(signal.SIGTERM)
    except BaseException:
        process.kill()
        raise
    finally:
        _, errors = process.communicate(timeout=20)
    assert "Error" not in errors, errors
    with pytest.raises(UserError, match="new or empty"):
        write_image(service.folder, tmp_path / "image")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_answer_does_not_wait_for_an_acknowledgement(host: str) -> None:
    found: list[int] = []

    async def connect() -> None:
        done = asyncio.Event()

        def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()
            done.set()

        try:
            listening = _listen(host, 0)
        except UserError as error:
            pytest.skip(f"no {host} here: {error}")
        async with await asyncio.start_server(accepted, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
            await done.wait()
            writer.close()
            await writer.wait_closed()

    asyncio.run(connect())

    assert found == [1]
