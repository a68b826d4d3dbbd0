"""Pages of MLflow's UI, among its views for training: without a word it opens those for agents."""

from mlflow import MlflowClient

from knife.track.address import Address
from knife.track.connect import FAILURES, probe, unusable

_VIEW = "?workflowType=machine_learning"


def run_page(experiment: str, run: str) -> str:
    """Path of a run's page, by the ids of its experiment and of itself."""
    return f"/#/experiments/{experiment}/runs/{run}{_VIEW}"


def newest_page(address: Address) -> str:
    """Path of the page of the experiment that has the newest run; without a run, of them all.

    Raises:
        UserError: MLflow cannot be used there.
    """
    try:
        probe(address.uri)
        client = MlflowClient(address.uri)
        experiments = [found.experiment_id for found in client.search_experiments()]
        newest = client.search_runs(experiments, max_results=1, order_by=["start_time DESC"])
    except FAILURES as error:
        raise unusable(address, error) from error
    if not newest:
        return f"/#/experiments{_VIEW}"
    return f"/#/experiments/{newest[0].info.experiment_id}/runs{_VIEW}"
