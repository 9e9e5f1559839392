"""An export as an HTTP service: rows in JSON in, answers out. Needs no torch, and nothing else of studies.

`POST /predict` takes one row or a list of rows, `GET /health` says that it answers, `GET /model` what it is, and
`/docs` and `/openapi.json` describe it all with the export's own columns. What is wrong with a request is said in one
sentence under "detail".
"""

import asyncio
import ipaddress
import math
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field, StrictBool, StrictInt, StrictStr, create_model
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dlcore.cells import ISO
from dlcore.errors import ExportError
from dlcore.exported import ExportedModel
from studies.errors import UserError

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
TYPES: Mapping[str, Any] = {
    "numeric": Number | None,
    "boolean": StrictBool | Literal["true", "false", "yes", "no"] | None,
    "date": StrictStr | Number | None,
    "categorical": StrictStr | StrictInt | None,
}
"""Kind of a column -> what JSON may hold; null is missing."""
_MEANT = {
    "numeric": "a number, or null",
    "boolean": "true, false, yes or no, or null",
    "date": "a date such as 2024-02-29 or 2024-02-29T12:30:00Z{}, seconds since 1970-01-01 UTC, or null",
    "categorical": "a text, or null",
}
_LABELS: Mapping[type, Any] = {bool: bool, int: int, float: float, str: str}
_SHUTDOWN_S = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for."""

    max_bytes: int = 10_000_000
    """Of a body."""
    max_rows: int = 10_000
    receive_s: float = 30.0
    """Seconds in which a body must have come."""


def build_app(model: ExportedModel, limits: Limits, hosts: list[str]) -> FastAPI:
    """The service.

    Args:
        model: That answers.
        limits: Of a request.
        hosts: Names under which it may be asked for, so that no page of the web can pretend to be one; "*" is any.
    """
    facts = describe(model)
    app = FastAPI(title=str(facts["title"]), description="Answers of an exported network.", version="1")
    row, answer = _row_type(model), _answer_type(model)
    rows_type: Any = list.__class_getitem__(row)
    body: Any = row | Annotated.__class_getitem__((rows_type, Field(min_length=1, max_length=limits.max_rows)))  # type: ignore[attr-defined]
    problem = {"content": {"application/json": {"example": {"detail": "one sentence"}}}}
    said = {code: {"description": text, **problem} for code, text in (
        (400, "no JSON"), (408, "too slow"), (413, "too large"), (422, "not such rows"),
    )}  # fmt: skip

    @app.post("/predict", responses={200: {"model": answer | list[answer]}, **said}, summary="Answer a row, or rows")  # type: ignore[dict-item,valid-type]
    def predict(rows: body) -> JSONResponse:
        given = rows if isinstance(rows, list) else [rows]
        answers = answer_rows(model, [[getattr(one, f"c{i}") for i in range(len(model.kinds))] for one in given])
        return JSONResponse(answers if isinstance(rows, list) else answers[0])

    @app.get("/health", summary="Whether it answers")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/model", summary="What it is: study, metrics, columns")
    def what_it_is() -> dict[str, Any]:
        return facts

    app.get("/", include_in_schema=False)(what_it_is)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_middleware(_Bounded, limits=limits)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    return app


def answer_rows(model: ExportedModel, rows: list[list[Any]]) -> list[dict[str, Any]]:
    """Answers to rows, each with the values of all columns in the order of the training.

    Raises:
        HTTPException: 422, if a value is of another kind than its column.
    """
    columns = {}
    for name, values in zip(model.kinds, zip(*rows, strict=True), strict=True):
        if any(isinstance(value, str) and any("\ud800" <= sign <= "\udfff" for sign in value) for value in values):
            raise HTTPException(422, f"column {name!r}: a text must not hold half of a surrogate pair")
        columns[name] = np.array(values, dtype=object)
        is_text = any(isinstance(value, str) for value in values)
        if is_text and model.kinds[name] == "date" and any(isinstance(value, float) for value in values):
            raise HTTPException(422, f"column {name!r}: dates of one request must all be texts, or all be seconds")
        if not is_text and model.kinds[name] != "categorical":
            columns[name] = columns[name].astype(np.float64)  # None is NaN
    try:
        found = model.predict(columns)
    except ExportError as error:
        raise HTTPException(422, " ".join(str(error).split())) from error
    for answer in found.values():
        if answer.dtype.kind == "f" and not (is_known := np.isfinite(answer)).all():
            row = int(is_known.argmin()) + 1
            raise HTTPException(422, f"row {row}: its numbers are too large for the network to have an answer")
    lists = [_plain(values) for values in found.values()]
    return [dict(zip(found, values, strict=True)) for values in zip(*lists, strict=True)]


def _plain(values: "np.ndarray[Any, Any]") -> list[Any]:
    """Python's values; of float32 the shortest number that is the same one."""
    return [float(str(value)) for value in values] if values.dtype == np.float32 else values.tolist()


