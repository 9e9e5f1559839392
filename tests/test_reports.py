"""Nothing that runs a network reports it to anybody: onnxruntime would, from its import on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from studies import registry
from tests.dlcore.column_tools import splits_of_all_kinds
from tests.dlcore.test_predict_script import an_export

WAYS = {
    "dlcore": "import dlcore.exported, pathlib; dlcore.exported.ExportedModel.load(pathlib.Path({export!r}))",
    "predict.py": "import runpy, sys; sys.argv[1:] = [{rows!r}]; runpy.run_path({export!r} + '/predict.py')",
    "the registered model": "import runpy; runpy.run_path({served!r})",
    "studies": "import sys; sys.argv[1:] = ['predict', {export!r}, {rows!r}]; from studies.cli import main; main()",
}


def marks(home: Path, code: str, **more: str) -> list[Path]:
    """What onnxruntime leaves in the folder of a user, which it does before it reports."""
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "HOME": str(home), **more},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [path for path in home.rglob("*") if "onnxruntime" in path.name]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("reports")
    if not marks(folder / "alone", "import onnxruntime"):
        pytest.skip("this onnxruntime reports nothing")
    export = an_export(folder / "export", splits_of_all_kinds("binary"), 1)
    names = [column["name"] for column in json.loads((export / "model.json").read_text())["columns"]]
    (folder / "rows.csv").write_text(",".join(names) + "\n")
    return {
        "export": str(export),
        "rows": str(folder / "rows.csv"),
        "served": str(Path(registry.__file__).with_name("served_model.py")),
    }


@pytest.mark.slow  # MLflow's import
@pytest.mark.parametrize("way", WAYS)
def test_onnxruntime_does_not_report_what_is_run(places: dict[str, str], tmp_path: Path, way: str) -> None:
    assert marks(tmp_path / "home", WAYS[way].format(**places)) == []


def test_whoever_wants_it_to_report_may_say_so() -> None:
    code = "import dlcore.exported, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '0'"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert registry.SETTINGS["ORT_DISABLE_TELEMETRY"] == "1"
