"""`openml:ID`, against a stand-in server that answers as openml.org does."""

import gzip
import hashlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sklearn.datasets import _openml

from dlcore.config import DataConfig
from dlcore.errors import DataError
from dlcore.tables import read_table

ARFF = """@relation cars
@attribute id numeric
@attribute weight numeric
@attribute colour {red,'dark blue',green}
@attribute maker string
@attribute class {good,bad}
@data
""" + "".join(
    f"{i},{'?' if i % 5 == 0 else i**2},{('red', chr(39) + 'dark blue' + chr(39), '?')[i % 3]},"
    f"m{i % 4},{('good', 'bad')[i % 2]}\n"
    for i in range(60)
)
NAMES = {"id": "numeric", "weight": "numeric", "colour": "nominal", "maker": "string", "class": "nominal"}


class StandIn(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        port = self.server.server_address[1]
        answers = {
            "/api/v1/json/data/7": {
                "data_set_description": {
                    "id": "7", "name": "cars", "version": "1", "format": "ARFF", "status": "active", "file_id": "9",
                    "default_target_attribute": "class", "description": "made for a test",
                    "md5_checksum": hashlib.md5(ARFF.encode()).hexdigest(),
                    "url": f"http://127.0.0.1:{port}/data/v1/download/9/cars.arff",
                }
            },
            "/api/v1/json/data/features/7": {
                "data_features": {
                    "feature": [
                        {
                            "index": str(i), "name": name, "data_type": kind, "is_target": str(name == "class").lower(),
                            "is_ignore": "false", "is_row_identifier": "false", "number_of_missing_values": "0",
                        }
                        for i, (name, kind) in enumerate(NAMES.items())
                    ]
                }
            },
            "/api/v1/json/data/qualities/7": {
                "data_qualities": {"quality": [{"name": "NumberOfInstances", "value": "60"}]}
            },
        }  # fmt: skip
        if self.path.startswith("/data/v1/download/"):
            self._answer(200, ARFF.encode())
        elif self.path in answers:
            self._answer(200, json.dumps(answers[self.path]).encode())
        else:
            self._answer(412, json.dumps({"error": {"code": "111", "message": "Unknown dataset"}}).encode())

    def _answer(self, status: int, content: bytes) -> None:
        packed = gzip.compress(content)
        self.send_response(status)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(packed)))
        self.end_headers()
        self.wfile.write(packed)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def openml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All that scikit-learn asks openml.org for is answered here; what it keeps is kept in a folder of the test."""
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        here = f"http://127.0.0.1:{server.server_address[1]}/"

        def opened(request: urllib.request.Request) -> object:
            request.full_url = request.full_url.replace("https://www.openml.org/", here)
            assert request.full_url.startswith(here)
            return urllib.request.urlopen(request, timeout=10)

        monkeypatch.setattr(_openml, "urlopen", opened)
        monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_a_set_of_openml_is_read_with_its_own_target(openml: None) -> None:
    read = read_table(DataConfig(source="openml:7"))
    assert read.name == "cars" and read.features.names == ("weight", "colour", "maker")
    weight, colour, maker = read.features.columns
    assert weight.is_missing.sum() == 12 and weight.values[1] == 1
    assert colour.categories == ("dark blue", "red") and colour.is_missing.sum() == 20
    assert maker.categories == ("m0", "m1", "m2", "m3")
    assert sorted(set(read.targets["class"].tolist())) == ["bad", "good"]
    assert read.notes == ("left out as identifiers 'id': [data] kinds corrects it",)


def test_another_target_can_be_named(openml: None) -> None:
    read = read_table(DataConfig(source="openml:7", target=("maker",), kinds={"id": "numeric"}, drop=("weight",)))
    assert read.features.names == ("id", "colour", "class") and list(read.targets) == ["maker"]


def test_what_openml_does_not_have_or_what_cannot_be_reached_is_said_in_one_line(
    openml: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        DataError, match=r"openml:8 must be a table that openml\.org has and that can be reached; "
    ) as one:
        read_table(DataConfig(source="openml:8"))
    assert "\n" not in str(one.value)

    def unreachable(request: urllib.request.Request) -> object:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(_openml, "urlopen", unreachable)
    with pytest.raises(DataError, match="no route"):
        read_table(DataConfig(source="openml:6"))
    with pytest.raises(DataError, match="must be openml: and the number of a set"):
        read_table(DataConfig(source="openml:../7"))
