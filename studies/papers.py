"""What commands wrote of a study into its home, beside its exports: report, pictures, and a table given in Python."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_KINDS = {"reports": ("report.html", "story.md", "pictures/*.png"), "pictures": ("*.png", "*.svg", "*.txt")}
_TABLES = "frames"


@dataclass(frozen=True, slots=True)
class Papers:
    """Of one study."""

    folders: tuple[Path, ...]
    """Its report, its pictures."""
    tables: tuple[Path, ...]
    """A person's rows: the table, and drafts of it that a killed program left."""

    @property
    def every(self) -> tuple[Path, ...]:
        """All of them."""
        return (*self.folders, *self.tables)


def of_study(root: Path, study: str) -> Papers:
    """What there is in the home `root`."""
    folders = tuple(root / kind / study for kind in _KINDS if (root / kind / study).is_dir())
    tables = root / _TABLES
    own = re.compile(re.escape(study) + r"\.parquet|" + re.escape(f".{study}.") + r"\d+")
    found = sorted(tables.iterdir()) if tables.is_dir() else []
    return Papers(folders, tuple(path for path in found if own.fullmatch(path.name)))


def remove(papers: Papers) -> Sequence[Path]:
    """Delete them; returns folders that hold other files, which are left."""
    for path in papers.tables:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in papers.folders:
        for pattern in _KINDS[folder.parent.name]:
            for file in sorted(folder.glob(pattern)):
                file.unlink(missing_ok=True)
        for place in (folder / "pictures", folder):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
    return [folder for folder in papers.folders if folder.exists()]
