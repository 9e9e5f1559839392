"""What the OpenAPI page of a running `studies serve` allows, and what it does not, as schemathesis makes it up."""

from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

from tests.studies.test_serving import Service, service  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow

LEFT_OUT = {
    "positive_data_acceptance": "no schema tells 30 February from a date, nor which numbers are too large to answer",
}
"""Checks of schemathesis that are not asked for, and why."""
N_CASES = 60


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/predict", GenerationMode.POSITIVE),
        ("/predict", GenerationMode.NEGATIVE),
        ("/health", GenerationMode.POSITIVE),  # who sends nothing sends nothing wrong
        ("/model", GenerationMode.POSITIVE),
    ],
    ids=lambda value: getattr(value, "value", value),
)
def test_every_answer_is_one_that_the_service_describes(service: Service, path: str, mode: GenerationMode) -> None:  # noqa: F811
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")
    operations = {operation.ok().path: operation.ok() for operation in schema.get_all_operations()}
    assert set(operations) == {"/predict", "/health", "/model"}
    left_out = CHECKS.get_by_names(list(LEFT_OUT))
    assert len(CHECKS.get_all()) > 10
    codes: Counter[int] = Counter()

    @settings(
        max_examples=N_CASES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operations[path].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        answer = case.call_and_validate(excluded_checks=left_out)
        codes[answer.status_code] += 1

    ask()
    if path != "/predict":
        assert set(codes) == {200}
    else:
        assert codes[422] and (codes[200] if mode is GenerationMode.POSITIVE else not codes[200])
