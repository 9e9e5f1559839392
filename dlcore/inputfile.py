"""Open a file that may come from a stranger: a plain one on this machine, of bounded size, packed or not.

No addresses, no pipes, and no archives but one gzip stream, whose size is known before anything in it is read.
"""

import difflib
import gzip
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from dlcore.errors import DataError

MAX_BYTES = 2_000_000_000
MAX_RATIO = 200
"""How many times larger than the file its content may be. Tables reach 30; a bomb 1,000."""
_FREE_BYTES = 10_000_000
"""Below this, nothing is a bomb."""
_BLOCK = 1 << 18
_GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as the end of a message, or nothing."""
    by_lower = {other.lower(): other for other in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower, 1)
    return f"; did you mean {by_lower[nearest[0]]!r}?" if nearest else ""


def listed(names: Sequence[object], most: int = 8) -> str:
    """The first names, quoted, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


@contextmanager
def open_input(path: str) -> Iterator[BinaryIO]:
    """A table's bytes, unpacked if need be, from the first on; it can seek.

    Raises:
        DataError: It is not such a file, or too large.
    """
    with _opened(path) as handle:
        magic = handle.read(2)
        handle.seek(0)
        if magic != _GZIP_MAGIC:
            yield handle
            return
        _check_unpacked(handle, path)
        with gzip.GzipFile(fileobj=handle, mode="rb") as unpacked:
            yield cast(BinaryIO, unpacked)


@contextmanager
def open_stream(path: str) -> Iterator[BinaryIO]:
    """As `open_input`, for whoever keeps nothing of what was read: of any size, and unpacked as it is read.

    Raises:
        DataError: It is not such a file; or, while it is read, no whole gzip file.
    """
    with _opened(path, is_bounded=False) as handle:
        magic = handle.read(2)
        handle.seek(0)
        if magic != _GZIP_MAGIC:
            yield handle
            return
        try:
            with gzip.GzipFile(fileobj=handle, mode="rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path} must be a whole gzip file; {error}: pack it again") from None


def _opened(path: str, *, is_bounded: bool = True) -> BinaryIO:
    """The file, open for reading bytes, if it is a plain one on this machine and not too large."""
    role = "data.path" if is_bounded else "FILE"
    try:
        # Not blocking, so that a pipe is refused instead of waited for.
        descriptor = os.open(Path(path).expanduser(), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in it; RuntimeError: ~nobody
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{role} must name a CSV or Parquet file on this machine; {path!r}: {reason}{_similar_file(path)}"
        ) from None
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise DataError(f"{role} must name a CSV or Parquet file on this machine; {path!r} is not a plain file")
    if is_bounded and facts.st_size > MAX_BYTES:
        os.close(descriptor)
        raise DataError(f"{path} must have at most {MAX_BYTES:,} bytes; it has {facts.st_size:,}")
    return os.fdopen(descriptor, "rb")


def _similar_file(path: str) -> str:
    try:
        names = [other.name for other in Path(path).expanduser().parent.iterdir() if other.is_file()]
    except (OSError, ValueError, RuntimeError):
        return ""  # the folder is not there either: nothing to propose
    return did_you_mean(Path(path).name, names)


def _check_unpacked(handle: BinaryIO, path: str) -> None:
    """Unpack a file once without keeping anything, and refuse it if it is broken or far larger than it looks."""
    size = os.fstat(handle.fileno()).st_size
    n_bytes = 0
    try:
        unpacker = zlib.decompressobj(wbits=31)
        while packed := handle.read(_BLOCK):
            while packed:
                if unpacker.eof:  # another member may follow, as `cat a.gz b.gz` makes
                    unpacker = zlib.decompressobj(wbits=31)
                n_bytes += len(unpacker.decompress(packed, _BLOCK))
                if n_bytes > MAX_BYTES or (n_bytes > _FREE_BYTES and n_bytes > MAX_RATIO * size):
                    raise DataError(
                        f"{path} must hold at most {MAX_BYTES:,} bytes once unpacked, and at most {MAX_RATIO} times "
                        "its own size; it holds more: unpack it and see what it is"
                    )
                packed = unpacker.unused_data.lstrip(b"\0") if unpacker.eof else unpacker.unconsumed_tail
        unpacker.flush()
    except zlib.error as error:
        raise DataError(f"{path} must be a whole gzip file; {error}: pack it again") from None
    if not unpacker.eof:
        raise DataError(f"{path} must be a whole gzip file; it ends too early: pack it again")
    handle.seek(0)
