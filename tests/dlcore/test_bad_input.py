"""Whatever a file or a spec holds, it is read, or refused in one line; the command ends with exit code 2.

The long form is `make bad-inputs` (`benchmarks/bad_input.py`), which tries 50,000 of each.
"""

import gzip
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlcore.config import KINDS, DataConfig, SplitConfig
from dlcore.data import DataSplits, load_splits
from dlcore.errors import ConfigError, DataError
from studies.errors import SpecError
from studies.spec import parse_spec

N_INPUTS = 500
MAX_BYTES = 512 * 2**20
NOBODY = "http://127.0.0.1:9"

_CLEAN = (
    ("a", "b", "Rome", "", "NA", "x" * 300, "\u00e9\u4e2d"),
    ("0", "1", "2.5", "-3", "1e308", "007", "1e-320", "?"),
    ("2024-02-29", "2023-01-01", "2024-01-01T12:00:00Z", ""),
    ("3/4/2024", "13/4/2024"),
    ("yes", "no"),
    ("0", "1"),
    ("a", "b", "c"),
    ("",),
    ("1,5", "2,25"),
)  # fmt: skip
_ODD = (
    "1e400", "-inf", "inf", "1_000", "0x10", "9" * 400, "1.2.3", '"1,5"', "'", '"', "2024-02-30", "0000-00-00",
    "3/4/2024", "2024-01-01T25:00", "none", "nan", "True", "-", "\u0661", "x" * 9000, ";", ",", "\t", " ", "1 000",
    "1.000,5",
)  # fmt: skip


def _rows(rng: random.Random) -> list[list[str]]:
    """A table, header first: each column of one kind, with a few odd cells in some tables."""
    n_columns, n_rows = rng.randint(2, 8), rng.choice((0, 1, 2, 9, 20, 60, 60, 200))
    kinds = [rng.choice((*_CLEAN, *[None] * 4)) for _ in range(n_columns)]
    kinds[-1] = rng.choice((None, ("a", "b"), ("0", "1"), ("a", "b", "c"), kinds[-1]))
    header = [rng.choice(("a", "", "id", "y")) if rng.random() < 0.05 else f"c{i}" for i in range(n_columns)]
    header[-1] = "y"
    rows = [[str(rng.randrange(40) / 8) if kind is None else rng.choice(kind) for kind in kinds] for _ in range(n_rows)]
    for _ in range(rng.choice((0, 0, 0, 1, 2, 5)) if rows else 0):
        rows[rng.randrange(n_rows)][rng.randrange(n_columns)] = rng.choice(_ODD)
    return [header, *rows]


def _text(rng: random.Random) -> str:
    rows = _rows(rng)
    if rng.random() < 0.1 and len(rows) > 1:
        del rows[rng.randrange(1, len(rows))][-1]
    separator, end = rng.choice(",,;;\t|"), rng.choice(("\n",) * 9 + ("\r\n", "\r"))
    return end.join(separator.join(row) for row in rows) + rng.choice(("", end))


def _torn(rng: random.Random, content: bytes) -> bytes:
    """Some bytes changed, cut off or put in."""
    for _ in range(rng.randint(0, 3)):
        at = rng.randint(0, len(content))
        middle = rng.choice((b"", b"\0", b"\xff", b'"', b"\r", b"\n\n", b"\xef\xbb\xbf", bytes([rng.randrange(256)])))
        content = content[:at] + middle + content[at + rng.randint(0, 3) :]
    return content


def _csv(rng: random.Random) -> bytes:
    encoding = rng.choice((*["utf-8"] * 40, "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"))
    return _text(rng).encode(encoding, errors="replace")


def _packed(rng: random.Random) -> bytes:
    return gzip.compress(_csv(rng))[: rng.choice((*[None] * 6, -1, 20, 5))]


def _parquet(rng: random.Random) -> bytes:
    header, *rows = _rows(rng)
    names = [f"{name}{i}" for i, name in enumerate(header[:-1])] + ["y"]
    frame = pd.DataFrame(rows, columns=names, dtype=object)
    if rng.random() < 0.5:
        frame["z"] = [rng.choice((1.5, float("inf"), None)) for _ in rows]
    return frame.to_parquet()


def _noise(rng: random.Random) -> bytes:
    return rng.choice((b"", b"PAR1", b"\x1f\x8b", b"PK\x03\x04", b"y\n", b"a,y\n")) + rng.randbytes(rng.randrange(200))


_SHAPES: tuple[Callable[[random.Random], bytes], ...] = (*[_csv] * 12, _packed, _packed, _parquet, _parquet, _noise)


