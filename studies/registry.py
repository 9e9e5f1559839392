"""The winner in MLflow's model registry: one version per export, and the alias `champion` on the best.

The alias moves only to a winner that is better on val than the champion, by the same metric on the same data and split.
What learned from other data cannot be compared: then the alias stays, and why is said, here and on the version.

MLflow's client is needed here and nowhere else, and works in a process of its own: its import would hold the
study's interpreter for 2 s, its settings are read from the environment, and it can be ended at any moment.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlcore.files import sha256
from studies.errors import UserError
from studies.figures import number
from studies.records import Winner
from studies.tracking_store import Refused, Unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

ALIAS = "champion"
SHA_TAG = "dlcore.onnx_sha256"
STUDY_TAG, DATA_TAG, METRIC_TAG, VALUE_TAG = (f"dlcore.{name}" for name in ("study", "data", "metric", "value"))
WHY_TAG = "dlcore.not_champion"
TIMEOUT_S = 300.0
POLL_S = 0.2
DECLINED, AWAY = 3, 4
"""Exit codes of the registering process."""

SETTINGS: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # it would repeat the creation of a version whose reply was lost
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "PYTHONWARNINGS": "ignore",
}

REPLACED = frozenset(f"MLFLOW_TRACKING_{name}" for name in ("URI", "USERNAME", "PASSWORD", "TOKEN"))
"""Variables that the credentials of the address take the place of."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be registered, and where."""

    address: str
    """Without user and password."""
    name: str
    """Of the study, and so of the model."""
    uuid: str
    winner: Winner
    run_id: str
    """The study's run; the export becomes its artifact."""
    input_example: Mapping[str, list[float | str]] | None = None
    """Some rows as columns; None takes the row of usual values from the manifest."""
    fingerprint: str = ""
    """Of the data and their split."""
    metric: str = ""
    """By which the winner won, on val."""
    direction: str = ""
    """"maximize" or "minimize"."""
    value: float | None = None
    """How good it is by that metric; see `studies.finals.judged`."""

    @property
    def tags(self) -> dict[str, str]:
        """What is remembered of a version."""
        told = {SHA_TAG: self.winner.onnx_sha256, STUDY_TAG: self.uuid, "dlcore.trial": str(self.winner.number)}
        value = {} if self.value is None else {VALUE_TAG: repr(float(self.value))}
        return told | {DATA_TAG: self.fingerprint, METRIC_TAG: self.metric} | value


