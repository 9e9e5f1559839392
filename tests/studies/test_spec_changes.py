"""studies.spec_changes: what of a stored study's spec may be another one; `test_runner` holds the refusal."""

from typing import Any

from studies.spec import StudySpec, parse_spec
from studies.spec_changes import differences


def parsed(more: str = "") -> StudySpec:
    return parse_spec(f'study = "a"\n[data]\nsource = "sklearn:digits"\n{more}', "a.toml")


def test_a_budget_may_differ_and_a_cohort_that_the_new_spec_leaves_open() -> None:
    stored = parsed("[search]\ncohort = 8").to_dict()

    assert differences(stored, parsed("[budget]\ntrials = 200\nseconds = 5").to_dict()) == []
    assert differences(stored, parsed("[search]\ncohort = 9").to_dict()) == ["search.cohort: 8 -> 9"]


def test_differences_name_the_key_and_both_values() -> None:
    stored = parsed("[search_space]\nwidth = {low = 16, high = 256}\ndepth = [1, 2]").to_dict()
    new = parsed(
        "[search_space]\nwidth = {low = 16, high = 512}\nslope = 0.1\nactivation = ['relu', 'leaky_relu']"
    ).to_dict()

    assert differences(stored, new) == [
        "search_space.width.high: 256 -> 512",
        'search_space.activation: absent -> ["relu", "leaky_relu"]',
        "search_space.slope: absent -> 0.1",
        "search_space.depth: [1, 2] -> absent",
    ]
    assert differences(stored, parsed("[search_space]\nwidth = 3\ndepth = [1, 2]").to_dict())[0] == (
        "search_space.width: absent -> 3"
    )


def test_a_source_may_lie_elsewhere_if_it_is_the_same_network() -> None:
    def of(place: str, fingerprint: str | None) -> dict[str, Any]:
        return {"transfer": {"from": place, "fingerprint": fingerprint}}

    assert differences(of("/a", "f0"), of("/b", "f0")) == []
    assert differences(of("/a", "f0"), of("/a", "f1")) == ['transfer.fingerprint: "f0" -> "f1"']
    assert differences(of("/a", None), of("/b", None)) == ['transfer.from: "/a" -> "/b"']
