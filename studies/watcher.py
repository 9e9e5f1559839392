"""Who watches a driver's training: a person's display, and the mirror."""

from collections.abc import Sequence

from studies.display import Display
from studies.records import EpochDone, TrialRecord
from studies.search import Cohort
from studies.tally import Tally
from studies.tracking import Mirror


class MirroringWatcher:
    """Shows and mirrors what is trained; see `studies.work.Watcher`."""

    def __init__(self, display: Display, mirror: Mirror | None, tally: Tally | None = None) -> None:
        """Tell a display and a mirror; a tally learns which cohort is being trained."""
        self._display, self._mirror, self._tally = display, mirror, tally

    def began(self, cohort: Cohort) -> None:
        """A cohort is being trained."""
        if self._tally is not None:
            self._tally.add_cohort(cohort.suggestions)
        self.show(cohort.id, [s.number for s in cohort.suggestions])

    def show(self, cohort: int, numbers: Sequence[int]) -> None:
        """Let MLflow show which cohort is being trained."""
        if self._mirror is not None:
            self._mirror.show({"cohort": cohort, "trials": f"{numbers[0]}-{numbers[-1]}"})

    def epoch(self, event: EpochDone) -> None:
        """A trial finished an epoch."""
        self._display.epoch(event)

    def told(self, trials: list[TrialRecord]) -> None:
        """A cohort was stored."""
        self.mirror([t.number for t in trials])
        self._display.trials(trials)

    def mirror(self, numbers: Sequence[int]) -> None:
        """Let MLflow have trials."""
        if self._mirror is not None:
            self._mirror.put(numbers)

    def note(self, line: str) -> None:
        """Something that people should know."""
        self._display.note(f"warning: {line}")
