"""The command line: parses, calls, prints. A user's mistake is one short message on stderr and exit code 2.

What a command needs is imported when it runs: `studies --help` and `studies list` must not wait for torch or mlflow.
"""

import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from dlcore.errors import DlcoreError, ExportError
from studies.errors import StudiesError, TrackingError, lack_of_memory

app = typer.Typer(
    help="Hyperparameter studies of feed-forward networks on tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_UsageError: Any = typer.BadParameter.__mro__[2]  # click's ClickException, wherever typer has it from

Study = Annotated[str, typer.Argument(metavar="STUDY", help="Name of a study in the database.")]


@app.command(epilog="Example: studies run wine --trials 50")
def run(
    spec: Annotated[str | None, typer.Argument(help="A bundled spec, a TOML file, or a study in the database.")] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Total number of trials; raises the budget.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which this run searches no more; finals follow.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A CSV or Parquet file or openml:ID, in place of a spec.")] = None,
    target: Annotated[str | None, typer.Option(help="Its target column.")] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes that train, a cohort each; they share the cores.")
    ] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but warnings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object a line.")] = False,
) -> None:
    """Run a study, or go on with it: search, record, mirror, export."""
    if quiet and as_json:
        raise typer.BadParameter("--quiet and --json exclude each other")
    if workers > 1:
        # Read when torch is imported, here and in the workers: a trial's bits depend on its threads.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _n_cores() // workers)))
    from studies import commands

    form = "json" if as_json else "quiet" if quiet else "auto"
    commands.run(commands.Request(spec, trials, timeout, data, target, workers, form))


@app.command("list", epilog="Example: studies list")
def list_studies() -> None:
    """List the studies in the database."""
    from studies import overview

    overview.print_list()


@app.command(epilog="Example: studies show digits --json")
def show(study: Study, as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Show how a study stands, its best trials and its winner."""
    from studies import overview

    overview.print_study(study, as_json=as_json)


@app.command(epilog="Example: studies export digits --to model")
def export(
    study: Study,
    trial: Annotated[int | None, typer.Option(help="Another trial than the winner.")] = None,
    to: Annotated[Path | None, typer.Option(help="Folder to write; an earlier export there is replaced.")] = None,
) -> None:
    """Train the winner again, or another trial, and write it as ONNX, safetensors and JSON."""
    from studies import commands

    commands.export(study, trial, to)


@app.command(epilog="Example: studies predict mlruns/exports/digits rows.csv --out answers.csv")
def predict(
    export_dir: Annotated[Path, typer.Argument(help="Folder of an export.")],
    file: Annotated[Path, typer.Argument(help="CSV (also .gz) or Parquet with the columns of the training.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write: CSV, .gz or .parquet; standard output without it.")
    ] = None,
) -> None:
    """Answer the rows of a file: labels and probabilities, or values; exit code 1 if a row could not be used."""
    from studies import predict as predicting

    outcome = predicting.predict_file(export_dir, file, out)
    for sentence in outcome.sentences():
        print(printable(sentence), file=sys.stderr)
    if outcome.n_unanswered:
        raise typer.Exit(1)


@app.command(epilog="Example: studies serve mlruns/exports/digits --port 8000")
def serve(
    export_dir: Annotated[Path, typer.Argument(help="Folder of an export.")],
    host: Annotated[str, typer.Option(help="Address to listen at; other than loopback needs --public.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8000,
    public: Annotated[bool, typer.Option("--public", help="Let other machines in, unencrypted and unasked.")] = False,
    dockerfile: Annotated[Path | None, typer.Option(help="Write a folder for `docker build` instead.")] = None,
) -> None:
    """Answer rows over HTTP, or write what an image needs that does."""
    from studies import predict as predicting

    model = predicting.load_export(export_dir)
    if dockerfile is not None:
        from studies import image

        image.write_image(export_dir, dockerfile)
        print(f"docker build --tag network {dockerfile} && docker run --publish 127.0.0.1:8000:8000 network")
        return
    from studies import bounds, serving

    serving.serve(model, host, port, bounds.Limits(), is_public=public)


@app.command(epilog="Example: studies replay digits 7")
def replay(
    study: Study,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a finished trial.")],
    cohort: Annotated[bool, typer.Option("--cohort", help="Train its whole cohort again: equal to the bit.")] = False,
) -> None:
    """Train a trial again and hold it against its record; exit code 1 if it differs."""
    from studies import commands

    if not commands.replay(study, trial, has_cohort=cohort):
        raise typer.Exit(1)


@app.command(epilog="Example: studies track digits")
def track(study: Study) -> None:
    """Bring MLflow in line with the study database."""
    from studies import commands

    commands.track(study)


@app.command(epilog="Example: studies doctor digits --repair")
def doctor(
    study: Annotated[str | None, typer.Argument(metavar="STUDY", help="Name of a study; all without it.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
) -> None:
    """Say what disagrees: the study database with itself, with MLflow, with the exports; exit code 1 if anything."""
    from studies import checkup

    if not checkup.check(study, is_mended=repair):
        raise typer.Exit(1)


@app.command(epilog="Example: studies delete digits")
def delete(
    study: Study,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a study: its trials, exports, report and pictures, its experiment and models in MLflow."""
    from studies import deleting

    if not deleting.delete(study, is_certain=yes):
        raise typer.Exit(1)


@app.command(epilog="Example: studies report digits --to digits-report")
def report(
    study: Study,
    to: Annotated[Path | None, typer.Option(help="Folder to write; an earlier report there is replaced.")] = None,
) -> None:
    """Write the pictures of a study: one HTML file that needs no network, and a PNG of each."""
    from studies import report as reporting
    from studies.home import open_home

    print(reporting.write_report(open_home(), study, to))


@app.command("lr-range", epilog="Example: studies lr-range digits")
def lr_range(
    spec: Annotated[str, typer.Argument(help="A bundled spec, a TOML file, or a study in the database.")],
    to: Annotated[Path | None, typer.Option(help="Folder for the picture.")] = None,
) -> None:
    """Find between which learning rates a spec's network learns: one training, the rate growing from step to step."""
    from studies import lr_range as rates

    rates.measure(spec, to)


@app.command(epilog="Example: studies compare wine --samplers grid,random,tpe --trials 32")
def compare(
    spec: Annotated[str, typer.Argument(help="A bundled spec, a TOML file, or a study in the database.")],
    samplers: Annotated[str, typer.Option(help="Some of tpe, random, grid, qmc, gp, nsga2.")] = "grid,random,tpe",
    trials: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Budget of each; the spec's without.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=31, help="Searches of each sampler, on rows of their own.")] = 1,
    to: Annotated[Path | None, typer.Option(help="Folder for the picture.")] = None,
) -> None:
    """Search one spec by several samplers on the same budget, as studies of their own, and compare them."""
    from studies import compare as comparing

    comparing.compare(comparing.Comparison(spec, samplers, trials, seeds, to))


@app.command(epilog="Example: studies ui digits")
def ui(
    study: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="Name of a study; the newest without it.")
    ] = None,
) -> None:
    """Start or find the tracking server, and print the address of a study's page."""
    from studies import ui as pages

    print(pages.page(study))


