"""Pages of MLflow's UI in its training view; by default it opens the one for agents."""

from mlflow import MlflowClient

from knife.track.address import Address
from knife.track.connect import FAILURES, probe, unusable

_VIEW = "?workflowType=machine_learning"


def run_page(experiment: str, run: str) -> str:
    """Return the path of a run's page, given the ids of its experiment and itself."""
    return f"/#/experiments/{experiment}/runs/{run}{_VIEW}"


def newest_page(address: Address) -> str:
    """Return the path of the page of the experiment with the newest run; without runs, of all.

    Raises:
        UserError: MLflow cannot be used at this address.
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
