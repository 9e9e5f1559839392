"""studies.spec: what a spec says, and every way in which it can be wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcore.config import PreprocessConfig
from studies.errors import SpecError
from studies.hyperparameters import Range, default_space
from studies.records import Objective
from studies.sections import Halving
from studies.spec import (
    StudySpec,
    bundled,
    cohort_size,
    find_spec,
    load_spec,
    parse_spec,
    resolved_objectives,
    spec_from_dict,
)

THREE_LINES = 'study = "a"\n[data]\nsource = "sklearn:digits"\n'


def parsed(more: str = "", top: str = "") -> StudySpec:
    return parse_spec(f'study = "a"\n{top}\n[data]\nsource = "sklearn:digits"\n{more}', "a.toml")


def mistakes_of(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "a.toml")
    heading, *lines = str(caught.value).splitlines()
    assert heading == f"a.toml: {len(lines)} mistake{'s' if len(lines) > 1 else ''}"
    return [" ".join(line.split()) for line in lines]


def wrong(more: str = "", top: str = "") -> str:
    """The only mistake of a spec."""
    (mistake,) = mistakes_of(f'study = "a"\n{top}\n[data]\nsource = "sklearn:digits"\n{more}')
    return mistake


# What is read


def test_three_lines_are_a_whole_spec() -> None:
    spec = parse_spec(THREE_LINES, "a.toml")

    assert (spec.study, spec.seed, spec.budget.trials, spec.search.sampler) == ("a", 0, 64, "tpe")
    assert (spec.training.epochs, spec.training.batch_size, spec.training.patience) == (40, 128, 16)
    assert spec.ladder == Halving(first_rung=5, reduction_factor=3)
    assert list(spec.searched) == ["depth", "width", "activation", "initialization", "learning_rate", "momentum"]


def test_a_search_space_searches_what_it_names_and_fixes_the_rest() -> None:
    spec = parsed(
        "[training]\ndropout = 0.25\n[search_space]\nwidth = [32, 64]\nactivation = 'gelu'\ndepth = {low=3,high=3}"
    )

    assert spec.searched == {"width": (32, 64)}
    assert spec.fixed == {
        "depth": 3,
        "funnel": 1.0,
        "activation": "gelu",
        "slope": 0.01,
        "initialization": "default",
        "dropout": 0.25,
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0,
        "batch_size": 128,
        "schedule": "constant",
        "warmup_epochs": 0,
        "clip_norm": False,
        "preprocess": "standard",
    }


def test_without_a_search_space_adamw_gets_smaller_learning_rates_and_no_momentum() -> None:
    spec = parsed('[training]\noptimizer = "adamw"')

    assert "momentum" not in spec.searched
    assert spec.searched["learning_rate"] == Range(1e-4, 3e-2, log=True)


def test_false_turns_patience_clipping_and_halving_off() -> None:
    spec = parsed("[training]\npatience = false\nclip_norm = false\n[search]\nhalving = false")

    assert spec.training.patience is None
    assert spec.training.clip_norm is None
    assert spec.ladder is None


@pytest.mark.parametrize(
    ("search", "ladder"),
    [
        ('sampler = "random"', Halving()),
        ('sampler = "qmc"', Halving()),
        ('sampler = "gp"', None),
        ('sampler = "nsga2"', None),
        ('sampler = "gp"\nhalving = { first_rung = 4 }', Halving(first_rung=4)),
        ('pruner = "median"', Halving()),
        ('pruner = "median"\nhalving = false', Halving()),
        ('sampler = "gp"\npruner = "median"', Halving()),
        ("halving = { first_rung = 2, reduction_factor = 4 }", Halving(first_rung=2, reduction_factor=4)),
    ],
)
def test_the_ladder_is_the_users_or_the_samplers(search: str, ladder: Halving | None) -> None:
    assert parsed(f"[search]\n{search}").ladder == ladder


def test_a_training_too_short_for_a_rung_is_not_halved() -> None:
    assert parsed("[training]\nepochs = 5").ladder is None
    assert parsed("[training]\nepochs = 6").ladder == Halving()


def test_only_a_sampler_that_learns_from_finished_trials_warns_of_halving() -> None:
    assert parsed().warnings() == ()
    assert parsed('[search]\nsampler = "gp"').warnings() == ()
    [halved] = parsed('[search]\nsampler = "gp"\nhalving = { first_rung = 5 }').warnings()
    assert '"gp"' in halved and halved.endswith("halving stops teach it nothing; halving = false lets all finish")
    [pruned] = parsed('[search]\nsampler = "nsga2"\npruner = "median"').warnings()
    assert '"nsga2"' in pruned and pruned.endswith("a pruner stops teach it nothing; no pruner lets all finish")


def test_a_csv_is_sought_beside_the_spec_first_and_then_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, working = tmp_path / "specs", tmp_path / "working"
    for folder in (beside, working):
        folder.mkdir()
        (folder / "both.csv").touch()
    (working / "one.csv").touch()
    monkeypatch.chdir(working)

    def path_of(name: str) -> str | None:
        (beside / "a.toml").write_text(f'study = "a"\n[data]\npath = "{name}"\ntarget = "y"')
        return load_spec(beside / "a.toml").data.path

    assert path_of("both.csv") == str(beside / "both.csv")
    assert path_of("one.csv") == str(working / "one.csv")
    with pytest.raises(SpecError, match=r'data\.path +must be a file; there is none at "none\.csv"'):
        path_of("none.csv")


def test_the_data_section_becomes_dlcores_config(tmp_path: Path) -> None:
    (tmp_path / "t.csv").touch()
    (tmp_path / "a.toml").write_text(
        'study = "a"\n[data]\npath = "t.csv"\ntarget = ["y", "z"]\ndrop = ["id"]\n'
        'task = "regression"\ntest_fraction = 0.1'
    )
    config = load_spec(tmp_path / "a.toml").data_config()

    assert (config.path, config.target, config.drop) == (str(tmp_path / "t.csv"), ("y", "z"), ("id",))
    assert (config.task, config.val_fraction, config.test_fraction) == ("regression", 0.2, 0.1)


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf" + THREE_LINES.encode())

    assert load_spec(tmp_path / "a.toml").study == "a"


# Plain data and back

SPECS = {
    "default": THREE_LINES,
    "off": THREE_LINES + "[search]\nhalving = false\n[training]\npatience = false\nclip_norm = false",
    "on": THREE_LINES + "[search]\nhalving = {first_rung = 3}\ncohort = 8\n[training]\nclip_norm = 1.5",
    "short": THREE_LINES + "[training]\nepochs = 3",
    "pruner": THREE_LINES + '[search]\npruner = "threshold"\nprune_below = 0.5',
    "gp": THREE_LINES + '[search]\nsampler = "gp"',
    "objectives": 'objective = ["accuracy", {metric = "n_parameters"}]\n' + THREE_LINES,
    "searched training": THREE_LINES
    + "[search_space]\nbatch_size = [32, 64]\nclip_norm = [false, 1.0]\nnesterov = [true, false]\nmomentum = 0.5",
    "grid": THREE_LINES + '[search]\nsampler = "grid"\n[search_space]\ndropout = {low = 0.1, high = 0.45, step = 0.1}',
}


@pytest.mark.parametrize("text", SPECS.values(), ids=SPECS)
def test_a_spec_survives_json(text: str) -> None:
    spec = parse_spec(text, "a.toml")
    data = json.loads(json.dumps(spec.to_dict(), allow_nan=False))
    again = spec_from_dict(data)

    assert again.to_dict() == spec.to_dict() == data
    assert (again.fixed, again.searched, again.ladder) == (spec.fixed, spec.searched, spec.ladder)
    assert list(again.searched) == list(spec.searched)
    assert (again.training, again.objectives) == (spec.training, spec.objectives)


def test_every_default_is_filled_in() -> None:
    data = parse_spec(THREE_LINES, "a.toml").to_dict()

    assert data["search"]["halving"] == {"first_rung": 5, "reduction_factor": 3}
    assert data["training"]["patience"] == 16
    assert data["search_space"]["width"] == {"low": 16, "high": 256, "log": True, "step": None}


# Objectives and cohorts


def test_the_default_objective_is_the_tasks() -> None:
    spec = parse_spec(THREE_LINES, "a.toml")

    assert resolved_objectives(spec, "multiclass") == (Objective("accuracy", "maximize"),)
    assert resolved_objectives(spec, "regression") == (Objective("rmse", "minimize"),)


@pytest.mark.parametrize(
    "text", ['"log_loss"', '["log_loss"]', '{metric = "log_loss"}', '[{metric = "log_loss", direction = "minimize"}]']
)
def test_an_objective_is_a_name_a_table_or_a_list(text: str) -> None:
    assert resolved_objectives(parsed(top=f"objective = {text}"), "binary") == (Objective("log_loss", "minimize"),)


def test_several_objectives_keep_their_order() -> None:
    spec = parsed(top='objective = ["accuracy", "n_parameters"]')

    assert resolved_objectives(spec, "binary") == (
        Objective("accuracy", "maximize"),
        Objective("n_parameters", "minimize"),
    )


def test_a_metric_must_fit_the_task() -> None:
    with pytest.raises(
        SpecError, match=r"objective\.metric +must fit the task, which is regression: .*rmse.*got \"accuracy\""
    ):
        resolved_objectives(parsed(top='objective = "accuracy"'), "regression")


def test_a_budget_of_seconds_alone_has_no_limit_of_trials() -> None:
    spec = parsed("[budget]\nseconds = 5")
    assert (spec.budget.trials, spec.budget.seconds) == (None, 5)
    assert spec_from_dict(spec.to_dict()).budget == spec.budget
    assert cohort_size(spec) == 16


@pytest.mark.parametrize(
    ("search", "trials", "size"),
    [("", 64, 16), ("", 1, 16), ("", 1000, 125), ("cohort = 3", 1000, 3), ('sampler = "gp"', 1000, 8)],
)
def test_the_cohort_grows_with_the_budget_unless_it_is_set(search: str, trials: int, size: int) -> None:
    assert cohort_size(parsed(f"[search]\n{search}\n[budget]\ntrials = {trials}")) == size


# Mistakes


def test_the_designs_example_is_answered_word_for_word(tmp_path: Path) -> None:
    path = tmp_path / "wine.toml"
    path.write_text(
        'study = "wine"\nbudget = { trails = 64 }\n[data]\nsource = "sklearn:wine"\n'
        "[search_space]\nlearning_rate = { low = 0.0, high = 1.0, log = true }"
    )
    with pytest.raises(SpecError) as caught:
        load_spec(path)

    assert str(caught.value) == (
        "wine.toml: 2 mistakes\n"
        "  search_space.learning_rate.low   must be > 0 when log = true; got 0.0\n"
        '  budget.trails                    unknown key; did you mean "trials"?'
    )


def test_mistakes_in_one_section_hide_none_in_another() -> None:
    found = mistakes_of(
        'study = "a/b"\nobjective = "acuracy"\nseed = -1\n[budget]\ntrials = 0\n[data]\nsource = "sklearn:digts"\n'
        '[search]\nsampler = "tp"\nhalving = true\n[training]\nepochs = "40"\nbatch_size = 8\n'
        "[search_space]\nbatch_size = [8, 0]\nwidht = 3"
    )
    keys = [line.split()[0] for line in found]

    assert set(keys) == {
        *("study", "objective.metric", "seed", "budget.trials", "data.source", "search.sampler", "search.halving"),
        *("training.epochs", "search_space.batch_size", "search_space.widht"),
    }


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a..b", "-a", "a b", "ä", "a\\n", "x" * 101, "a'b", "a;b"])
def test_a_study_name_needs_no_quoting_anywhere(name: str) -> None:
    (mistake,) = mistakes_of(f'study = "{name}"\n[data]\nsource = "sklearn:digits"')

    assert mistake.startswith("study must be 1 to 100")


@pytest.mark.parametrize("name", ["a", "A.b-c_d", "0", "x" * 100])
def test_ordinary_study_names_are_fine(name: str) -> None:
    assert parse_spec(f'study = "{name}"\n[data]\nsource = "sklearn:digits"', "a.toml").study == name


@pytest.mark.parametrize(
    ("top", "mistake"),
    [
        ("seed = 9223372036854775808", "seed must be < 9223372036854775808; got 9223372036854775808"),
        ("seed = 1.0", "seed must be a whole number; got 1.0"),
        ("seed = true", "seed must be a whole number; got true"),
        ("sed = 1", 'sed unknown key; did you mean "seed"?'),
        ("budget = 3", "budget must be a table; got 3"),
        ("budget = { seconds = inf }", "budget.seconds must be finite; got inf"),
        ("objective = 3", "objective must be a table; got 3"),
        ('objective = { metrc = "loss", metric = "loss" }', 'objective.metrc unknown key; did you mean "metric"?'),
        ('objective = { direction = "minimize" }', "objective.metric is required"),
        ("search_space = 3", "search_space must be a table; got 3"),
        (
            "search = { halving = { first_run = 3 } }",
            'search.halving.first_run unknown key; did you mean "first_rung"?',
        ),
        (
            'search = { pruner = "medain" }',
            "search.pruner must be one of median, percentile, patient, threshold, hyperband; "
            'got "medain"; did you mean "median"?',
        ),
        ("training = { epochs = 0 }", "training.epochs must be >= 1; got 0"),
        ("training = { dropout = 1.0 }", "training.dropout must be <= 0.99; got 1.0"),
        ("training = { patience = 0 }", "training.patience must be >= 1; got 0"),
        ("training = { clip_norm = 0.0 }", "training.clip_norm must be > 0; got 0.0"),
        (
            'training = { device = "gpu" }',
            'training.device must be one of auto, cpu, cuda, mps; got "gpu"; did you mean "cpu"?',
        ),
    ],
)
def test_each_wrong_key_is_named_with_its_rule_and_value(top: str, mistake: str) -> None:
    assert wrong(top=top) == mistake


def test_a_spec_without_study_or_data_says_what_is_missing() -> None:
    assert mistakes_of("") == [
        "study is required",
        'data must have one of source (such as "sklearn:digits") and path (a CSV file); got neither',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('study = "a"\n[data', r"a\.toml: is not valid TOML: .*\(at end of document\)"),
        ('study = "a"\nx ==', r"a\.toml: is not valid TOML: .*line 2"),
        ("a = " + "[" * 10_000, r"a\.toml: is not valid TOML: nested too deeply"),
        ("a = " + "1" * 10_000, r"a\.toml: is not valid TOML: .*4300"),
    ],
)
def test_what_is_no_toml_names_the_file_and_the_place(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_spec(text, "a.toml")


def test_a_file_that_cannot_be_read_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'study = "\xe4"')
    (tmp_path / "large.toml").write_bytes(b"#" * 1_000_001)

    with pytest.raises(SpecError, match="there is no such file"):
        load_spec(tmp_path / "none.toml")
    with pytest.raises(SpecError, match="there is no such file"):
        load_spec(tmp_path)
    with pytest.raises(SpecError, match=r"latin\.toml: must be a readable UTF-8 text file"):
        load_spec(tmp_path / "latin.toml")
    with pytest.raises(SpecError, match=r"large\.toml: .*1000000 bytes at most; this file has 1000001"):
        load_spec(tmp_path / "large.toml")


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([10**400])
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["low", "high", "log", "step", "metric", "first_rung", "x"]), inner, max_size=4
        )
    ),
    max_leaves=6,
)
_KEYS = (
    "sampler halving pruner cohort trials seconds source path target epochs patience clip_norm batch_size "
    "width depth learning_rate optimizer momentum warmup_epochs from fingerprint n_frozen backbone_rate"
)
_SECTION = st.dictionaries(st.sampled_from(_KEYS.split()), _ANYTHING, max_size=4)


@given(
    st.dictionaries(
        st.sampled_from(
            ["study", "seed", "objective", "budget", "search", "data", "training", "transfer", "search_space", "x"]
        ),
        _ANYTHING | _SECTION,
    )
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_given_a_spec_or_a_spec_error_comes_back(data: dict[str, object]) -> None:
    try:
        spec_from_dict(data)
    except SpecError as error:
        assert "mistake" in str(error)


# Bundled specs


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes", "digits", "wine"])
def test_the_bundled_specs_are_right_and_named_like_their_files(name: str) -> None:
    path = find_spec(name)

    assert path is not None
    spec = load_spec(path)
    assert spec.study == name
    assert spec.warnings() == ()
    assert name in bundled()


def test_the_default_study_has_256_trials_in_cohorts_of_32() -> None:
    path = find_spec("digits")
    assert path is not None
    spec = load_spec(path)

    assert (spec.budget.trials, cohort_size(spec)) == (256, 32)


def test_a_spec_is_found_by_name_or_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(THREE_LINES)

    assert find_spec("mine.toml") == Path("mine.toml")
    assert find_spec(str(tmp_path / "mine.toml")) == tmp_path / "mine.toml"
    assert find_spec("mine") is None
    assert find_spec("none.toml") is None
    assert find_spec("../studies/spec") is None


def test_checking_a_spec_imports_neither_torch_nor_optuna_nor_mlflow() -> None:
    code = (
        "import sys; from studies.spec import find_spec, load_spec; load_spec(find_spec('digits')); "
        "print({'torch', 'optuna', 'mlflow', 'pandas'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_how_numbers_are_scaled_is_searched_or_a_key_of_data() -> None:
    searched = parsed("[search_space]\npreprocess = ['quantile_normal', 'robust']")
    assert searched.scalings == ("quantile_normal", "robust") and "preprocess" not in searched.fixed
    assert searched.data_config().preprocessing.scaling == "quantile_normal"
    assert spec_from_dict(searched.to_dict()).to_dict() == searched.to_dict()
    for text in ("[search_space]\npreprocess = 'robust'\ndepth = [1, 2]", "preprocess = 'robust'"):
        fixed = parsed(text)
        assert fixed.scalings == ("robust",) and fixed.fixed["preprocess"] == "robust"
        assert fixed.data_config().preprocessing.scaling == "robust"
        assert spec_from_dict(fixed.to_dict()).to_dict() == fixed.to_dict()


def test_how_numbers_are_scaled_is_said_once() -> None:
    with pytest.raises(SpecError, match=r"search_space\.preprocess\s+is in \[data\] too, as \"robust\": leave one"):
        parsed("preprocess = 'robust'\n[search_space]\npreprocess = ['standard', 'robust']")


def test_what_becomes_of_columns_goes_to_dlcore() -> None:
    spec = parsed("missing_indicators = false\nmax_categories = 7\ntarget_transform = 'log'")
    assert spec.data_config().preprocessing == PreprocessConfig(
        missing_indicators=False, max_categories=7, target_transform="log"
    )


def test_a_table_of_ones_own_is_searched_more_widely_and_what_training_fixes_is_not(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    start = 'study = "t"\n[data]\npath = "t.csv"\ntarget = "b"\n'
    whole = parse_spec(start, "t.toml", tmp_path)
    assert {"dropout", "weight_decay"} < set(whole.searched) and whole.fixed["optimizer"] == "adamw"
    assert spec_from_dict(whole.to_dict()).to_dict() == whole.to_dict()
    fixed = parse_spec(f'{start}[training]\noptimizer = "sgd"\ndropout = 0.1\n', "t.toml", tmp_path)
    assert not {"optimizer", "dropout"} & set(fixed.searched) and "momentum" in fixed.searched
    assert fixed.fixed["optimizer"] == "sgd" and fixed.fixed["dropout"] == 0.1
    assert fixed.search_space["learning_rate"] == default_space("sgd")["learning_rate"]
    assert spec_from_dict(fixed.to_dict()).to_dict() == fixed.to_dict()
    scaled = parse_spec(f'{start}preprocess = "robust"\n', "t.toml", tmp_path)
    assert whole.scalings == ("standard", "quantile_normal") and scaled.scalings == ("robust",)
    assert spec_from_dict(scaled.to_dict()).to_dict() == scaled.to_dict()
    openml = parse_spec('study = "o"\n[data]\nsource = "openml:61"\n', "o.toml")
    assert openml.search_space == whole.search_space
    bundled_set = parse_spec('study = "d"\n[data]\nsource = "sklearn:digits"\n', "d.toml")
    assert set(bundled_set.search_space) == set(default_space("sgd"))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "class_weights", '"balanced"'),
        ("search_space", "class_weights", '["none", "balanced"]'),
        ("training", "label_smoothing", "0.1"),
        ("search_space", "label_smoothing", "{ low = 0.0, high = 0.2 }"),
    ],
)
def test_what_is_of_classes_alone_is_refused_where_the_task_is_a_regression(section: str, key: str, value: str) -> None:
    spec = parsed(f"[{section}]\n{key} = {value}")
    assert resolved_objectives(spec, "multiclass")
    with pytest.raises(SpecError, match=rf"{section}\.{key} +has no meaning in a regression, which has no classes"):
        resolved_objectives(spec, "regression")
    assert resolved_objectives(parsed('[training]\nclass_weights = "none"\nlabel_smoothing = 0.0'), "regression")