def _config(rng: random.Random, path: Path) -> DataConfig:
    names = ("c0", "c0", "c0", "c0", "c1", "y", "nowhere", "")
    kinds = {rng.choice(names): rng.choice((*KINDS, *KINDS, "text")) for _ in range(rng.choice((0, 0, 0, 0, 1)))}
    by = rng.choice(("column", "group", "time", *[None] * 12))
    split = SplitConfig(**({by: rng.choice(names)} if by else {}), folds=rng.choice((*[None] * 17, 1, 2, 5)))
    return DataConfig(
        path=str(path),
        target=tuple(rng.choice(names) for _ in range(2)) if rng.random() < 0.1 else ("y",),
        drop=(rng.choice(names),) if rng.random() < 0.1 else (),
        task=rng.choice(("auto", "auto", "auto", "binary", "multiclass", "regression")),
        kinds=kinds,
        split=split,
        val_fraction=rng.choice((*[0.2] * 18, 0.01, 0.9)),
    )


def try_file(i: int, folder: Path) -> bool:
    """Write file number i and read it as a table; returns whether it could be read."""
    rng = random.Random(f"1 {i}")
    path = folder / "table.csv"
    content = rng.choice(_SHAPES)(rng)
    path.write_bytes(_torn(rng, content) if rng.random() < 0.25 else content)
    try:
        splits = load_splits(_config(rng, path), seed=i)
    except (DataError, ConfigError) as error:
        message = str(error)
        assert "\n" not in message and 20 < len(message) < 700, (i, message)
        assert _is_named(message, path), (i, message)
        return False
    except Exception as error:
        raise AssertionError(f"input {i}: {error!r}") from error
    _check_whole(splits)
    return True


def _is_named(message: str, path: Path) -> bool:
    """Whether a message says which file, row, column or key is meant."""
    return any(word in message for word in (path.name, "row", "line", "column", "target", "data.", "'"))


def test_generated_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    n_read = sum(try_file(i, tmp_path) for i in range(N_INPUTS))
    assert N_INPUTS // 20 < n_read < N_INPUTS * 0.8  # neither everything nor nothing is refused


def _check_whole(splits: DataSplits) -> None:
    """What was read can be learned from."""
    rows = np.concatenate([splits.train.rows, splits.val.rows, splits.test.rows])
    assert sorted(rows.tolist()) == list(range(len(rows))) and len(splits.train.rows)
    assert np.isfinite(splits.preprocessor.transform(splits.train.x)).all()


_SPEC_LINES = (
    'study = "a"', 'study = "../a"', "seed = -1", "seed = 1e400", "[data]", "[data]", "[data]",
    'path = "table.csv"', 'path = "table.csv"', "path = 7", 'target = "y"', 'target = "y"', "target = []",
    'kinds = {a = "date"}', "kinds = {a = 1}", 'kinds = ["a"]', "split = {folds = 3}",
    'split = {group = "a", time = "b"}', "split = 7", "split = {folds = 1e9}", 'source = "openml:"',
    'source = "sklearn:wine"', "[budget]", "trials = 2", "trials = nan", "x = \u0000", "[[a]]", "a.b.c = 1",
    "[search_space]", "width = {low = 5, high = 1}", "= 1", '"', "val_fraction = 2", 'drop = ["y"]', "\u4e2d = 1",
)  # fmt: skip


def try_spec(i: int, folder: Path) -> bool:
    """Parse spec number i, beside a table; returns whether it could be read."""
    (folder / "table.csv").write_text("a,y\n1,2\n")
    rng = random.Random(f"spec {i}")
    lines = [rng.choice(_SPEC_LINES) for _ in range(rng.randint(0, 8))]
    if rng.random() < 0.2:
        lines = ['study = "a"', "[data]", 'path = "table.csv"', 'target = "y"', *lines[:2]]
    text = "\n".join(lines)
    try:
        parse_spec(text, "spec.toml", folder)
    except SpecError as error:
        heading, *mistakes = str(error).splitlines()
        assert heading.startswith("spec.toml: ") and len(mistakes) <= len(_SPEC_LINES), (i, str(error))
        assert bool(mistakes) == heading.endswith(("mistake", "mistakes")), (i, str(error))
        return False
    except Exception as error:
        raise AssertionError(f"spec {i}: {text!r}: {error!r}") from error
    return True


def test_generated_specs_are_read_or_refused_in_lines_that_name_the_key(tmp_path: Path) -> None:
    n_read = sum(try_spec(i, tmp_path) for i in range(N_INPUTS))
    assert 0 < n_read < N_INPUTS // 2


_PEAK = """
import re, sys
from pathlib import Path
from dlcore.config import DataConfig
from dlcore.errors import DataError
from dlcore.tables import read_table
try:
    found = str(len(read_table(DataConfig(path=sys.argv[1], target=("y",))).features.columns))
except DataError as error:
    found = str(error)
# Not getrusage: its maximum survives exec, so that it is that of the tests' own process.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], found)
"""


