"""A sweep on two local workers of a Dask cluster."""

import msgspec
import pytest

from testbed.experiment.case import Case
from testbed.experiment.cluster import run_on_cluster
from testbed.experiment.narrator import Narrator
from testbed.experiment.series import Series, SeriesError
from testbed.report.result import read_result

distributed = pytest.importorskip("distributed", reason="the extra for clusters is not installed")
PARAMETERS = {"scenario": "steady", "links": ["wlan", "4g"], "pace": 0.4}


@pytest.fixture(scope="module")
def cluster():
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**settings) as cluster:
        yield cluster


def series(folder, *strategies):
    cases = [Case(kind="steering", parameters={"strategy": name, **PARAMETERS}) for name in strategies]
    return Series("cluster", cases, folder, Narrator(), attempts=1)


def test_two_workers_on_one_machine_are_refused(cluster, tmp_path):
    with pytest.raises(SeriesError, match="are on one machine, .* --share-machine"):
        run_on_cluster(series(tmp_path, "static"), cluster.scheduler_address)


def test_cases_run_on_both_and_what_fails_leaves_the_others_alone(cluster, tmp_path):
    planned = series(tmp_path, "static", "single", "statik")
    assert run_on_cluster(planned, cluster.scheduler_address, share_machine=True) is False
    states = {outcome.key.split("-")[1]: outcome for outcome in planned.outcomes.values()}
    assert states["statik"].state == "failed" and "did you mean 'static'" in states["statik"].reason
    for case in planned.cases[:2]:
        assert states[case.parameters["strategy"]].state in ("done", "busy")
        result = read_result(planned.place(case))
        assert result.metadata["case"] == msgspec.to_builtins(case) and result.flow("voip").received > 0


def test_without_a_scheduler_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("testbed.experiment.cluster._CONNECT_S", 1)
    with pytest.raises(SeriesError, match="there is no Dask scheduler at tcp://127.0.0.1:9"):
        run_on_cluster(series(tmp_path, "static"), "tcp://127.0.0.1:9")
    with pytest.raises(SeriesError, match="there is no Dask scheduler at nowhere: missing port"):
        run_on_cluster(series(tmp_path, "static"), "nowhere")
