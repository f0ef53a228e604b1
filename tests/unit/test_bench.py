"""What benchmarks share: the seed of what is random."""

import json

import pytest

from testbed.experiment import bench


def document(capsys, random, *arguments):
    options = bench.parse(bench.parser("lots", "", "", 1, "less", random), ["--json", *arguments])
    assert bench.finish("lots", options, [bench.Figure("drawn", "", [1.0])]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_seed_is_written_down(capsys):
    assert document(capsys, True, "--seed", "7")["seed"] == 7
    assert document(capsys, True)["seed"] == 1


def test_where_nothing_is_random_there_is_no_seed(capsys):
    assert "seed" not in document(capsys, False)
    with pytest.raises(SystemExit):
        document(capsys, False, "--seed", "7")
    assert "--seed" in capsys.readouterr().err


def test_a_seed_is_a_number(capsys):
    with pytest.raises(SystemExit):
        document(capsys, True, "--seed", "-1")
    assert "'-1' is not a whole number from 0 to" in capsys.readouterr().err
