"""Our own tables, beside Optuna's in one database; `migrations` makes them.

Optuna's tables (`studies`, `trials`, ...) are the truth that every Optuna tool reads; ours (`dlcore_*`) hold what that
schema has no column for.
"""

from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, Table, Text

_metadata = MetaData()

STUDIES = Table(
    "dlcore_studies",
    _metadata,
    Column("study_id", Integer, primary_key=True),
    Column("uuid", Text),
    Column("created_at", Double),
    Column("spec_json", Text),
    Column("objectives_json", Text),
    Column("task", Text),
    Column("curve_metric", Text),
    Column("cohort_size", Integer),
    Column("n_features", Integer),
    Column("n_outputs", Integer),
    Column("data_name", Text),
    Column("data_fingerprint", Text),
    Column("environment_json", Text),
    Column("spent_s", Double),
    Column("tracking_uri", Text),
    Column("experiment_id", Text),
    Column("sha256", Text),
)
COHORTS = Table(
    "dlcore_cohorts",
    _metadata,
    Column("study_id", Integer, primary_key=True),
    Column("cohort", Integer, primary_key=True),
    Column("first_number", Integer),
    Column("n_trials", Integer),
    Column("claimed_at", Double),
)
RESULTS = Table(
    "dlcore_results",
    _metadata,
    Column("trial_id", Integer, primary_key=True),
    Column("cohort", Integer),
    Column("hyperparameters_json", Text),
    Column("n_parameters", BigInteger),
    Column("reason", Text),
    Column("best_epoch", Integer),
    Column("best_val_loss", Double),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("duration_s", Double),
    Column("samples_per_s", Double),
    Column("engine", Text),
    Column("population_size", Integer),
    Column("device", Text),
    Column("peak_memory_bytes", BigInteger),
    Column("searched_json", Text),  # NULL in a trial of version 1: its parameters in Optuna's table say the same
    Column("token", Text),
    Column("sha256", Text),
)
LEASES = Table(
    "dlcore_leases",
    _metadata,
    Column("token", Text, primary_key=True),
    Column("study_id", Integer),
    Column("cohort", Integer),
    Column("machine", Text),
    Column("host", Text),
    Column("pid", Integer),
    Column("process_started", Text),
    Column("claimer", Text),
    Column("claimed_at", Double),
    Column("expires_at", Double),
)
CURVES = Table(
    "dlcore_curves",
    _metadata,
    Column("trial_id", Integer, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("train_loss", Double),
    Column("val_loss", Double),
    Column("val_metric", Double),
    Column("learning_rate", Double),
    Column("finished_at", Double),
)
WINNERS = Table(
    "dlcore_winners",
    _metadata,
    Column("study_id", Integer, primary_key=True),
    Column("trial_id", Integer, primary_key=True),
    Column("created_at", Double),
    Column("n_finished", Integer),
    Column("val_metrics_json", Text),
    Column("test_metrics_json", Text),
    Column("export_dir", Text),
    Column("onnx_sha256", Text),
    Column("sha256", Text),
    Column("final_json", Text),  # NULL in a winner of version 3: there were no finals
)
MIGRATIONS = Table(
    "dlcore_migrations",
    _metadata,
    Column("version", Integer, primary_key=True),
    Column("applied_at", Double),
)
