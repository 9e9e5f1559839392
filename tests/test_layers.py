"""The doors: which module may import which library. (Floors are import-linter's contracts in pyproject.toml.)"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

DOORS = {
    "optuna": {
        "space",
        "cohort_tpe",
        "parzen",
        "history",
        "sampler",
        "pruner",
        "search",
        "storage",
        "trials",
        "rows",
        "schema",
        "catalogue",
        "optuna_storage",
        "inspection",
        "mending",
        "api",
        "dashboard",
        "importance",
    },
    "sqlalchemy": {
        "dashboard",
        "database",
        "tables",
        "migrations",
        "storage",
        "trials",
        "rows",
        "schema",
        "catalogue",
        "leases",
        "optuna_storage",
        "seals",
        "inspection",
        "integrity",
        "mending",
        "restoring",
        # These two write MLflow's own tables; everything else of the mirror is free of SQL.
        "mlflow_sql",
        "mlflow_tables",
    },
    "mlflow": {"registry", "served_model", "best"},
    "torch": {"cohort", "networks"},
    "onnx": set(),
    "onnxruntime": {"served_model", "registry"},
    "typer": {"cli"},
    "IPython": {"notebook"},
    "rich": {"display", "live", "overview"},
    "optuna_dashboard": {"dashboard"},
    "jinja2": {"report"},
    "plotly": set(),
    "matplotlib": {"drawing", "canvas", "sweep_drawing"},
}
DLCORE_MAY_IMPORT = {"torch", "numpy", "pandas", "sklearn", "safetensors", "onnx", "onnxruntime", "dlcore"}
DLCORE_MAY_IMPORT |= {"threadpoolctl", "pyarrow"}  # the first comes with scikit-learn; the other only reads Parquet


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("library", DOORS)
def test_only_doors_import_a_library(library: str) -> None:
    importers = {path.stem for path in (ROOT / "studies").glob("*.py") if library in imported(path)}
    assert importers <= DOORS[library]


def test_dlcore_imports_what_a_bare_training_machine_has() -> None:
    standard = sys.stdlib_module_names
    for path in (ROOT / "dlcore").glob("*.py"):
        assert imported(path) - standard <= DLCORE_MAY_IMPORT, path


def test_packages_say_one_sentence_and_import_nothing() -> None:
    for package in ("dlcore", "studies"):
        (only,) = ast.parse((ROOT / package / "__init__.py").read_text()).body
        assert isinstance(only, ast.Expr)


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list"], ["stop"]])
def test_commands_that_train_nothing_import_neither_torch_nor_mlflow(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom studies.cli import main\nsys.argv[0] = 'studies'\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('HEAVY', sorted({'torch', 'mlflow', 'sklearn', 'optuna'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True, text=True, check=True, env={"STUDIES_HOME": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    allowed = ["optuna"] if words == ["list"] else []  # the study database is Optuna's schema
    assert answer.stdout.splitlines()[-1] == f"HEAVY {allowed}"
