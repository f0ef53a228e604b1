"""Result file, table, CSV and figures, from the sample result."""

import csv
import json

import pytest
from test_report_sample import sample

from testbed.report.flows import write_flows_csv
from testbed.report.plot import draw_all
from testbed.report.result import SCHEMA_VERSION, ResultError, encode, read_result, write_result
from testbed.report.table import flow_table, handover_table, report


def test_a_result_is_read_as_it_was_written(tmp_path):
    write_result(sample(), tmp_path / "result.json")
    result = read_result(tmp_path)
    assert result == read_result(tmp_path / "result.json")
    assert json.loads(encode(result)) == json.loads((tmp_path / "result.json").read_text())
    assert result.flow("voip").port == 5004
    with pytest.raises(KeyError):
        result.flow("none")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_promised_fields_are_in_the_file(tmp_path):
    write_result(sample(), tmp_path / "result.json")
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["schema_version"] == SCHEMA_VERSION
    assert {"metadata", "time_series", "events"} <= set(document)
    assert {"name", "fid", "selector", "bid", "goodput_bps", "sent", "received", "lost", "duplicates",
            "reordered", "interruption_ms", "one_way_delay_ms"} <= set(document["flows"][0])
    assert set(document["flows"][0]["one_way_delay_ms"]) == {"p50", "p95", "max"}
    assert {"at_s", "cause", "stages_ms"} <= set(document["handovers"][0])
    assert document["time_series"]["interval_s"] == 0.1


def test_a_failed_write_leaves_the_older_file(tmp_path):
    path = tmp_path / "result.json"
    write_result(sample(), path)
    before = path.read_bytes()
    broken = sample()
    broken.metadata["x"] = object()
    with pytest.raises(TypeError):
        write_result(broken, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("change, complaint", [
    (lambda document: document.update(schema_version=99), "schema version 99"),
    (lambda document: document["flows"][1].update(sent="many"), r"\$\.flows\[1\]\.sent|sent"),
    (lambda document: document.pop("handovers"), "handovers"),
    (lambda document: document.clear(), "schema_version"),
])
def test_a_wrong_result_is_refused_with_the_field(tmp_path, change, complaint):
    document = json.loads(encode(sample()))
    change(document)
    (tmp_path / "result.json").write_text(json.dumps(document))
    with pytest.raises(ResultError, match=complaint):
        read_result(tmp_path)


def test_no_result_is_one_sentence(tmp_path):
    with pytest.raises(ResultError, match="No such file or directory; give a result.json"):
        read_result(tmp_path)
    (tmp_path / "result.json").write_text('{"schema_version": 1, ')
    with pytest.raises(ResultError, match="is not valid JSON"):
        read_result(tmp_path)


def test_an_unknown_field_of_a_later_minor_version_is_passed_over(tmp_path):
    document = json.loads(encode(sample()))
    document["flows"][0]["new_figure"] = 1
    (tmp_path / "result.json").write_text(json.dumps(document))
    assert len(read_result(tmp_path).flows) == 6


@pytest.mark.parametrize("width", [60, 80, 100, 132, 200])
def test_tables_fit_the_width_and_say_what_they_left_out(width):
    for table in (flow_table, handover_table):
        lines = table(sample(), width, unicode=False).splitlines()
        assert all(line.isascii() for line in lines)
        note = lines[-1].startswith("(left out") and lines.pop()
        assert max(map(len, lines)) <= max(width, 60)
        assert bool(note) == (width < 132 or table is handover_table and width == 132), (width, note)
    text = report(sample(), width, unicode=True)
    assert "voip" in text and "Warning: From 3.0 s" in text and "─" in text


def test_figures_of_the_table_are_those_of_the_result():
    lines = flow_table(sample(), 200, unicode=False).splitlines()
    voip = next(line for line in lines if line.startswith("voip"))
    assert voip.split() == [
        "voip", "3", "1", "cellular", "67%,", "wlan", "33%", "0.07", "1500", "3", "0", "1", "48.2", "12.5",
        "44.0", "61.0", "udp", "source", "port", "5004"]


def test_the_csv_has_the_flows_with_their_quantiles(tmp_path):
    write_flows_csv(sample(), tmp_path / "flows.csv")
    with open(tmp_path / "flows.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert len(rows) == 6 and rows["voip"]["one_way_delay_ms_p95"] == "44.0" and rows["voip"]["lost"] == "3"
    assert rows["ssh"]["octets_mn-cellular"] == "70000" and rows["web"]["fid"] == ""


def test_every_figure_is_drawn_from_the_file_alone(tmp_path):
    write_result(sample(), tmp_path / "result.json")
    files = draw_all(read_result(tmp_path), tmp_path, ("png",))
    assert [file.name for file in files] == [
        "throughput.png", "delay.png", "handover-stages.png", "handover-01-flow-replace-flow-2.png",
        "handover-02-link-down-mn-wlan.png", "handover-03-link-up-mn-wlan.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 20_000 for file in files)


def test_a_run_in_which_nothing_happened_can_be_shown(tmp_path):
    result = sample()
    result.handovers.clear()
    result.warnings.clear()
    for flow in result.flows:
        flow.paths.clear()
        flow.one_way_delay_ms = flow.interruption_ms = flow.goodput_bps = None
    for series in result.time_series.flows.values():
        series.throughput_bps = {name: [0.0] * result.time_series.bins for name in series.throughput_bps}
    assert "(none)" in report(result, 80)
    assert [file.name for file in draw_all(result, tmp_path, ("png",))] == ["throughput.png", "delay.png"]
