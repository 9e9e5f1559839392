"""What the doctor finds: one line each, and how many of them a person is shown."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FROM_COPY = "restore the database from a copy"
LINES_OF_A_KIND = 5
"""Of each kind of finding so many are shown; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    kind: str
    """Such as "falsified trial": a few words, the same for all findings alike."""
    text: str
    """Which one, and what is wrong with it."""
    study: str | None = None
    """None where it belongs to no study."""
    cure: str | None = None
    """What a person can do where `--repair` cannot."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The outcome of one examination."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """What could not be looked at, and why."""
    sound: str
    """What was looked at, for when nothing was found: "study "wine" is sound: 64 trials"."""


def lines(found: Sequence[Finding]) -> Iterator[str]:
    """The findings as they are shown: grouped by study and kind, each in one line, not too many of a kind."""
    groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in found:
        groups[finding.study or "", finding.kind].append(finding)
    for (study, kind), own in groups.items():
        where = f"{study}: {kind}" if study else kind
        for finding in own[:LINES_OF_A_KIND]:
            yield f"{where}: {finding.text}" + (f" ({finding.cure})" if finding.cure else "")
        if len(own) > LINES_OF_A_KIND:
            yield f"{where}: ... and {len(own) - LINES_OF_A_KIND} more"
