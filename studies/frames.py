"""Tables that are given in Python: written down in the home, so that a study of one goes on as any other does."""

import os
import shutil
from pathlib import Path

import pandas as pd

from dlcore.data import load_splits
from studies.display import Display
from studies.home import Home, open_home
from studies.runner import Run, Ways
from studies.spec import StudySpec
from studies.storage import Storage
from studies.transfer import kinds_of, open_source, resolved

FOLDER = "frames"


def home_at(folder: str | Path | None) -> Home:
    """The home in a folder; None is STUDIES_HOME, or mlruns/."""
    return open_home(at=None if folder is None else Path(folder))


def place(home: Home, study: str) -> Path:
    """Where the table of a study lies."""
    return home.root / FOLDER / f"{study}.parquet"


def begin(spec: StudySpec, frame: pd.DataFrame, home: Home, display: Display, *, is_mirrored: bool = False) -> Run:
    """A study of a frame, ready to run: a new one, or the stored one of its name.

    Args:
        spec: Its path is `place`.
        frame: Features and targets.
        home: Where the study is kept.
        display: Is told what happens.
        is_mirrored: Whether MLflow shows it meanwhile.

    Raises:
        UserError: The stored study has other data, or another spec.
        DlcoreError: Nothing can be learned from the frame.
    """
    final = place(home, spec.study)
    draft = home.root / FOLDER / f".{spec.study}.{os.getpid()}" / final.name
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        storable(frame).to_parquet(draft, index=False)
        draft.chmod(0o600)
        source = open_source(spec)
        spec = resolved(spec, source)
        config = spec.model_copy(update={"data": spec.data.model_copy(update={"path": str(draft)})}).data_config()
        splits = load_splits(config, spec.seed, kinds_of(source))
        run = Run(spec, home, Storage(home.database_url), display, ways=Ways(splits, is_mirrored=is_mirrored))
        if run.is_new or not final.is_file():
            draft.replace(final)
    finally:
        shutil.rmtree(draft.parent, ignore_errors=True)
    return run


def storable(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with texts where it has objects or categories, and for names: as a table has them."""
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    texts = {
        str(name): series.astype(object).map(str, na_action="ignore").where(series.notna(), None)
        for name, series in frame.items()
        if pd.api.types.is_object_dtype(series.dtype) or isinstance(series.dtype, pd.CategoricalDtype)
    }
    return frame.assign(**texts)
