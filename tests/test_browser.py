"""What people see in a real browser, headless Chromium: a study of 1,000 trials in MLflow's pages, and its report.

The browser reaches nothing but this machine. Pictures of what it saw lie in the tests' temporary folder.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, sync_playwright

from studies import server
from studies.view import run_page, study_page
from tests.conftest import studies_environment

pytestmark = pytest.mark.slow

# Chromium would otherwise ask its makers for updates and the like.
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--no-sandbox",
)
SPEC = """
study = "many"
seed = 5
budget = { trials = 1000 }
search = { sampler = "random", cohort = 250, halving = { first_rung = 2, reduction_factor = 3 } }
final = { candidates = 2, seeds = 2 }
data = { source = "sklearn:wine" }
training = { epochs = 8, batch_size = 64 }

[search_space]
depth = { low = 1, high = 2 }
width = { low = 4, high = 32, log = true }
activation = ["relu", "tanh"]
learning_rate = { low = 1e-3, high = 0.5, log = true }
momentum = { low = 0.0, high = 0.95 }
"""
_PATIENCE_MS = 60_000


@dataclass
class Seen:
    """One page and what went wrong on it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Addresses that it asked for and must not."""


Open = Callable[..., Seen]


def chromium() -> Path:
    """Debian's Chromium; a test that needs it is skipped where it is not installed."""
    found = shutil.which("chromium")
    if found is None:
        reason = "there is no Chromium; on Debian `apt-get install chromium` brings it"
        if os.environ.get("DLCORE_REQUIRE_CHROMIUM") == "1":
            pytest.fail(f"DLCORE_REQUIRE_CHROMIUM=1, and {reason}")
        pytest.skip(reason)
    return Path(found)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = chromium()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def home(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with the study and a tracking server that shows it."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "many.toml").write_text(SPEC)
    try:
        for words in (("run", "many.toml"), ("report", "many", "--to", "report")):
            answer = subprocess.run(
                [sys.executable, "-m", "studies", *words],
                capture_output=True, text=True, cwd=folder, env=studies_environment(folder / "home"), timeout=800,
            )  # fmt: skip
            assert answer.returncode == 0, answer.stderr + answer.stdout
        yield folder / "home"
    finally:
        server.stop(folder / "home")


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens an address with all requests refused that do not begin with it."""
    contexts = []

    def open_it(address: str, *, allowed: str, width: int = 1280, height: int = 900) -> Seen:
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        seen = Seen(context.new_page())

        def judge(route: Route) -> None:
            if route.request.url.startswith((allowed, "data:", "blob:")):
                route.continue_()
            else:
                seen.refused.append(route.request.url)
                route.abort()

        def hear(message: ConsoleMessage) -> None:
            if message.type == "error":
                seen.errors.append(message.text)

        context.route("**/*", judge)
        seen.page.on("console", hear)
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.goto(address)
        return seen

    yield open_it
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def parent(home: Path) -> str:
    """Address of the page of the study's run in MLflow."""
    import urllib.request

    found = server.find(home)
    assert found is not None
    wanted = json.dumps({"experiment_ids": ["1"], "filter": "tags.dlcore.name = 'many'"}).encode()
    asked = urllib.request.Request(
        f"{found.address}/api/2.0/mlflow/runs/search", wanted, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        (run,) = json.load(answer)["runs"]
    return run_page(found.address, "1", run["info"]["run_id"])


def address_of(parent: str) -> str:
    return parent.partition("/#")[0]


def tab(parent: str, name: str) -> str:
    """Address of another tab of a run's page."""
    return parent.replace("?", f"/{name}?")


def close_assistant(page: Page) -> None:
    """MLflow opens a panel at a first visit, over a quarter of the page; no setting of the server stops it."""
    button = page.locator("[data-component-id='mlflow.assistant.chat_panel.close']")
    if button.count():
        button.first.click()


def test_the_page_that_is_named_lists_the_trials_with_the_best_on_top(
    parent: str, open_page: Open, tmp_path: Path
) -> None:
    base = address_of(parent)
    seen = open_page(study_page(base, "1"), allowed=base)
    trials = seen.page.get_by_role("link", name="trial-")
    trials.first.wait_for(timeout=_PATIENCE_MS)
    assert seen.page.get_by_text("Sort: best_val_accuracy").count() == 1
    close_assistant(seen.page)
    values = seen.page.locator("[role=gridcell][col-id*=best_val_accuracy]")
    values.first.wait_for(timeout=_PATIENCE_MS)
    shown = [float(text) for text in values.all_text_contents()]
    assert len(shown) >= 10 and shown[0] == 1.0 and shown == sorted(shown, reverse=True)
    assert trials.count() >= 10
    seen.page.screenshot(path=tmp_path / "trials.png")
    assert seen.refused == []


def test_the_page_of_a_study_tells_its_story_and_names_its_trials(parent: str, open_page: Open, tmp_path: Path) -> None:
    seen = open_page(parent, allowed=address_of(parent))
    seen.page.get_by_text("won, with accuracy").first.wait_for(timeout=_PATIENCE_MS)
    seen.page.locator("a", has_text="trial-0").first.wait_for(timeout=_PATIENCE_MS)
    assert seen.page.get_by_text("Of 1,000 trials granted 1,000 are finished").count() == 1
    assert "won, with accuracy" in (seen.page.locator("strong", has_text="many: trial").first.text_content() or "")
    close_assistant(seen.page)
    seen.page.screenshot(path=tmp_path / "study.png")
    assert seen.refused == []


def test_the_page_of_a_study_draws_the_best_value_over_trials(parent: str, open_page: Open, tmp_path: Path) -> None:
    seen = open_page(tab(parent, "model-metrics"), allowed=address_of(parent))
    seen.page.locator("svg.main-svg").first.wait_for(timeout=_PATIENCE_MS)
    assert seen.page.get_by_text("best_val_accuracy").count() >= 1
    close_assistant(seen.page)
    seen.page.screenshot(path=tmp_path / "metrics.png")
    assert seen.refused == []


def test_the_page_of_a_study_shows_its_report(parent: str, open_page: Open, tmp_path: Path) -> None:
    seen = open_page(tab(parent, "artifacts/report.html"), allowed=address_of(parent))
    seen.page.locator("iframe").first.wait_for(timeout=_PATIENCE_MS)
    report = seen.page.frame_locator("iframe").first
    report.get_by_text("won, with accuracy").first.wait_for(timeout=_PATIENCE_MS)
    seen.page.screenshot(path=tmp_path / "report-in-mlflow.png")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_opens_without_network_and_without_errors_on_any_screen(
    home: Path, open_page: Open, tmp_path: Path, width: int
) -> None:
    page = home.parent / "report" / "report.html"
    assert page.stat().st_size < 5_000_000
    seen = open_page(page.as_uri(), allowed=page.as_uri(), width=width, height=844)
    assert "many" in (seen.page.locator("h1").first.text_content() or "")
    sizes = seen.page.eval_on_selector_all("img", "images => images.map(i => [i.complete, i.naturalWidth])")
    assert len(sizes) >= 7 and all(is_complete and natural > 0 for is_complete, natural in sizes)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    seen.page.screenshot(path=tmp_path / f"report-{width}.png", full_page=True)
    assert (seen.errors, seen.refused) == ([], [])
