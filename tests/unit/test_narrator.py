"""testbed.experiment.narrator: what it writes fits the terminal."""

import io

from testbed.experiment.narrator import Narrator


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


def test_nothing_is_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    shown = io.BytesIO()
    narrator = Narrator(Terminal(shown, encoding="ascii"))
    narrator.step("Bind a flow", "the home agent classifies what it tunnels, as the mobile node does " * 3)
    narrator.progress("waiting for " + "so much to happen " * 9)
    narrator.progress_done()
    lines = [line for text in shown.getvalue().decode().split("\n") for line in text.split("\r")]
    assert max(map(len, lines)) <= 60
    assert sum("classifies" in line for line in lines) == 3
