"""How often things are broken: a short form for every run of the tests, a long one by `make torture N=2000`."""

import os
import secrets
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Form:
    """How many faults of each kind."""

    storage_kills: int
    """For each kind of study database."""
    study_kills: int
    restarts: int
    """Of the tracking server while a study runs."""
    lost_replies: int
    mirror_kills: int
    """For each way to write runs."""
    export_kills: int
    seed: int
    """Of every choice that the tests make; what the machine's own timing decides it does not repeat."""
    is_long: bool

    @property
    def timeout_s(self) -> int:
        """For one test; a busy machine may be slow."""
        return 24 * 3600 if self.is_long else 900


def _form() -> Form:
    seed = int(os.environ.get("TORTURE_SEED") or secrets.randbelow(2**31))
    given = os.environ.get("TORTURE_N")
    if not given:
        return Form(100, 8, 3, 50, 5, 30, seed, is_long=False)
    n = int(given)
    return Form(
        n, max(1, n // 10), max(1, n // 40), max(1, n // 2), max(1, n // 40), max(1, 3 * n // 20), seed, is_long=True
    )


FORM = _form()
