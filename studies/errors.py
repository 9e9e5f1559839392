"""The errors of studies, and the exit code each one means.

StudiesError
├── UserError            2   something the user can mend: said in one short message, nothing lost
│   ├── SpecError        2   a spec with mistakes, all of them listed
│   ├── SpecChanged      2   a spec that differs from the stored one of the same name
│   ├── StudyBusy        2   another process drives this study now
│   └── Damaged          2   a study database that must not be used as it is
├── StudyFailed          1   the study ran, and has no result to give
├── DatabaseGone         1   the study database went away; what was recorded is there when it is back
├── LeaseLost            1   somebody else trains these trials now; the late result is refused
└── Overtaken            -   another worker was faster; ask again
TrackingError            -   the mirror could not be written; never ends a study

A trial that fails is no error: it is a record with state FAIL and a reason.
"""

import re


class StudiesError(Exception):
    """Base of all errors that end a command."""

    exit_code = 1


class UserError(StudiesError):
    """Something the user can mend."""

    exit_code = 2


class SpecError(UserError):
    """A spec with mistakes."""


class SpecChanged(UserError):
    """A spec that differs from the stored one of the same name."""


class StudyBusy(UserError):
    """Another process drives this study now."""


class Damaged(UserError):
    """A study database that must not be used as it is."""


class StudyFailed(StudiesError):
    """The study ran, and has no result to give."""

    exit_code = 1


class DatabaseGone(StudiesError):
    """The study database went away, or stays locked: whether the last transaction was committed is unknown."""


class LeaseLost(StudiesError):
    """Somebody else trains these trials now: a late result is refused, not doubled."""


class Overtaken(StudiesError):
    """Another worker claimed these trials first; nothing was written."""


class TrackingError(Exception):
    """The tracking server could not be reached or refused; the mirror is mended later."""


def lack_of_memory(error: BaseException) -> str | None:
    """What to tell people of an error that says that there is no memory left; None if it says something else."""
    text = str(error)
    is_meant = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # of torch
    words = ("not enough memory", "can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    if not is_meant and not any(found in text for found in words):
        return None
    found = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)|Unable to allocate ([\d.]+ \w+)", text)
    reason = f" ({found[1] or found[2]} were asked for)" if found else ""
    return (
        f"there is too little memory{reason}; nothing that was recorded is lost, and the same command goes on when "
        "there is more; smaller networks and batches need less"
    )
