"""Runs the code blocks of a Markdown page, in order, as its reader would type them.

- `sh`: by bash, in the page's folder, in which `studies`, `python` and `make` are ours;
- `python`: in one Python process for the page, so that a block goes on where the one before ended;
- `toml`: checked as a spec; one whose first line is `# NAME.toml` is written to that file for the blocks that follow;
- `sql`: on the study database of the folder's `mlruns/`; it must find something;
- `json`: must be JSON, a value or one a line.

`text` and `console` are no code. What cannot be run has a comment before it that says why:
`<!-- not run: it needs a GPU -->`.
"""

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from studies.spec import parse_spec
from tests.conftest import studies_environment

ROOT = Path(__file__).parent.parent
KINDS = ("sh", "python", "toml", "sql", "json", "text", "console")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S)
_NOT_RUN = re.compile(r"<!-- not run: (.*?) -->\s*\Z", re.S)
_LONGEST_S = 600
_SESSION = """
import sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    path = line.strip()
    code = 0
    try:
        exec(compile(open(path).read(), path, "exec"), names)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        code = 1
    print(f"\\0{code}", flush=True)
"""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    kind: str
    code: str
    place: str
    """File and line, for messages."""
    reason: str | None
    """Why it is not run; None where it is."""


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = page.read_text()
    for fence in _FENCE.finditer(text):
        indent, code = fence["indent"], fence["code"]
        if indent:
            code = re.sub(rf"^{indent}", "", code, flags=re.M)
        line = text.count("\n", 0, fence.start()) + 1
        marked = _NOT_RUN.search(text, 0, fence.start())
        place = f"{page.name}:{line}"
        assert fence["kind"].strip() in KINDS, f"{place}: a block is one of {', '.join(KINDS)}"
        yield Block(fence["kind"].strip(), code, place, marked and marked[1])


class Reader:
    """Somebody who reads a page in a folder and types what it says."""

    def __init__(self, folder: Path) -> None:
        """The folder's `mlruns/` is the home."""
        self.folder, self.home = folder, folder / "mlruns"
        tools = folder / ".tools"
        tools.mkdir(exist_ok=True)
        made = f"{shlex.quote(sys.executable)}"
        # -o: a test must not install anything into the environment that it runs in.
        make = f"exec make --directory {shlex.quote(str(ROOT))} --old-file .venv/.ready"
        for name, line in (("studies", f"exec {made} -m studies"), ("python", f"exec {made}")):
            _write_script(tools / name, f'{line} "$@"')
        path = os.environ["PATH"]
        _write_script(tools / "make", f'PATH={shlex.quote(path)} {make} "$@"')
        self.environment = studies_environment(self.home) | {"PATH": f"{tools}:{path}", "PYTHONPATH": str(ROOT)}
        self._session: subprocess.Popen[str] | None = None

    def read(self, page: Path) -> None:
        """Do all that a page says."""
        try:
            for block in blocks(page):
                if block.reason is None:
                    self.do(block)
        finally:
            self._end_session()

    def do(self, block: Block) -> None:
        """Run or check one block."""
        if block.kind == "sh":
            said = self.run(block.code)
            assert said.returncode == 0, f"{block.place}\n{block.code}\n{said.stdout}{said.stderr}"
        elif block.kind == "python":
            self._python(block)
        elif block.kind == "toml":
            if name := re.match(r"# ([\w.-]+\.toml)\b", block.code):
                (self.folder / name[1]).write_text(block.code)
            parse_spec(block.code, block.place, self.folder)
        elif block.kind == "sql":
            with sqlite3.connect(self.home / "studies.db") as connection:
                assert connection.execute(block.code).fetchall(), f"{block.place}: nothing was found"
            connection.close()
        elif block.kind == "json":
            _read_json(block)

    def run(self, commands: str) -> subprocess.CompletedProcess[str]:
        """Lines for a shell."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            capture_output=True, text=True, cwd=self.folder, env=self.environment, timeout=_LONGEST_S, check=False,
        )  # fmt: skip

    def _python(self, block: Block) -> None:
        if self._session is None:
            self._session = subprocess.Popen(
                [sys.executable, "-c", _SESSION],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                cwd=self.folder, env=self.environment,
            )  # fmt: skip
        assert self._session.stdin is not None and self._session.stdout is not None
        file = self.folder / ".tools" / f"{block.place.replace(':', '-')}.py"
        file.write_text(block.code)
        self._session.stdin.write(f"{file}\n")
        self._session.stdin.flush()
        said = []
        for line in self._session.stdout:
            if "\0" in line:
                assert line.strip().endswith("\0000"), f"{block.place}\n{''.join(said)}"
                return
            said.append(line)
        raise AssertionError(f"{block.place}: Python ended\n{''.join(said)}")

    def _end_session(self) -> None:
        if self._session is not None:
            assert self._session.stdin is not None and self._session.stdout is not None
            self._session.stdin.close()
            self._session.wait(timeout=60)
            self._session.stdout.close()
            self._session = None


def _read_json(block: Block) -> None:
    try:
        json.loads(block.code)
    except ValueError:
        for line in block.code.splitlines():
            json.loads(line)


def _write_script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
