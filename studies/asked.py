"""Which spec a person means at the command line."""

from pathlib import Path

from studies.errors import SpecError, UserError
from studies.spec import StudySpec, bundled, find_spec, load_spec, spec_from_dict
from studies.storage import Storage


def find_asked(spec: str | None, storage: Storage, data: str | None = None, target: str | None = None) -> StudySpec:
    """The spec that a person means: a bundled one, a file, a stored one, or one made from a table.

    Args:
        spec: The name or path of one.
        storage: Holds the stored ones.
        data: A table in place of a spec.
        target: Its target column.

    Raises:
        UserError: There is none, or too much is given.
    """
    if data is not None:
        if spec is not None:
            raise UserError("give a spec or --data, not both")
        if target is None:
            raise UserError("--data needs --target, the name of the column to predict")
        is_openml = data.startswith("openml:")
        where = {"source": data} if is_openml else {"path": str(Path(data).absolute())}
        name = data.replace(":", "-") if is_openml else Path(data).stem
        return spec_from_dict({"study": name, "data": where | {"target": target}}, data)
    if spec is None:
        raise UserError(
            f"give a spec: one of {', '.join(bundled())}, a TOML file, a stored study, or --data and --target"
        )
    path = find_spec(spec)
    if path is not None:
        return load_spec(path)
    if (facts := storage.facts(spec)) is not None:
        return spec_from_dict(facts.spec, spec)
    if spec.endswith(".toml"):
        raise SpecError(f"{spec}: there is no such file")
    stored = f"; studies in the database: {', '.join(names)}" if (names := storage.names()) else ""
    raise SpecError(f'"{spec}" must name a spec or a study; bundled specs: {", ".join(bundled())}{stored}')