@app.command(epilog="Example: studies stop")
def stop() -> None:
    """End the tracking server of this home."""
    from studies import server
    from studies.home import open_home

    home = open_home()
    print("the tracking server has ended" if server.stop(home.root) else "no tracking server runs for this home")


def main() -> None:
    """Entry point of the console script."""
    os.umask(0o077)  # what studies write is for its user alone
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if any(not word.isprintable() for word in sys.argv[1:]):
        _fail(f"arguments must be printable text; got {sys.argv[1:]!a}", 2)
    try:
        _invoke(sys.argv[1:])
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
    except _UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except TrackingError as error:
        _fail(str(error), 1)
    except StudiesError as error:
        _fail(str(error), error.exit_code)
    except DlcoreError as error:
        _fail(str(error), 1 if isinstance(error, ExportError) else 2)
    except (MemoryError, RuntimeError, OSError) as error:
        _fail_of_machine(error)


def _invoke(words: list[str]) -> None:
    # Not app(): it would end Ctrl-C without a word, and a closed pipe as a failure.
    command = typer.main.get_command(app)
    try:
        with command.make_context("studies", words) as context:
            command.invoke(context)
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # else a reader that is gone is found out at Python's end, which complains


def _n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM ends a command as Ctrl-C does: a study's trials go back, and the same command goes on."""
    raise KeyboardInterrupt


def _fail_of_machine(error: MemoryError | RuntimeError | OSError) -> None:
    """End the command where the system refused something; anything else is a mistake of ours, and goes on."""
    if (message := lack_of_memory(error)) is not None:
        _fail(message, 1)
    if not isinstance(error, OSError):
        raise error
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its end
        sys.exit(141)
    place = f"{error.filename}: " if error.filename else ""
    _fail(f"{place}{error.strerror or error}", 1)


def _fail(message: str, exit_code: int) -> None:
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(exit_code)


def printable(message: str) -> str:
    """What a stranger's file or server says may hold control characters: a terminal must not obey them."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
