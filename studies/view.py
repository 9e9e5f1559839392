"""How MLflow's pages show a study at first sight: as a training, its trials with columns, the best on top.

MLflow's UI keeps a view that is shared as a tag of the experiment and names it in the address; the tag is JSON, as the
UI of MLflow 3 writes it. A UI that knows of no views shows the plain table.
"""

import json
from collections.abc import Mapping

from studies.records import StudyFacts
from studies.runs import to_key, value_key

VIEW = "trials"
"""Its name in addresses."""
_VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
_KIND_TAG = "mlflow.experimentKind"
"""Otherwise MLflow 3 takes an experiment for one of generative models, and shows pages that a study has nothing for."""
_MOST_BYTES = 5_000
"""Of a tag of an experiment."""


def study_page(tracking_uri: str, experiment_id: str) -> str:
    """Address of a study's page in the MLflow UI."""
    return f"{tracking_uri}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"


def run_page(tracking_uri: str, experiment_id: str, run_id: str) -> str:
    """Address of the page of the study's own run, which tells its story."""
    return f"{tracking_uri}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def experiment_tags(facts: StudyFacts, parent_run_id: str) -> dict[str, str]:
    """Tags of a study's experiment, by which MLflow shows it so.

    Args:
        facts: Of the study.
        parent_run_id: Of its own run, which is unfolded.
    """
    values = [f"metrics.`{value_key(objective.metric)}`" for objective in facts.objectives]
    fixed = ["metrics.`n_parameters`", "metrics.`best_epoch`", "tags.`dlcore.state`", "tags.`dlcore.device`"]
    space = facts.spec.get("search_space")
    names = space if isinstance(space, Mapping) else ()
    shown = {
        "searchFilter": "",
        "orderByKey": values[0],
        "orderByAsc": facts.objectives[0].direction == "minimize",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(dict.fromkeys([*values, *fixed, *(f"params.`{to_key(str(n))}`" for n in names)])),
        "runsExpanded": {parent_run_id: True},
        "runsPinned": [parent_run_id],
        "runsHidden": [],
    }
    text = json.dumps(shown)
    if len(text.encode()) > _MOST_BYTES:
        text = json.dumps(shown | {"selectedColumns": [*values, *fixed]})
    return {_KIND_TAG: "custom_model_development", _VIEW_TAG: text}
