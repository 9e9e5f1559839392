"""The user's TOML file -> a checked `StudySpec`; all mistakes of a spec are said in one message.

The keys of each section are in `studies.sections`, the hyperparameters in `studies.hyperparameters`, what must hold
between keys in `studies.spec_rules`. Nothing here imports torch, Optuna or MLflow: a wrong spec is answered at once.
"""

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from dlcore.config import DEFAULT_METRIC, LOWER_IS_BETTER, DataConfig, PreprocessConfig, SplitConfig, metrics_of
from studies import spec_rules
from studies.errors import SpecError
from studies.hyperparameters import (
    FIXED,
    OVERFIT_FIRST,
    RECIPES,
    RULES,
    Setting,
    choices,
    default_space,
    is_searched,
    only_value,
    plain,
    read_settings,
    table_space,
    transfer_space,
    with_cures,
    with_transfer,
)
from studies.mistakes import Mistake, from_pydantic, message, must_be_one_of, shown
from studies.records import Objective, Value
from studies.sections import (
    FRAME,
    LEARN_FROM_COMPLETE_ONLY,
    PREPROCESSING_KEYS,
    Budget,
    DataSection,
    FinalSection,
    Halving,
    ObjectiveList,
    ObjectiveSection,
    Search,
    Section,
    SplitSection,
    Training,
    TransferSection,
    one_of,
    study_name,
)

_MAX_DEPTH = 20
_MAX_BYTES = 1_000_000


_Model = TypeVar("_Model", bound=Section)


class StudySpec(ObjectiveList):
    """One study as its user wants it: checked, with every default known."""

    study: Annotated[str, AfterValidator(study_name)]
    seed: int = Field(default=0, ge=0, lt=2**63)
    budget: Budget = Budget(trials=64)
    search: Search = Search()
    data: DataSection
    training: Training = Training()
    final: FinalSection = FinalSection()
    transfer: TransferSection | None = None
    recipe: Annotated[str, one_of(RECIPES)] = "none"
    search_space: Mapping[str, Any]
    """Name -> `studies.hyperparameters.Setting`, in the order of `RULES`; the default space where the spec has none."""

    @property
    def ladder(self) -> Halving | None:
        """The rungs of halving or of a pruner; None where no trial is stopped early."""
        if self.search.pruner is not None:
            return Halving()
        if "halving" in self.search.model_fields_set:
            return self.search.halving
        is_on = self.search.sampler not in LEARN_FROM_COMPLETE_ONLY and self.training.epochs > Halving().first_rung
        return Halving() if is_on else None

    @property
    def searched(self) -> dict[str, Setting]:
        """The hyperparameters that leave something to choose, in the order of `RULES`."""
        return {name: setting for name, setting in self.search_space.items() if is_searched(setting)}

    @property
    def fixed(self) -> dict[str, Value]:
        """Values of the others; no `learning_rate` where nobody gave one, since it depends on a trial's optimizer, and
        none that is idle."""
        values: dict[str, Value] = dict(FIXED) | {"preprocess": self.data.preprocess}
        for name in [name for name in RULES if name in Training.model_fields]:
            value = getattr(self.training, name)
            values[name] = False if value is None else value
        single = {name: only_value(s) for name, s in self.search_space.items() if not is_searched(s)}
        return {
            name: value
            for name, value in (values | single).items()
            if name not in self.searched and value != RULES[name].idle
        }

    def data_config(self) -> DataConfig:
        """`[data]` as dlcore wants it."""
        values = self.data.model_dump()
        del values["preprocess"]
        values["split"] = SplitConfig(**values["split"])
        values["source"] = None if values["source"] == FRAME else values["source"]
        preprocessing = {key: values.pop(key) for key in PREPROCESSING_KEYS}
        return DataConfig(**values, preprocessing=PreprocessConfig(scaling=self.scalings[0], **preprocessing))

    @property
    def scalings(self) -> tuple[str, ...]:
        """Every value of `preprocess` that a trial may have."""
        setting = self.search_space.get("preprocess", self.data.preprocess)
        return tuple(str(name) for name in choices(setting) or ())

    def warnings(self) -> tuple[str, ...]:
        """What is allowed, and probably not wanted."""
        if self.search.sampler in LEARN_FROM_COMPLETE_ONLY and self.ladder is not None:
            stopping, cure = ("halving", "halving = false") if self.search.pruner is None else ("a pruner", "no pruner")
            return (
                f'sampler = "{self.search.sampler}" learns from finished trials only: those that {stopping} stops '
                f"teach it nothing; {cure} lets all finish",
            )
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data with every default filled in; `spec_from_dict` reads it back."""
        data: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        data["objective"] = data["objective"] or None
        ladder = None if self.search.pruner is not None else self.ladder
        data["search"]["halving"] = False if ladder is None else ladder.model_dump()
        for name in ("patience", "clip_norm"):
            data["training"][name] = data["training"][name] or False
        data["search_space"] = {name: plain(setting) for name, setting in self.search_space.items()}
        for name in self.search_space.keys() & data["training"].keys():
            del data["training"][name]  # the search space says it
        if "preprocess" in self.search_space or self.transfer is not None:
            del data["data"]["preprocess"]
        if self.transfer is None:
            del data["transfer"]
        else:
            data["training"].pop("normalization", None)
        return data


def load_spec(path: Path) -> StudySpec:
    """Read and check a spec file.

    Raises:
        SpecError: It cannot be read, is no TOML, or has mistakes: all of them.
    """
    try:
        if not path.is_file():
            raise SpecError(
                f"{path}: there is no such file; give the path of a TOML file or one of {', '.join(bundled())}"
            )
        if path.stat().st_size > _MAX_BYTES:
            raise SpecError(f"{path}: a spec may have {_MAX_BYTES} bytes at most; this file has {path.stat().st_size}")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: must be a readable UTF-8 text file; {error}") from error
    return parse_spec(text, path.name, path.parent)


def parse_spec(text: str, name_of_file: str, folder: Path | None = None) -> StudySpec:
    """Check the text of a spec.

    Args:
        text: TOML.
        name_of_file: For messages.
        folder: Where the file lies; a relative data path is sought there first, then in the working directory.
    """
    if re.search(rf"(?:[\w-]+\s*\.\s*){{{_MAX_DEPTH}}}", text):
        raise SpecError(
            f"{name_of_file}: keys must have fewer than {_MAX_DEPTH} parts"
        )  # tomllib's memory is quadratic
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number with thousands of digits
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise SpecError(f"{name_of_file}: is not valid TOML: {why}") from error
    return _checked(raw, name_of_file, folder or Path())


def spec_from_dict(data: Mapping[str, Any], name: str = "spec") -> StudySpec:
    """Check a spec that is plain data already, such as a stored one."""
    return _checked(data, name, None)


def bundled() -> tuple[str, ...]:
    """Names of the specs that come with studies."""
    folder = resources.files("studies") / "specs"
    return tuple(sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")))


def find_spec(name_or_path: str) -> Path | None:
    """The file of a bundled spec's name or of a path; None if it is neither."""
    if name_or_path in bundled():
        return Path(str(resources.files("studies") / "specs" / f"{name_or_path}.toml"))
    path = Path(name_or_path)
    return path if path.suffix == ".toml" and path.is_file() else None


