"""A process that exports until it is killed: two networks of one table in turns, so that a mixture would be seen."""

from functools import cache
from multiprocessing.synchronize import Event
from pathlib import Path

from dlcore.config import ModelConfig
from dlcore.data import DataSplits
from dlcore.ensemble import Part
from dlcore.export import Story, export_parts
from dlcore.models import build_model
from tests.dlcore.column_tools import splits_of_all_kinds


@cache
def _splits() -> DataSplits:
    return splits_of_all_kinds("binary")


def export(folder: Path, which: int) -> Path:
    """Export the one network, or the other, which is an ensemble."""
    splits = _splits()
    config = ModelConfig(splits.n_features, splits.n_outputs, (64, 64))
    seeds = [0] if which == 0 else [1, 2]
    parts = [Part(build_model(config, seed), config, splits.preprocessor) for seed in seeds]
    return export_parts(folder, parts, splits, Story({"which": which}))


def live(folder: Path, ready: Event) -> None:
    """Export without end."""
    export(folder, 0)
    ready.set()
    while True:
        for which in (1, 0):
            export(folder, which)
