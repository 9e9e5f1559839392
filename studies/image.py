"""A folder from which `docker build` makes an image that serves an export: no torch, no root, versions pinned."""

import ast
import shutil
from importlib.metadata import version
from pathlib import Path

from dlcore.exported import FILES
from dlcore.files import SUMS_FILE
from studies.errors import UserError

NEEDED = ("onnxruntime", "onnx", "numpy", "pandas", "fastapi", "pydantic", "uvicorn")
_ROOT = Path(__file__).parent.parent
DOCKERFILE = """\
FROM python:3.12-slim
RUN useradd --create-home --uid 10001 server
WORKDIR /srv
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY app app
COPY export export
USER server
ENV PYTHONPATH=/srv/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \\
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["python", "-m", "studies.serving", "export"]
"""


def write_image(export_dir: Path, folder: Path) -> None:
    """Write what `docker build` needs: the export, the modules that serve it, their requirements.

    Args:
        export_dir: Verified already; what else lies in it stays out of the image.
        folder: New or empty.

    Raises:
        UserError: It holds something, or cannot be written; then it is as empty as it was.
    """
    if folder.resolve().is_relative_to(export_dir.resolve()):
        raise UserError(f"--dockerfile must name a folder outside of {export_dir}; got {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"--dockerfile must name a new or empty folder; {folder} holds something")
    except OSError as error:
        raise UserError(f"{folder} must be a folder that can be written; {error.strerror or error}") from error
    try:
        _fill(export_dir, folder)
    except BaseException as error:
        for path in folder.iterdir():  # all of it is ours
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not isinstance(error, OSError):
            raise
        raise UserError(f"{folder} must be a folder that can be written; {error.strerror or error}") from error


def _fill(export_dir: Path, folder: Path) -> None:
    pins = "".join(f"{name}=={version(name)}\n" for name in NEEDED)
    (folder / "export").mkdir()
    for name in (SUMS_FILE, *FILES):
        if (export_dir / name).exists():  # exports of earlier versions have fewer
            shutil.copyfile(export_dir / name, folder / "export" / name)
    for module in sorted(_modules("studies/serving.py")):
        place = folder / "app" / module
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOT / module, place)
    (folder / "requirements.txt").write_text(pins)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    for path in (folder, *folder.rglob("*")):  # the image's user is another one than who wrote these
        path.chmod(0o755 if path.is_dir() else 0o644)


def _modules(first: str) -> set[str]:
    """Files of ours that a module imports, itself among them."""
    found: set[str] = set()
    ahead = [first]
    while ahead:
        path = ahead.pop()
        if path in found:
            continue
        found |= {path, f"{path.partition('/')[0]}/__init__.py"}
        for node in ast.walk(ast.parse((_ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("dlcore.", "studies.")):
                ahead.append(f"{str(node.module).replace('.', '/')}.py")
    return found