def begin(credentials: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start the process that registers: it imports what it needs when nobody else wants the processor, and waits.

    Args:
        credentials: Environment variables by which MLflow's client logs in: as part of the address, it would repeat
            them in its errors.
    """
    no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1,localhost"]))
    source = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    environment = {key: text for key, text in os.environ.items() if key not in REPLACED}
    environment |= dict(SETTINGS) | dict(credentials)
    environment |= {"NO_PROXY": no_proxy, "no_proxy": no_proxy, "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "-m", "studies.registry"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )


def give_up(process: subprocess.Popen[str]) -> None:
    """End a process that was begun and is not needed."""
    with process:
        process.kill()


def register_elsewhere(
    request: Request,
    credentials: Mapping[str, str],
    is_cancelled: Callable[[], bool],
    begun: subprocess.Popen[str] | None = None,
) -> str:
    """Register in another process, and wait for it; a second call with the same export changes nothing.

    Args:
        request: What, and where.
        credentials: See `begin`.
        is_cancelled: Is asked several times a second.
        begun: The process, where it was begun before.

    Returns:
        Why the alias is not on this export; "" where it is.

    Raises:
        Unreachable: the server did not answer, or not in time, or the call was cancelled.
        Refused: the server or MLflow declined; the message says why.
    """
    with begun or begin(credentials) as process:
        return _feed(process, json.dumps(asdict(request)), is_cancelled)


def _feed(process: subprocess.Popen[str], data: str, is_cancelled: Callable[[], bool]) -> str:
    """Give the process its request, and wait for its end; returns what it said in its last line."""
    text: str | None = data
    for _ in range(int(TIMEOUT_S / POLL_S)):
        try:
            answer, said = process.communicate(text, timeout=POLL_S)
        except subprocess.TimeoutExpired:
            text = None  # is handed over by now
            if is_cancelled():
                break
            continue
        if process.returncode == 0:
            return str(json.loads(answer.splitlines()[-1]))
        last = said.strip().splitlines()[-1] if said.strip() else f"exit code {process.returncode}"
        if process.returncode == AWAY:
            raise Unreachable(f"the winner could not be registered: {last}")
        raise Refused("REGISTRATION_FAILED", f"the winner could not be registered: {last}")
    process.kill()
    raise Unreachable("the registration of the winner was cut off")


def register(request: Request) -> str:
    """Register in this process, which must have the environment `SETTINGS`; see `register_elsewhere`.

    Nothing is done twice: an export that has a version already only gets the alias, if it should have it.
    """
    from mlflow import MlflowClient  # costs 2 s, and reads the environment

    client = MlflowClient(request.address, request.address)
    name, winner = request.name, request.winner
    known = [v for v in client.search_model_versions(f"name='{name}'") if v.tags.get(SHA_TAG) == winner.onnx_sha256]
    number = str(known[0].version) if known else _new_version(client, request)
    champion = client.get_registered_model(name).aliases.get(ALIAS)
    if champion is not None and str(champion) == number:
        return ""
    said = "" if champion is None else why_it_stays(request, client.get_model_version(name, str(champion)).tags)
    if not said:
        client.set_registered_model_alias(name, ALIAS, number)
        return ""
    text = f"{name}: version {number} is registered, and {ALIAS} stays on version {champion}: {said}"
    client.set_model_version_tag(name, number, WHY_TAG, said)
    return text


def why_it_stays(request: Request, champion: Mapping[str, str]) -> str:
    """Why the alias must not move to a new winner; "" where it must.

    Args:
        request: Of the new one.
        champion: Tags of the version that has the alias.
    """
    if VALUE_TAG not in champion and champion.get(STUDY_TAG) == request.uuid:
        return ""  # an earlier version of this program registered it, and took the newest
    by_hand = f"; set the alias {ALIAS} in MLflow by hand if this one is to be it"
    if champion.get(DATA_TAG) != request.fingerprint:
        return f"that one learned from other data or another split, and the two cannot be compared{by_hand}"
    if champion.get(METRIC_TAG) != request.metric or VALUE_TAG not in champion or request.value is None:
        return f"that one was not judged by {request.metric}, and the two cannot be compared{by_hand}"
    ours, theirs = request.value, float(champion[VALUE_TAG])
    is_better = ours > theirs if request.direction == "maximize" else ours < theirs
    what = f"{request.metric} {number(ours)} on val"
    return "" if is_better else f"on the same data {what} is not better than its {number(theirs)}"


def _new_version(client: "MlflowClient", request: Request) -> str:
    """Upload the export and the model around it, and create the version."""
    from mlflow.exceptions import MlflowException

    name, winner = request.name, request.winner
    folder = Path(winner.export_dir)
    if sha256((folder / "model.onnx").read_bytes()) != winner.onnx_sha256:
        raise UserError(f"{folder} holds another network than the winner's; `studies export {name}` writes it again")
    # One folder per export: a version keeps its files when a later winner comes.
    place = f"model-{winner.onnx_sha256[:12]}"
    with tempfile.TemporaryDirectory() as scratch:
        save_model(Path(scratch) / place, folder, request.input_example)
        client.log_artifacts(request.run_id, str(Path(scratch) / place), place)
    client.log_artifacts(request.run_id, str(folder), "export")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{client.get_run(request.run_id).info.artifact_uri}/{place}"
    created = client.create_model_version(name, source, request.run_id, tags=request.tags, await_creation_for=0)
    return str(created.version)


def save_model(target: Path, export: Path, rows: Mapping[str, list[float | str]] | None) -> None:
    """Write the export as an MLflow model: a script around onnxruntime, no pickle."""
    import mlflow.pyfunc
    import pandas as pd

    manifest = json.loads((export / "model.json").read_text(encoding="utf-8"))
    if rows is None:
        rows = {column["name"]: [column["example"]] for column in manifest["columns"]}
    mlflow.pyfunc.save_model(
        str(target),
        python_model=str(Path(__file__).with_name("served_model.py")),
        artifacts={"export": str(export)},
        signature=_signature(export, manifest),
        input_example=pd.DataFrame(rows) if rows else None,
        # Versions that are installed: MLflow would import everything to find out by itself.
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "numpy", "onnxruntime", "pandas")],
    )


def _signature(export: Path, manifest: Mapping[str, Any]) -> "ModelSignature":
    """What goes in and what comes out, as the graph says."""
    import onnxruntime
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    session = onnxruntime.InferenceSession(str(export / "model.onnx"), providers=["CPUExecutionProvider"])
    types = {"float": "float", "double": "double", "int64": "long", "string": "string", "bool": "boolean"}

    def columns(nodes: list[Any], names: Mapping[str, str], *, is_input: bool) -> "Schema":
        ours = {graph_name: name for name, graph_name in names.items()}
        specs: list[Any] = []
        for node in nodes:
            kind = types[node.type[len("tensor(") : -1]]
            # Declared as a double, MLflow refuses whole numbers, booleans and dates before the model sees them.
            accepts_any_number = is_input and kind == "double"
            column = AnyType() if accepts_any_number else kind  # type: ignore[no-untyped-call]
            specs.append(ColSpec(column, ours.get(node.name, node.name)))
        return Schema(specs)

    return ModelSignature(
        columns(session.get_inputs(), manifest.get("inputs", {}), is_input=True),
        columns(session.get_outputs(), manifest.get("outputs", {}), is_input=False),
    )


def main() -> int:
    """Import what is needed, read a request from standard input, and carry it out; without one, do nothing."""
    os.nice(10)
    import mlflow.pyfunc  # noqa: F401
    import onnxruntime  # noqa: F401
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    text = sys.stdin.read()
    if not text:
        return 0  # whoever began this process ended
    data = json.loads(text)
    try:
        print(json.dumps(register(Request(**{**data, "winner": Winner(**data["winner"])}))), flush=True)
    except (RequestException, ConnectionError) as error:
        print(type(error).__name__, error, file=sys.stderr)
        return AWAY
    except MlflowException as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        # Without a reply from the server, MLflow's client has no code but its own default.
        return AWAY if error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE") else DECLINED
    except UserError as error:
        print(error, file=sys.stderr)
        return DECLINED
    except (OSError, KeyError, ValueError) as error:
        print(type(error).__name__, error, file=sys.stderr)
        return DECLINED
    return 0


if __name__ == "__main__":
    sys.exit(main())