def describe(model: ExportedModel) -> dict[str, Any]:
    """Facts of the manifest, for people and machines."""
    facts: Mapping[str, Any] = model.manifest.get("facts") or {}  # type: ignore[assignment]
    return {
        "title": str(facts.get("study") or model.manifest["data"]["name"]),  # type: ignore[index]
        "task": model.task,
        "columns": [
            {"name": name, "kind": kind, "example": example}
            for (name, kind), example in zip(model.kinds.items(), _examples(model), strict=True)
        ],
        "answers": list(model.manifest["outputs"]),  # type: ignore[call-overload]
        "class_labels": list(model.class_labels),
        "facts": dict(facts),
        "versions": model.manifest["versions"],
    }


def _meant(model: ExportedModel, name: str) -> str:
    """What JSON may hold in a column, in words."""
    form = model.forms[name]
    return _MEANT[model.kinds[name]].format(f", or written as {form}" if form not in ("", ISO) else "")


def _examples(model: ExportedModel) -> list[Any]:
    """A value of each column, as JSON has it."""
    found = []
    for column in model.manifest["columns"]:  # type: ignore[attr-defined]
        value, kind = column.get("example"), column["kind"]
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        if kind == "date" and isinstance(value, int | float):
            value = datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if kind == "boolean" and value is not None:
            value = bool(value)
        found.append(value)
    return found


def _row_type(model: ExportedModel) -> Any:
    """A row of the export's columns, all of them there; other keys are not read."""
    fields: dict[str, Any] = {
        f"c{i}": (TYPES[kind], Field(alias=name, title=name, description=f"{kind}: {_meant(model, name)}"))
        for i, (name, kind) in enumerate(model.kinds.items())
    }
    example = dict(zip(model.kinds, _examples(model), strict=True))
    return create_model("Row", __config__=ConfigDict(extra="ignore", json_schema_extra={"example": example}), **fields)


def _answer_type(model: ExportedModel) -> Any:
    label = type(model.class_labels[0]) if model.class_labels else float
    fields: dict[str, Any] = {
        f"a{i}": (_LABELS.get(label, str) if name == "label" and model.class_labels else float, Field(alias=name))
        for i, name in enumerate(list(model.manifest["outputs"]))  # type: ignore[call-overload]
    }
    return create_model("Answer", **fields)


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    """One sentence of what is wrong with a body; nothing of what was sent is repeated."""
    assert isinstance(error, RequestValidationError)
    found = list(error.errors())
    if any(one["type"] == "json_invalid" for one in found):
        return JSONResponse({"detail": "the body must be JSON: a row as an object, or a list of rows"}, 400)
    is_list = isinstance(error.body, list)
    mine = [one for one in found if ("list" in str(one["loc"][1:2])) == is_list] or found
    place = [part for part in mine[0]["loc"][2:] if isinstance(part, int) or not part.startswith(("function", "lax"))]
    where = [f"row {place[0] + 1}: "] if is_list and place and isinstance(place[0], int) else []
    names = [part for part in place if isinstance(part, str)]
    column = f"column {names[0]!r}: " if names else ""
    detail = f"{''.join(where)}{column}{mine[0]['msg']}"
    return JSONResponse({"detail": detail.encode(errors="replace").decode()}, 422)


class _Bounded:
    """Refuses bodies that are too large or too slow, before they are kept."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        n_bytes, deadline = 0, asyncio.get_running_loop().time() + self._limits.receive_s
        is_whole = False

        async def bounded() -> Message:
            nonlocal n_bytes, is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"a body must come within {self._limits.receive_s:g} seconds") from None
            n_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if n_bytes > self._limits.max_bytes:
                raise HTTPException(413, self._too_large())
            return message

        if declared.isdigit() and len(declared) < 20 and int(declared) > self._limits.max_bytes:
            await JSONResponse({"detail": self._too_large()}, 413, {"Connection": "close"})(scope, receive, send)
            return
        await self._app(scope, bounded, send)

    def _too_large(self) -> str:
        return f"a body must have at most {self._limits.max_bytes:,} bytes; send the rows in several requests"


def serve(model: ExportedModel, host: str, port: int, limits: Limits, *, is_public: bool) -> None:
    """Answer until the process is told to end; requests that are there then get their answers.

    Raises:
        UserError: The address is not of this machine alone and nobody said that it may be, or it is taken.
    """
    is_local = _is_loopback(host)
    if not is_local and not is_public:
        raise UserError(
            f"--host {host} lets other machines in: whoever reaches the port may ask, without a password and "
            "unencrypted; say --public if that is meant, and put a proxy with TLS before it"
        )
    listening = _listen(host, port)
    hosts = ["127.0.0.1", "localhost", f"[{host}]" if ":" in host else host] if is_local else ["*"]
    config = uvicorn.Config(
        build_app(model, limits, hosts),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        lifespan="off",
    )
    place = f"[{host}]" if ":" in host else host
    print(f"answers at http://{place}:{listening.getsockname()[1]}/predict, described at /docs", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn raises the signal again that ended it
        pass
    finally:
        listening.close()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only a socket that says that it is TCP gets TCP_NODELAY from asyncio; without, each answer waits 40 ms for an ACK.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)  # who asks from now on waits until there is an answer
    except OSError as error:
        listening.close()
        raise UserError(f"--host and --port must be free on this machine; {host}:{port}: {error.strerror}") from error
    return listening


if __name__ == "__main__":  # what the image runs, where only a port that was published can be reached
    serve(ExportedModel.load(Path(sys.argv[1])), "0.0.0.0", 8000, Limits(), is_public=True)
