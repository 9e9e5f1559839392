"""Every block of `docs/` is run or says why not; the site builds; the spec's reference is what the code says.

All pages are read in one folder, whose home holds the finished study `wine` of 16 trials and its export, and in which
lie `houses.csv` (area, rooms, price) and `rows.csv` (rows of the wine set).
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from studies import reference, server, spec_schema
from studies.hyperparameters import RULES
from studies.sections import Search, Training
from studies.spec import StudySpec, bundled, find_spec
from tests.blocks import ROOT, Reader, blocks
from tests.test_readme import write_rows

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("docs")
    rows = "".join(f"{50 + i},{i % 4},{1000 * (50 + i) + 9000 * (i % 4)}\n" for i in range(160))
    (folder / "houses.csv").write_text("area,rooms,price\n" + rows)
    found = Reader(folder)
    said = found.run("studies run wine --trials 16")
    assert said.returncode == 0, said.stderr
    write_rows(folder / "rows.csv")
    yield found
    server.stop(found.home)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_does_what_the_text_says(page: Path, reader: Reader) -> None:
    reader.read(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_has_a_kind_and_what_is_not_run_a_reason(page: Path) -> None:
    for block in blocks(page):
        assert block.reason is None or len(block.reason) > 10, f"{block.place}: say why it is not run"


def test_every_page_is_in_the_navigation() -> None:
    text = re.sub(r"!!python/name:\S+", "null", (ROOT / "mkdocs.yml").read_text())
    assert sorted(_pages(yaml.safe_load(text)["nav"])) == [page.name for page in PAGES]


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_nobody_else_for_anything(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(
            r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="(?:https?:)?//([^"]+)"', page.read_text()
        )
        assert fetched == [], page


def test_the_reference_of_the_spec_is_what_the_code_says(tmp_path: Path) -> None:
    reference.write(tmp_path)
    for name in (reference.PAGE, reference.SCHEMA):
        assert (DOCS / name).read_text() == (tmp_path / name).read_text(), f"run `make reference`: docs/{name} is old"


def test_every_key_and_every_hyperparameter_has_a_meaning() -> None:
    assert list(spec_schema.MEANINGS) == list(RULES)
    for model in (StudySpec, *spec_schema.TABLES.values()):
        for name in model.model_fields:
            assert spec_schema.meaning(model, name), f"{model.__name__}.{name}: write a docstring behind the field"


def test_the_schema_takes_every_spec_that_the_parser_takes() -> None:
    check = jsonschema.Draft202012Validator(spec_schema.schema())
    jsonschema.Draft202012Validator.check_schema(spec_schema.schema())
    specs = [path.read_text() for name in bundled() if (path := find_spec(name)) is not None]
    specs += [b.code for page in (ROOT / "README.md", *PAGES) for b in blocks(page) if b.kind == "toml"]
    for spec in specs:
        assert [e.message for e in check.iter_errors(tomllib.loads(spec))] == [], spec


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("budget = { trails = 3 }", "trails"),
        ("seed = -1", "-1"),
        ('objective = "acuracy"', "acuracy"),
        ("[search]\npruner = false", "False"),
        ("[search_space]\nwidth = { low = 0, high = 8 }", "'low': 0"),
        ('[search_space]\nactivation = "rely"', "rely"),
        ("[training]\npatience = true", "True"),
    ],
)
def test_the_schema_refuses_mistakes(text: str, key: str) -> None:
    check = jsonschema.Draft202012Validator(spec_schema.schema())
    spec = tomllib.loads(f'study = "x"\ndata = {{ source = "sklearn:wine" }}\n{text}\n')
    errors = list(check.iter_errors(spec))
    assert errors and key in " ".join(e.message for e in errors)


def test_the_reference_knows_what_may_be_off_and_what_is_the_default() -> None:
    found = spec_schema.schema()["$defs"]
    assert {"const": False} in found["Training"]["properties"]["patience"]["anyOf"]
    assert {"const": False} in found["Search"]["properties"]["halving"]["anyOf"]
    assert "null" not in json.dumps(found)
    row = next(line for line in reference.page().splitlines() if line.startswith("| `patience`"))
    assert f"`{Training().patience}`" in row and "or `false`" in row
    row = next(line for line in reference.page().splitlines() if line.startswith("| `sampler`"))
    assert f'`"{Search().sampler}"`' in row and "`nsga2`" in row


def _pages(entries: object) -> Iterator[str]:
    if isinstance(entries, str):
        yield entries
    elif isinstance(entries, dict):
        yield from _pages(list(entries.values()))
    elif isinstance(entries, list):
        for entry in entries:
            yield from _pages(entry)
