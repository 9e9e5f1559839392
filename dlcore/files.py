"""Files on disk that are whole or not there: durable writes, and folders sealed by SHA-256 sums.

A sealed folder is written beside its place and moved there as a whole. One process writes a folder at a time;
any number may read. `sha256sum -c SHA256SUMS` checks one without this code.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from dlcore.errors import ExportError

SUMS_FILE = "SHA256SUMS"
MAX_FILE_BYTES = 2**31 - 1
"""Protobuf's limit; nothing larger is read."""
_TRIES = 3
"""Of reading a folder that is replaced meanwhile."""


def sha256(content: bytes) -> str:
    """Its SHA-256 sum in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write_file(path: Path, content: bytes) -> None:
    """Write one file; a reader sees the old one or the new one."""
    new = path.with_name(f".{path.name}.new")
    _write_durably(new, content)
    new.replace(path)
    _sync_names(path.parent)


def write_sealed(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files and their sums to a folder, whole or not at all.

    Args:
        folder: Where to; an older sealed folder with files of the same names is replaced.
        files: Name -> content.

    Raises:
        ExportError: If the folder holds anything else, or cannot be written. What was there is still there.
    """
    new, old = folder.with_name(f".{folder.name}.new"), _aside(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if old.exists() and not folder.exists():
            old.rename(folder)  # killed between the two renames below
        _refuse_foreign(folder, {*files, SUMS_FILE})
        for leftover in (new, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        new.mkdir()
        for name, content in {**files, SUMS_FILE: _sums_of(files)}.items():
            _write_durably(new / name, content)
        _sync_names(new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        _sync_names(folder.parent)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise ExportError(f"{folder} must be writable, on a disk with room; {error}") from error
    shutil.rmtree(old, ignore_errors=True)  # out of the way already; the next write tries again


def read_sealed(folder: Path, names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, bytes]:
    """Read files of a sealed folder, and compare with the sums; again if it was replaced meanwhile.

    Args:
        folder: Written by `write_sealed`.
        names: The files that must be there.
        optional: Files that are read too where the sums tell of them.

    Returns:
        Name -> content.

    Raises:
        ExportError: If a file is missing or is not as it was written; it names the file.
    """
    names, optional = tuple(names), tuple(optional)
    for _ in range(_TRIES - 1):
        before = _identity(folder)
        try:
            return _read_once(folder, names, optional)
        except ExportError:
            if _identity(folder) == before:
                raise
    return _read_once(folder, names, optional)


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from the one that takes its place, which may get the same inode; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _read_once(folder: Path, names: Iterable[str], optional: Iterable[str]) -> dict[str, bytes]:
    """As `read_sealed`, of a folder that nobody replaces."""
    if not folder.exists() and _aside(folder).exists():
        folder = _aside(folder)  # the writer was killed between its two renames, or is between them
    told = _read(folder / SUMS_FILE)
    lines = told.decode(errors="replace").splitlines()
    sums = {line[66:]: line[:64] for line in lines if line[64:66] == "  "}
    wanted = [*names, *(name for name in optional if name in sums)]
    contents = {name: _read(folder / name) for name in wanted}
    for name, content in contents.items():
        if sums.get(name) != sha256(content):
            raise ExportError(
                f"{folder / name} must be as it was written, but does not match {SUMS_FILE}; write it again"
            )
    if told != _sums_of(contents):
        raise ExportError(f"{folder / SUMS_FILE} must tell of {', '.join(sorted(wanted))} alone; write it again")
    return contents


def _sums_of(files: Mapping[str, bytes]) -> bytes:
    return "".join(f"{sha256(files[name])}  {name}\n" for name in sorted(files)).encode()


def _read(path: Path) -> bytes:
    """Content of a file that must be there."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ExportError(f"{path} must be smaller than 2 GiB; it was not written by dlcore")
        return path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} must be a readable file; {error.strerror}. Write it again") from error


def _write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it, so that a rename after it never shows half of it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_names(folder: Path) -> None:
    """Wait until the names in a folder are on disk: on POSIX a rename is durable only after this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _aside(folder: Path) -> Path:
    """Where the old folder waits while the new one takes its place."""
    return folder.with_name(f".{folder.name}.old")


def _refuse_foreign(folder: Path, own: set[str]) -> None:
    """Never replace a folder that holds anything but our files."""
    if not folder.exists():
        return
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    # Some of our names are common ones, README.md for one: a few of them without sums may be somebody's own.
    is_ours = SUMS_FILE in found or len(found) > len(own) / 2
    if found - own or (found and not is_ours):
        raise ExportError(
            f"{folder} must be a new or empty folder, or one written before; it holds "
            f"{', '.join(sorted(found - own or found)[:5])}. Choose another folder"
        )
