"""A Python that has onnxruntime and numpy and nothing else: what runs an export where nothing of ours is installed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("numpy", "numpy.libs", "onnxruntime")
_FIRST = """
import runpy, sys
sys.path.append({place!r})
for name in ("torch", "pandas", "sklearn", "dlcore"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(name + " must not be there")
sys.argv = {arguments!r}
"""


def make_clean(place: Path) -> Path:
    """A folder with links to the two packages; standard library and these are all that `run_clean` sees."""
    numpy = find_spec("numpy")
    assert numpy is not None and numpy.origin is not None
    installed = Path(numpy.origin).parents[1]
    place.mkdir()
    for name in PACKAGES:
        if (installed / name).exists():
            (place / name).symlink_to(installed / name)
    return place


def run_clean(place: Path, *arguments: object, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script with its arguments, or code; -I -S keeps all installed packages and variables out."""
    words = [str(argument) for argument in arguments]
    code = _FIRST.format(place=str(place), arguments=words) + (
        f"runpy.run_path({words[0]!r}, run_name='__main__')" if code is None else code
    )
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
