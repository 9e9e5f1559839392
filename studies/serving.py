"""An export as an HTTP service: rows in JSON in, answers out. Needs no torch, and nothing else of studies.

`POST /predict` takes one row or a list of rows, `GET /health` says that it answers, `GET /model` what it is, and
`/docs` and `/openapi.json` describe it all with the export's own columns. What is wrong with a request is said in one
sentence under "detail".
"""

import ipaddress
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from dlcore.errors import ExportError
from dlcore.exported import ExportedModel
from studies.bounds import Bounded, Limits
from studies.errors import UserError
from studies.row_types import answer_type, describe, row_type

_SHUTDOWN_S = 10
_ANYWHERE = {400: "asked for under a name of another host", 413: "too large"}
_PREDICTING = {400: "no JSON, or asked for under a name of another host", 408: "too slow", 422: "not such rows"}


class Problem(BaseModel):
    """What is wrong with a request."""

    detail: str = Field(examples=["one sentence"])


def build_app(model: ExportedModel, limits: Limits, hosts: list[str]) -> FastAPI:
    """The service.

    Args:
        model: That answers.
        limits: Of a request.
        hosts: Names under which it may be asked for, so that no page of the web can pretend to be one; "*" is any.
    """
    facts = describe(model)
    said, also_said = (
        {code: {"model": Problem, "description": text} for code, text in texts.items()}
        for texts in (_ANYWHERE, _PREDICTING)
    )
    app = FastAPI(
        title=str(facts["title"]),
        description="Answers of an exported network.",
        version="1",
        responses=said,  # type: ignore[arg-type]
    )
    row, answer = row_type(model), answer_type(model)
    rows_type: Any = list.__class_getitem__(row)
    body: Any = row | Annotated.__class_getitem__((rows_type, Field(min_length=1, max_length=limits.max_rows)))  # type: ignore[attr-defined]

    also_said[200] = {"model": answer | list[answer]}  # type: ignore[valid-type]

    @app.post("/predict", summary="Answer a row, or rows", responses=also_said)  # type: ignore[arg-type]
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
    app.add_middleware(Bounded, limits=limits, hosts=hosts)
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
