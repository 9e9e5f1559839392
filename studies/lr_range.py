"""`studies lr-range`: between which rates a network of a spec learns, with the picture and the line to paste."""

from pathlib import Path

from dlcore.data import load_splits
from studies.asked import find_asked
from studies.cohort import Trainer
from studies.display import open_display
from studies.home import open_home
from studies.picture_files import write_picture
from studies.records import Value
from studies.space import middle, shrink
from studies.spec import resolved_objectives
from studies.storage import Storage
from studies.sweep_pictures import RatePicture, rate_sentence
from studies.tally import hyperparameters_line
from studies.transfer import fitted, kinds_of, open_source, resolved


def measure(spec_or_study: str, folder: Path | None) -> Path:
    """Test the network in the middle of a spec's search space, say what is seen, and draw it; returns the picture.

    Args:
        spec_or_study: As for `studies run`.
        folder: Where the picture goes; None is its place in the home.

    Raises:
        UserError: There is no such spec, or the folder cannot be written.
    """
    display, home = open_display(), open_home()
    storage = Storage(home.database_url)
    spec = find_asked(spec_or_study, storage)
    source = open_source(spec)
    spec = resolved(spec, source)
    splits, transfer = fitted(load_splits(spec.data_config(), spec.seed, kinds_of(source)), source)
    trainer = Trainer(spec, resolved_objectives(spec, splits.task), splits, transfer)
    own = shrink(middle(spec), spec, trainer.count_parameters)
    found = trainer.measure_rates(own)
    picture = RatePicture(
        spec.study,
        found.rates,
        found.losses,
        found.smoothed,
        (found.low, found.high),
        found.steepest,
        found.has_edge,
    )
    shown: dict[str, Value] = {name: value for name, value in own.items() if name != "learning_rate"}
    display.note(f"network {hyperparameters_line(shown)}")
    display.note(rate_sentence(picture))
    if picture.line:
        display.note(f"in [search_space]:  {picture.line}")
    path = write_picture(folder or home.root / "pictures" / spec.study, "lr-range", picture)
    display.note(f"picture {path}")
    return path
