import numpy as np
import pytest
import torch

from dlcore.config import ModelConfig
from dlcore.ensemble import Part, as_one, averaged, different_preprocessors, each_once
from dlcore.models import build_model
from dlcore.tasks import Task
from tests.dlcore.column_tools import of_all_kinds, splits_of_all_kinds

SCALINGS = ("standard", "robust", "quantile_normal", "standard")


def parts_of(splits):
    """Four networks of different shapes; the first and the last see the same numbers."""
    found = []
    for seed, scaling in enumerate(SCALINGS):
        config = ModelConfig(splits.n_features, splits.n_outputs, (8,) * seed, "tanh")
        found.append(Part(build_model(config, seed), config, splits.prepared(scaling).preprocessor))
    return found


@pytest.mark.parametrize(("task", "n_outputs"), [("binary", 1), ("multiclass", 4)])
def test_the_outputs_are_those_of_the_mean_probability(task, n_outputs):
    outputs = 3 * torch.randn(5, 20, n_outputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = Task(task, n_outputs)
    torch.testing.assert_close(own.predict(averaged(task, outputs)), own.predict(outputs).mean(0))


def test_of_a_regression_the_standardised_values_are_averaged():
    outputs = torch.randn(5, 20, 2)
    assert torch.equal(averaged("regression", outputs), outputs.mean(0))


@pytest.mark.parametrize(("task", "n_outputs"), [("binary", 1), ("multiclass", 3)])
def test_networks_that_are_sure_and_agree_are_no_infinity(task, n_outputs):
    outputs = torch.full((3, 2, n_outputs), -200.0)
    outputs[..., 0] = 200.0
    found = averaged(task, outputs)
    assert torch.isfinite(found).all() and found[0, 0] >= (200.0 if task == "binary" else 0.0)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_one_module_answers_as_its_parts_do_one_by_one(task):
    splits = splits_of_all_kinds(task)
    parts, rows = parts_of(splits), of_all_kinds(50, seed=3, holes=0.3)
    assert len(different_preprocessors(parts)) == 3
    ensemble, preprocessors = as_one(task, parts)
    found = ensemble(torch.from_numpy(preprocessors.transform(rows)).float())
    own = splits.to_task()
    each = [part.network(torch.from_numpy(part.preprocessor.transform(rows)).float()) for part in parts]
    if task == "regression":
        torch.testing.assert_close(found, torch.stack(each).mean(0))
        values = preprocessors.unscale_target(found.detach().double().numpy())
        np.testing.assert_allclose(values, splits.preprocessor.unscale_target(found.detach().double().numpy()))
    else:
        torch.testing.assert_close(own.predict(found), torch.stack([own.predict(o) for o in each]).mean(0))


def test_a_network_that_is_there_several_times_counts_for_so_many():
    one, two, three, _ = parts_of(splits_of_all_kinds("binary"))
    found = each_once([two, one, two, three, two])
    assert [part.network for part in found] == [two.network, one.network, three.network]
    assert [part.weight for part in found] == [3, 1, 1]
    again = each_once(found)
    assert [(p.network, p.weight) for p in again] == [(p.network, p.weight) for p in found]