def _many_columns(path: Path) -> None:
    header = ",".join(f"c{i}" for i in range(10_000))
    rows = [",".join(str((i * k) % 7) for i in range(10_001)) for k in range(1, 21)]
    path.write_text("\n".join([f"{header},y", *rows]))


def _endless_line(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"a,y\n1,")
        file.truncate(1_000_000_000)


def _bomb(path: Path) -> None:
    with gzip.open(path, "wb", 9) as file:
        for _ in range(200):
            file.write(b"1,2\n" * 250_000)


def _repeating_parquet(path: Path) -> None:
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), pa.array(["x" * 100_000]))
    pq.write_table(pa.table({"a": text, "b": range(200_000), "y": [i % 2 for i in range(200_000)]}), path)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, which tells a process's own peak")
@pytest.mark.parametrize(
    ("write", "found"),
    [
        (_many_columns, "8571"),  # the others never change
        (_endless_line, "a line must have at most 10,000,000 bytes; line 2 has more"),
        (_bomb, "must hold at most 2,000,000,000 bytes once unpacked, and at most 200 times its own size"),
        (_repeating_parquet, "1"),  # a constant and a row number, the only feature
    ],
)
def test_what_is_too_much_is_read_or_refused_in_half_a_gigabyte(
    tmp_path: Path, write: Callable[[Path], None], found: str
) -> None:
    write(tmp_path / "table")
    words = [sys.executable, "-c", _PEAK, str(tmp_path / "table")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    peak, _, said = done.stdout.strip().partition(" ")
    assert found in said and "\n" not in said
    assert int(peak) * 1024 < MAX_BYTES


_GOOD = "a,b,y\n" + "".join(f"{i % 7},{i**2},{i % 2}\n" for i in range(50))
_BAD_FILES: dict[str, bytes] = {
    "NUL": _GOOD.replace("3,9", "3,\0").encode(),
    "UTF-16": _GOOD.encode("utf-16"),
    "UTF-32": _GOOD.encode("utf-32"),
    "Latin-1": _GOOD.replace("3,9", "3,\u00e9").encode("latin-1"),
    "ragged": (_GOOD + "1,2\n").encode(),
    "longer": (_GOOD + "1,2,3,4\n").encode(),
    "1e400": _GOOD.replace("3,9,", "3,1e400,").encode(),
    "infinite": _GOOD.replace("3,9,", "3,-inf,").encode(),
    "doubled": _GOOD.replace("a,b", "b,b").encode(),
    "unnamed": _GOOD.replace("a,b", ",b").encode(),
    "no rows": b"a,b,y\n",
    "nothing": b"",
    "blank": b"\n\n  \n",
    "one class": re.sub(r",[01]\n", ",1\n", _GOOD).encode(),
    "all missing": re.sub(r"\d+,\d+,", ",NA,", _GOOD).encode(),
    "holes": _GOOD.replace("3,9,1", "3,9,").encode(),
    "infinite target": _GOOD.replace("3,9,1", "3,9,1e999").encode(),
    "names": "\n".join(["b,y", *(f"{i**2},name{i}" for i in range(50))]).encode(),
    "no target": _GOOD.replace("y", "z").encode(),
    "one column": b"y\n" + b"1\n2\n" * 20,
    "open quote": _GOOD.replace("3,9", '3,"9').encode(),
    "old ends": _GOOD.replace("\n", "\r").encode(),
    "two rows": b"a,y\n1,0\n2,1\n",
    "broken gzip": gzip.compress(_GOOD.encode())[:-9],
    "gzip of noise": gzip.compress(bytes(range(256)) * 20),
    "gzip of nothing": gzip.compress(b""),
    "broken Parquet": b"PAR1" + b"\0" * 100 + b"PAR1",
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "archive": b"PK\x03\x04" + bytes(200),
    "bomb": gzip.compress(b"1,2\n" * 5_000_000, 9),
}


@pytest.mark.slow
@pytest.mark.timeout(1800)  # thirty processes that import all there is
def test_the_command_ends_with_code_2_and_one_line_that_names_the_place(tmp_path: Path) -> None:
    assert len(_BAD_FILES) == 30

    def run(name: str) -> tuple[str, subprocess.CompletedProcess[str]]:
        path = tmp_path / f"{name}.csv"
        path.write_bytes(_BAD_FILES[name])
        words = [sys.executable, "-m", "studies", "run", "--data", str(path), "--target", "y"]
        environment = {**os.environ, "STUDIES_HOME": str(tmp_path / "home"), "MLFLOW_TRACKING_URI": NOBODY}
        return name, subprocess.run(words, capture_output=True, text=True, env=environment, check=False)

    with ThreadPoolExecutor(2) as pool:
        for name, done in pool.map(run, _BAD_FILES):
            assert done.returncode == 2 and done.stdout == "", (name, done)
            assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) <= 8, (name, done.stderr)
            assert _is_named(done.stderr, tmp_path / f"{name}.csv"), (name, done.stderr)
