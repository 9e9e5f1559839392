"""A study's mirror: opened beside its training, and brought in line afterwards."""

from collections.abc import Sequence
from pathlib import Path

from studies.display import Display
from studies.errors import UserError
from studies.home import Home
from studies.ledger import Ledger
from studies.records import FINISHED_STATES, StudyFacts, TrialRecord, Winner
from studies.report_process import ReportProcess
from studies.storage import Storage
from studies.stores import open_store
from studies.tracking import Mirror
from studies.view import study_page

PATIENCE_S = 5.0
"""How long the end of a run waits for a tracking server that does not answer."""
_SLOW_ROUNDS = 12
"""How often it waits so long for a server that starts, or for a registration."""


def open_mirror(
    home: Home, storage: Ledger, facts: StudyFacts, display: Display, *, is_thorough: bool = False
) -> Mirror:
    """A mirror of one study: at the address that the user names, or at the home's own server, started if need be.

    Args:
        home: Of the study.
        storage: Holds the study.
        facts: Of the study.
        display: Is told where the server listens if its usual port is taken.
        is_thorough: Compare runs that are marked as whole with their records too.
    """

    def read(numbers: Sequence[int]) -> list[TrialRecord]:
        return storage.records(facts.name, numbers, has_curves=True)

    own = ReportProcess(home, facts.name)
    return Mirror(lambda: open_store(home, display.note), facts, read, is_thorough=is_thorough, report=own)


def hand_over(mirror: Mirror, winner: Winner, home: Home, storage: Ledger, study: str, display: Display) -> str | None:
    """Let a mirror have the winner, and wait for it while it moves; returns the page of the study in MLflow.

    A server that does not answer gets five seconds; None where none answered.
    """
    mirror.register(winner)
    rounds, last = 0, -1
    while not (is_done := mirror.finish("FINISHED", PATIENCE_S)):
        rounds = 0 if mirror.pending != last else rounds + 1
        last = mirror.pending
        # Our own database writes many trials at a time; a server starts, a model is registered: all take longer.
        is_slow_work = home.tracking_uri is None or last == 0
        if mirror.error is not None or rounds > (_SLOW_ROUNDS if is_slow_work else 0):
            break
        what = f"{last} trials are on their way to MLflow" if last else "the model is being registered in MLflow"
        if rounds == 0:
            display.note(f"{what}; Ctrl-C leaves the rest to `studies track`")
    if not is_done:
        reason = (mirror.error or "it does not answer").splitlines()[0]
        lacks = f"{n} trials" if (n := mirror.pending) else "the winner or its report"
        display.note(f"warning: MLflow lacks {lacks} ({reason}); `studies track {study}` brings it in line")
    if mirror.said:
        display.note(mirror.said)
    if mirror.address is None or mirror.experiment_id is None:
        return None
    storage.store_mirror(study, mirror.address, mirror.experiment_id)
    return study_page(mirror.address, mirror.experiment_id)


def bring_in_line(home: Home, storage: Storage, facts: StudyFacts, display: Display) -> str:
    """Mirror whatever MLflow lacks or shows wrongly of a study, whose lock the caller holds; returns its page.

    Raises:
        UserError: The tracking server does not answer, or refuses a trial.
    """
    mirror = open_mirror(home, storage, facts, display, is_thorough=True)
    mirror.start()
    try:
        mirror.put([t.number for t in storage.records(facts.name) if t.state in FINISHED_STATES])
        won = storage.winner(facts.name, must_be_sealed=True)
        if won is not None and Path(won[0].export_dir).is_dir():
            mirror.register(won[0])
        mirror.report()
        while not mirror.finish("FINISHED", PATIENCE_S):
            if mirror.error is not None:
                raise UserError(f"MLflow must take what it lacks of the study, and does not: {mirror.error}")
            n = mirror.pending
            display.note(f"{n} trials to go" if n else "all trials are there; the winner and the report follow")
        assert mirror.address is not None and mirror.experiment_id is not None  # it is complete
        storage.store_mirror(facts.name, mirror.address, mirror.experiment_id)
    finally:
        mirror.close()
    return study_page(mirror.address, mirror.experiment_id)
