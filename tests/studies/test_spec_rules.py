"""studies.spec_rules: what must hold between the keys of a spec."""

import pytest

from studies.errors import SpecError
from studies.spec import parse_spec

ENDLESS = 'must be a list or a range with a step where sampler = "grid"'


def mistakes(sections: str, data: str = 'source = "sklearn:digits"', top: str = "") -> list[str]:
    try:
        parse_spec(f'study = "a"\n{top}\n[data]\n{data}\n{sections}', "a.toml")
    except SpecError as error:
        return [" ".join(line.split()) for line in str(error).splitlines()[1:]]
    return []


@pytest.mark.parametrize(
    ("objective", "mistake"),
    [
        ('["loss", "loss"]', 'objective.metric must name each metric once; got "loss" twice'),
        (
            '{metric = "accuracy", direction = "minimize"}',
            'objective.direction must be "maximize" for accuracy; got "minimize"',
        ),
        (
            '{metric = "rmse", direction = "maximize"}',
            'objective.direction must be "minimize" for rmse; got "maximize"',
        ),
        (
            '"n_parameters"',
            "objective.metric must be something that training changes; n_parameters can only be a second",
        ),
    ],
)
def test_objectives_make_sense_together(objective: str, mistake: str) -> None:
    assert mistakes("", top=f"objective = {objective}") == [mistake]


