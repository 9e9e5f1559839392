"""Where a figure comes from: date, commit, machine; and its place in RESULTS.md."""

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"


def provenance() -> str:
    """Date, commit and machine in one line."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    machine = f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{datetime.date.today()}, commit {commit}, {machine}"


def processor() -> str:
    """Model name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def record(title: str, body: str) -> None:
    """Put a section into RESULTS.md, in the place of an older one of the same title."""
    text = RESULTS.read_text() if RESULTS.is_file() else "# Results\n\nFigures of `benchmarks/`, the newest of each.\n"
    start = text.find(f"\n## {title}\n")
    if start >= 0:
        end = text.find("\n## ", start + 1)
        text = text[:start] + (text[end:] if end >= 0 else "")
    RESULTS.write_text(f"{text.rstrip()}\n\n## {title}\n\n{provenance()}\n\n{body.strip()}\n")
