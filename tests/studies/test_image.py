"""The folder of an image: what is in it, and where it is never written. `test_serving` runs it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlcore.exported import FILES, ExportedModel
from studies import image
from studies.errors import UserError
from studies.image import write_image
from tests.dlcore.column_tools import splits_of_all_kinds
from tests.dlcore.test_predict_script import an_export


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return an_export(tmp_path_factory.mktemp("made") / "export", splits_of_all_kinds("binary"), 1)


@pytest.fixture
def export(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "exports" / "export"))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_it_holds_the_export_alone_and_what_serves_it_for_everyone_to_read(export: Path, tmp_path: Path) -> None:
    (export / "rows-of-customers.csv").write_text("private")
    mask = os.umask(0o077)
    try:
        write_image(export, tmp_path / "image")
    finally:
        os.umask(mask)
    assert {p.name for p in (tmp_path / "image" / "export").iterdir()} == {"SHA256SUMS", *FILES}
    ExportedModel.load(tmp_path / "image" / "export")
    assert all(p.stat().st_mode & 0o044 == 0o044 for p in (tmp_path / "image").rglob("*"))
    texts = "".join(content.decode() for name, content in everything(tmp_path / "image" / "app").items())
    assert "import torch" not in texts and "import mlflow" not in texts
    assert "ORT_DISABLE_TELEMETRY=1" in (tmp_path / "image" / "Dockerfile").read_text()
    pins = (tmp_path / "image" / "requirements.txt").read_text().splitlines()
    assert [pin.partition("==")[0] for pin in pins] == list(image.NEEDED) and all("==" in pin for pin in pins)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("exports/export", "outside of"),
        ("exports/export/image", "outside of"),
        ("exports/../exports/export/deep/image", "outside of"),
        ("link", "outside of"),
        ("exports", "must name a new or empty folder"),
        ("exports/other", "must name a new or empty folder"),
        ("file", "must be a folder that can be written; File exists"),
        ("file/image", "must be a folder that can be written; Not a directory"),
    ],
)
def test_over_or_inside_an_export_or_where_something_is_it_is_not_written(
    export: Path, tmp_path: Path, place: str, said: str
) -> None:
    shutil.copytree(export, tmp_path / "exports" / "other")
    (tmp_path / "link").symlink_to(export)
    (tmp_path / "file").write_text("mine")
    before = everything(tmp_path)
    with pytest.raises(UserError, match=said):
        write_image(export, tmp_path / place)
    assert everything(tmp_path) == before and not (export / "image").exists()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for half of a folder."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a disk cannot be mounted here, which only root may")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_on_a_full_disk_nothing_is_left_and_the_same_command_works_where_there_is_room(
    export: Path, full_disk: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"must be a folder that can be written; No space left on device"):
        write_image(export, full_disk / "image")
    assert list((full_disk / "image").iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=10m", str(full_disk)], check=True)
    write_image(export, full_disk / "image")
    ExportedModel.load(full_disk / "image" / "export")


def test_an_interruption_leaves_nothing(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_first: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(image, "_modules", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_image(export, tmp_path / "image")
    assert list((tmp_path / "image").iterdir()) == []