@pytest.mark.parametrize(
    ("data", "mistake"),
    [
        ("", 'data must have one of source (such as "sklearn:digits") and path (a CSV file); got neither'),
        (
            'source = "sklearn:iris"\ntarget = "x"',
            'data.target only goes with path: sklearn:iris has its own; got ["x"]',
        ),
        (
            'source = "sklearn:iris"\nval_fraction = 0.5\ntest_fraction = 0.5',
            "data.test_fraction must leave rows to train on: val_fraction + test_fraction must be < 1; got 0.5 + 0.5",
        ),
        (
            'source = "sklearn:iris"\ntest_fraction = 0.0',
            "final.baselines must be false where data.test_fraction = 0: test is where models are compared",
        ),
        ('source = "frame"', "data.target is required with a frame: the column, or list of columns, to predict"),
        (
            'source = "sklearn:iris"\nkinds = {x = "date"}\nsplit = {folds = 3}',
            "data.kinds names columns of tables of your own, not of sklearn:iris",
        ),
        (
            'source = "sklearn:iris"\nsplit = {group = "x", folds = 3}',
            "data.split names columns of tables of your own, not of sklearn:iris",
        ),
        (
            'source = "openml:61"\nsplit = {group = "x", column = "z"}',
            "data.split must have one of column, group and time; got column and group",
        ),
        (
            'source = "openml:61"\nsplit = {time = "x", folds = 3}',
            "data.split.folds cannot go with time: a fold would learn from what comes later",
        ),
        (
            'source = "openml:61"\ntarget = "x"\nsplit = {group = "x"}',
            'data.split.group must be neither a target nor dropped; got "x"',
        ),
        (
            'source = "openml:61"\ntarget = "x"\ndrop = "z"\nkinds = {x = "date", z = "date", a = "numeric"}',
            'data.kinds must name features; ["x", "z"] are targets or dropped: task says what a target is',
        ),
        (
            'source = "openml:61"\nkinds = {x = "dates"}',
            "data.kinds.x must be one of numeric, boolean, categorical, date, "
            'identifier, constant; got "dates"; did you mean "date"?',
        ),
        ('source = "openml:61"\nsplit = {fold = 3}', 'data.split.fold unknown key; did you mean "folds"?'),
        ('source = "openml:61"\nsplit = {folds = 1}', "data.split.folds must be >= 2; got 1"),
        (
            'source = "openml:x"',
            "data.source must be one of sklearn:digits, sklearn:breast_cancer, sklearn:wine, "
            'sklearn:iris, sklearn:diabetes, openml:ID; got "openml:x"; did you mean "openml:ID"?',
        ),
        (
            'path = "{csv}"\n',
            "data.target is required with path: the column, or list of columns, to predict",
        ),
        (
            'path = "{csv}"\nsource = "sklearn:iris"',
            'data must have one of source (such as "sklearn:digits") and path (a CSV file); got both',
        ),
        ('path = "{csv}"\ntarget = ["y", "z"]\ndrop = "z"', 'data.drop must not hold a target; got ["z"]'),
        (
            'path = "{csv}"\ntarget = ["y", "z"]\ntask = "binary"',
            'data.target must be one column where task is binary; got ["y", "z"]',
        ),
    ],
)
def test_the_data_section_names_one_table_and_its_target(data: str, mistake: str, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    csv = tmp_path_factory.mktemp("data") / "t.csv"
    csv.touch()

    assert mistakes("", data=data.replace("{csv}", str(csv))) == [mistake]


@pytest.mark.parametrize(
    ("search", "mistake"),
    [
        (
            'pruner = "median"\nhalving = {first_rung = 5}',
            'search.pruner cannot go with halving: leave one of them out; got "median"',
        ),
        (
            'pruner = "threshold"',
            "search.pruner threshold needs prune_below or prune_above: the value at which a trial is stopped",
        ),
        ('pruner = "median"\nprune_above = 3.0', 'search.prune_above only goes with pruner = "threshold"'),
        ("prune_below = 3.0", 'search.prune_below only goes with pruner = "threshold"'),
        ('sampler = "gp"\ncohort = 9', 'search.cohort must be <= 8 with sampler = "gp"; got 9'),
        (
            'sampler = "nsga2"\ncohort = 1',
            'search.cohort must be >= 2 with sampler = "nsga2": a child has two parents; got 1',
        ),
        (
            "halving = { first_rung = 40 }",
            "search.halving.first_rung must be < training.epochs = 40, or nobody is halved; got 40",
        ),
        (
            'sampler = "grid"',
            'search_space is required with sampler = "grid": lists, or ranges with a step',
        ),
    ],
)
def test_the_search_section_agrees_with_itself(search: str, mistake: str) -> None:
    assert mistakes(f"[search]\n{search}") == [mistake]


@pytest.mark.parametrize(
    "search",
    [
        'pruner = "threshold"\nprune_below = 0.3',
        'pruner = "median"\nhalving = false',
        'sampler = "gp"\ncohort = 8',
        'sampler = "nsga2"\ncohort = 2',
        "halving = { first_rung = 39 }",
    ],
)
def test_the_edge_of_each_rule_is_allowed(search: str) -> None:
    assert mistakes(f"[search]\n{search}") == []


def test_a_warmup_is_no_longer_than_the_training() -> None:
    assert mistakes("[training]\nwarmup_epochs = 40") == []
    assert mistakes("[training]\nwarmup_epochs = 41") == ["training.warmup_epochs must be <= epochs = 40; got 41"]
    assert mistakes("[search_space]\nwarmup_epochs = [0, 41]") == [
        "search_space.warmup_epochs must be <= training.epochs = 40; got 41"
    ]
    assert mistakes("[search_space]\nwarmup_epochs = {low = 0, high = 41}") == [
        "search_space.warmup_epochs must be <= training.epochs = 40; got 41"
    ]


def test_a_key_is_searched_or_fixed_not_both() -> None:
    assert mistakes("[training]\ndropout = 0.0\n[search_space]\ndropout = [0.0, 0.5]") == [
        "search_space.dropout is in [training] too, as 0.0: leave one of them out"
    ]


@pytest.mark.parametrize(
    ("space", "mistake"),
    [
        ("slope = [0.1, 0.2]", "search_space.slope has no meaning where activation is never leaky_relu"),
        (
            'slope = [0.1, 0.2]\nactivation = ["relu", "elu"]',
            "search_space.slope has no meaning where activation is never leaky_relu",
        ),
        (
            'momentum = [0.1, 0.2]\noptimizer = "adamw"',
            "search_space.momentum has no meaning where optimizer is never sgd",
        ),
        (
            'nesterov = true\noptimizer = "adamw"\nwidth = [1, 2]',
            "search_space.nesterov has no meaning where optimizer is never sgd",
        ),
    ],
)
def test_a_conditional_hyperparameter_needs_its_condition(space: str, mistake: str) -> None:
    assert mistakes(f"[search_space]\n{space}") == [mistake]


def test_a_condition_in_the_training_section_counts() -> None:
    assert mistakes('[training]\noptimizer = "adamw"\n[search_space]\nmomentum = [0.1, 0.2]') == [
        "search_space.momentum has no meaning where optimizer is never sgd"
    ]
    assert mistakes('[search_space]\nslope = [0.1, 0.2]\nactivation = ["relu", "leaky_relu"]') == []


@pytest.mark.parametrize("depth", ["depth = 1", "depth = [0, 1]", "depth = {low = 0, high = 1}"])
def test_a_funnel_needs_a_second_layer(depth: str) -> None:
    assert mistakes(f"[search_space]\nfunnel = [0.5, 1.0]\n{depth}") == [
        "search_space.funnel has no meaning where depth is never above 1"
    ]


@pytest.mark.parametrize("depth", ["", "depth = [1, 2]", "depth = {low = 0, high = 4}"])
def test_a_funnel_goes_with_any_depth_that_may_be_above_one(depth: str) -> None:
    assert mistakes(f"[search_space]\nfunnel = [0.5, 1.0]\n{depth}") == []


def test_a_wrong_condition_is_the_only_mistake() -> None:
    (mistake,) = mistakes('[search_space]\nslope = [0.1, 0.2]\nactivation = "leaky"')

    assert mistake.startswith("search_space.activation must be one of")


@pytest.mark.parametrize(
    "space", ["", "width = 8", "width = [8]", "width = {low = 8, high = 8}", "dropout = {low = 0.5, high = 0.5}"]
)
def test_something_is_left_to_choose(space: str) -> None:
    assert mistakes(f"[search_space]\n{space}") == [
        "search_space must leave at least one hyperparameter to choose: give a range or a list"
    ]


@pytest.mark.parametrize(
    ("space", "found"),
    [
        ("width = {low = 1, high = 64}", []),
        ("dropout = {low = 0.0, high = 0.5, step = 0.1}", []),
        ("width = {low = 1, high = 65}", [f"search_space.width {ENDLESS}"]),
        ("dropout = {low = 0.0, high = 0.5}", [f"search_space.dropout {ENDLESS}"]),
        ("width = [1, 2]\ndropout = {low = 0.5, high = 0.5}", []),
        (
            "width = {low = 1, high = 1000, step = 1}\ndropout = {low = 0.0, high = 0.5, step = 0.001}",
            ["search_space must have <= 100000 points as a grid; got up to 501000"],
        ),
    ],
)  # fmt: skip
def test_a_grid_has_an_end(space: str, found: list[str]) -> None:
    assert mistakes(f'[search]\nsampler = "grid"\n[search_space]\n{space}') == found


@pytest.mark.parametrize(
    ("section", "mistake"),
    [
        ("seeds = 1", "final.seeds must be >= 2, or 0 for no finals: one seed has no interval; got 1"),
        (
            "seeds = 0\nensemble = true",
            "final.ensemble needs finals: their networks are what it is made of; final.seeds is 0",
        ),
        ("seeds = 32", "final.seeds must be <= 31; got 32"),
        ("candidates = 0", "final.candidates must be >= 1; got 0"),
        ('ensemble = "gredy"', 'final.ensemble must be true, false or "greedy"; got "gredy"'),
        ("ensemble = 1", 'final.ensemble must be true, false or "greedy"; got 1'),
        ("baseline = true", 'final.baseline unknown key; did you mean "baselines"?'),
    ],
)
def test_what_finals_can_be(section: str, mistake: str) -> None:
    assert mistakes(f"[final]\n{section}") == [mistake]
