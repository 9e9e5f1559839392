"""A study's report made in another process: drawing would hold the interpreter, and matplotlib need not be here.

It begins while the winner is being registered, and its files are asked for after that.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from studies.home import Home
from studies.tracking_store import Refused, Unreachable

TIMEOUT_S = 300.0
_POLL_S = 0.2


class ReportProcess:
    """The report of one study, made when it is asked for."""

    def __init__(self, home: Home, study: str) -> None:
        """Nothing is started yet."""
        self._home, self._study = home, study
        self._process: subprocess.Popen[str] | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Begin to make it, of what the study database holds now."""
        self.close()
        self._scratch = tempfile.TemporaryDirectory()
        # The password of a database is not for `ps` to show: the environment carries it.
        source = str(Path(__file__).resolve().parents[1])
        environment = {
            **os.environ,
            "STUDIES_HOME": str(self._home.root),
            "STUDIES_DB": self._home.database_url,
            "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "studies.report"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, env=environment, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"study": self._study, "folder": self._scratch.name}))
        self._process.stdin.close()
        self._process.stdin = None

    def files(self, is_cancelled: Callable[[], bool]) -> dict[str, bytes]:
        """Wait for it; returns its files by their paths.

        Args:
            is_cancelled: Is asked several times a second.

        Raises:
            Refused: It could not be made; the message says why.
            Unreachable: The call was cancelled, or took too long.
        """
        if self._process is None:
            self.start()
        assert self._process is not None and self._scratch is not None
        try:
            for _ in range(int(TIMEOUT_S / _POLL_S)):
                try:
                    _, said = self._process.communicate(timeout=_POLL_S)
                except subprocess.TimeoutExpired:
                    if is_cancelled():
                        break
                    continue
                if self._process.returncode != 0:
                    last = said.strip().splitlines()[-1:] or [f"exit code {self._process.returncode}"]
                    raise Refused("REPORT_FAILED", f"the report could not be made: {last[0]}")
                root = Path(self._scratch.name)
                return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
            raise Unreachable("the making of the report was cut off")
        finally:
            self.close()

    def close(self) -> None:
        """End it, and forget what it made."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None
