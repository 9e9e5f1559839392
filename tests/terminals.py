"""A real pseudo-terminal for programs that look at what they write to."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

_ROOT = Path(__file__).parent.parent
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[([0-9]+;)*(3[0-7]|38|9[0-7]|4[0-7])(;[0-9]+)*m")
_TOLD = ("COLUMNS", "LINES", "NO_COLOR", "TERM", "CI", "FORCE_COLOR")
"""What would tell a program otherwise."""


def terminal(program: str, columns: int, **environment: str) -> str:
    """What a Python program writes to a terminal of so many columns; it must end well."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=_ROOT,
        env=kept() | {"TERM": "xterm-256color"} | environment,
    )  # fmt: skip
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 4096):
            written += chunk
    except OSError:  # the other end was closed: Linux says so
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0, written.decode()
    return written.decode()


def piped(program: str, **environment: str) -> str:
    """What a Python program writes to a pipe; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, cwd=_ROOT, env=kept() | environment, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def kept() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if name not in _TOLD}