def resolved_objectives(spec: StudySpec, task: str) -> tuple[Objective, ...]:
    """The objectives of a study, now that its task is known.

    Raises:
        SpecError: A metric or a hyperparameter does not fit the task.
    """
    names = [section.metric for section in spec.objectives] or [DEFAULT_METRIC[task]]
    allowed = (*metrics_of(task), "loss", "n_parameters")
    found = [
        Mistake("objective.metric", f"must fit the task, which is {task}: {must_be_one_of(name, allowed)}")
        for name in names
        if name not in allowed
    ]
    if task == "regression":
        found += spec_rules.class_rules(spec.search_space, spec.training)
    if found:
        raise SpecError(message(spec.study, found))
    return tuple(Objective(name, "minimize" if name in LOWER_IS_BETTER else "maximize") for name in names)


def cohort_size(spec: StudySpec) -> int:
    """Trials asked together: large enough for the engine, small enough that most trials learn from others."""
    if spec.search.cohort is not None:
        return spec.search.cohort
    default = max(16, (spec.budget.trials or 0) // 8)
    return min(default, spec_rules.MAX_GP_COHORT) if spec.search.sampler == "gp" else default


_KNOWN_KEYS = {
    "": [field.alias or name for name, field in StudySpec.model_fields.items()],
    "objective": list(ObjectiveSection.model_fields),
    "budget": list(Budget.model_fields),
    "search": list(Search.model_fields),
    "search.halving": list(Halving.model_fields),
    "data": list(DataSection.model_fields),
    "data.split": list(SplitSection.model_fields),
    "training": list(Training.model_fields),
    "transfer": [field.alias or name for name, field in TransferSection.model_fields.items()],
    "final": list(FinalSection.model_fields),
}


def _checked(raw: Mapping[str, Any], name_of_file: str, folder: Path | None) -> StudySpec:
    """The spec, if it has no mistake; each section is read by itself, so that one's mistake hides no other's."""
    found: list[Mistake] = []
    data = _with_absolute_path(raw.get("data", {}), folder, found)
    parts = spec_rules.Parts(
        budget=_valid(Budget, raw.get("budget", {}), "budget", found),
        search=_valid(Search, raw.get("search", {}), "search", found),
        data=_valid(DataSection, data, "data", found),
        training=(training := _valid(Training, raw.get("training", {}), "training", found)),
        final=_valid(FinalSection, raw.get("final", {}), "final", found),
        transfer=_transfer(raw.get("transfer"), folder, found),
        space=_space(raw, training, found),
        given=frozenset(raw["search_space"]) if isinstance(raw.get("search_space"), Mapping) else None,
        recipe=raw.get("recipe"),
        has_transfer=raw.get("transfer") is not None,
        objectives=_valid(ObjectiveList, {"objective": raw.get("objective")}, "", []),
    )
    # Stand-ins let the rest of the spec be read where a section is wrong; the spec is thrown away then.
    right = {
        "budget": parts.budget or Budget(trials=64),
        "search": parts.search or Search(),
        "data": parts.data or DataSection(),
        "training": parts.training or Training(),
        "final": parts.final or FinalSection(),
        "transfer": parts.transfer,
        "search_space": parts.space,
    }
    spec = _valid(StudySpec, {**raw, **right}, "", found)
    found += spec_rules.broken_rules(parts)
    if spec is None or found:
        # Wrong values first: an unknown key is often the reason why a value is missing.
        raise SpecError(message(name_of_file, sorted(found, key=lambda m: m.text.startswith("unknown key"))))
    return spec


def _valid(model: type[_Model], raw: object, key: str, found: list[Mistake]) -> _Model | None:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        found += [from_pydantic(details, key, _KNOWN_KEYS) for details in error.errors(include_url=False)]
        return None


def _transfer(raw: object, folder: Path | None, found: list[Mistake]) -> TransferSection | None:
    """`[transfer]`, its folder as `[data]` has its path."""
    if raw is None:
        return None
    given = raw.get("from") if isinstance(raw, Mapping) else None
    if isinstance(raw, Mapping) and isinstance(given, str) and given:
        places = [((folder or Path()) / given).absolute(), Path(given).absolute()]
        place = next((place for place in places if place.is_dir()), None)
        if place is None and folder is not None:
            found.append(Mistake("transfer.from", f"must be the folder of an export; there is none at {shown(given)}"))
        raw = {**raw, "from": str(place or places[-1])}
    return _valid(TransferSection, raw, "transfer", found)


def _space(raw: Mapping[str, Any], training: Training | None, found: list[Mistake]) -> dict[str, Setting]:
    """The settings that are right."""
    given = raw.get("search_space")
    if given is None:
        data = raw.get("data")
        chosen = {} if training is None else {name: getattr(training, name) for name in training.model_fields_set}
        own = data if isinstance(data, Mapping) else {}
        source = own.get("source")
        is_own = own.get("path") is not None or source == FRAME or str(source).startswith("openml:")
        if isinstance(own.get("preprocess"), str):
            chosen["preprocess"] = own["preprocess"]
        settings = table_space(chosen) if is_own else default_space(training.optimizer if training else "sgd")
        if raw.get("recipe") == OVERFIT_FIRST:
            settings = with_cures(settings, chosen)
        if raw.get("transfer") is not None:
            settings = with_transfer(settings)
    elif isinstance(given, Mapping):
        settings, mistakes = read_settings(given)
        found += mistakes
    else:
        settings = {}
        found.append(Mistake("search_space", f"must be a table; got {shown(given)}"))
    if raw.get("transfer") is not None:
        settings = {"initialization": transfer_space(0, is_grid=False)["initialization"]} | settings
    # One order for all: what a sampler proposes may depend on it.
    return {name: settings[name] for name in RULES if name in settings}


def _with_absolute_path(data: object, folder: Path | None, found: list[Mistake]) -> object:
    """`[data]` with its path absolute: from the spec's folder if the file is there, else from the working one."""
    path = data.get("path") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(path, str):
        return data
    here = Path(path)
    beside = (folder or Path()) / path
    if folder is not None and not beside.is_file() and not here.is_file():
        found.append(Mistake("data.path", f"must be a file; there is none at {shown(path)}"))
    return {**data, "path": str((beside if beside.is_file() else here).absolute())}
