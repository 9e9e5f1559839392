"""What `studies doctor` prints, and whether all is well."""

from studies.display import open_display
from studies.doctor import examine
from studies.errors import Damaged
from studies.findings import FROM_COPY, Diagnosis, Finding, lines
from studies.home import Home, open_home
from studies.storage import Storage


def check(study: str | None, *, is_mended: bool) -> bool:
    """Look at one study or at all, print what is wrong, and mend it if asked to; returns whether all is well.

    Raises:
        UserError: There is no such study, or the database cannot be reached.
    """
    home = open_home(is_made_private=False)
    try:
        storage = Storage(home.database_url)
    except Damaged as error:
        _print(Diagnosis((Finding("damaged database", str(error), cure=FROM_COPY),), (), ""))
        return False
    try:
        found = examine(home, storage, study)
        _print(found)
        if not found.findings:
            return True
        n = len(found.findings)
        if not is_mended:
            command = " ".join(["studies doctor", *([study] if study else []), "--repair"])
            print(f"{n} found; `{command}` mends what can be mended" if n > 1 else f"`{command}` mends it if it can be")
            return False
        return _mended(home, storage, study, found)
    finally:
        storage.close()


def _mended(home: Home, storage: Storage, study: str | None, found: Diagnosis) -> bool:
    from studies.repair import repair  # it trains: torch costs seconds, which who only looks need not wait

    left = repair(home, storage, study, found, open_display())
    if left.findings:
        print(f"{len(left.findings)} cannot be mended:")
    _print(left)
    return not left.findings


def _print(found: Diagnosis) -> None:
    for line in (*found.notes, *lines(found.findings)):
        # What a damaged file holds must not command the terminal.
        print("".join(c if c.isprintable() else "?" for c in " ".join(line.split())))
    if not found.findings:
        print(found.sound)
