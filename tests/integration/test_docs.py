"""The pages are true: every command in them is there, and shows what the page says that it shows."""

import os
import re
import shlex
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from controller_network import needs_controller, needs_switches

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROMPT = "mininet> "
#: The commands of `run` that are no experiments, and what `run` makes of them.
MODULES = {
    "check": ["-m", "testbed.check"],
    "compare": ["-m", "testbed.report.command", "compare"],
    "kernel": ["tests/kernel"],
    "mn": ["-m", "testbed.emulation.mn"],
    "report": ["-m", "testbed.report.command", "report"],
    "sweep": ["-m", "testbed.experiment.sweep"],
}
#: What says that a command has not done what it is for.
FAILURES = ("usage:", "flowbind:", "not found", "Error", "***", "Traceback", "cannot")


class CommandLine:
    """Mininet's command line, as started by `./run mn ARGUMENTS`. A context manager."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "testbed.emulation.mn", *arguments],
            cwd=ROOT,
            text=True,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # whose processes get what is typed at a terminal
        )
        self.greeting = self._answer()

    def __enter__(self) -> "CommandLine":
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.stdin.write("exit\n")
        self._process.communicate(timeout=120)
        assert self._process.returncode == 0

    def ask(self, command: str) -> str:
        """What a command shows."""
        self._process.stdin.write(command + "\n")
        return self._answer()

    def ask_as_a_person(self, command: str, expected: list[str]) -> str:
        """Nobody types as fast as this test: what only looks is asked again until it is as expected. Of a few
        pings the last may be late on a machine that stands still, and `ping` does not wait for it."""
        output = self.ask(command)
        looks = re.search(r"(bindings|rules)$|\bping -c [12] ", command)
        for _ in range(100 if looks else 0):
            if matches(expected, output):
                break
            output = self.ask(command)
        return output

    def interrupt(self, command: str, shown: str) -> str:
        """What a command shows that gets a Ctrl-C when it has shown this much."""
        self._process.stdin.write(command + "\n")
        begun = self._answer(shown)
        os.killpg(self._process.pid, signal.SIGINT)
        return begun + shown + self._answer()

    def _answer(self, end: str = PROMPT) -> str:
        """What comes up to the next prompt."""
        text = ""
        while not text.endswith(end):
            character = self._process.stdout.read(1)
            assert character, text
            text += character
        return text.removesuffix(end)


def examples(page: str) -> list[tuple[str, list[str]]]:
    """Each command of the page's `mininet` blocks with the lines expected below it."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```mininet\n(.*?)^```", page, re.M | re.S):
        for line in block.splitlines():
            if line.startswith(PROMPT):
                found.append((line.removeprefix(PROMPT), []))
            else:
                found[-1][1].append(line)
    return found


def matches(expected: list[str], output: str) -> bool:
    """Whether the output is as expected; `...` stands for anything, alone on a line for any lines."""
    words = [r"\s+".join(map(re.escape, line.split())).replace(re.escape("..."), ".*") for line in expected]
    pattern = "".join(
        "(?:.*\n)*?" if line == "..." else f"[^\n]*?{word}\\s*\n"
        for line, word in zip(expected, words, strict=True)
    )
    return re.fullmatch(rf"\s*{pattern}(?:\s*\n)*", output + "\n") is not None


@pytest.mark.parametrize("page, least, arguments", [
    ("labs.md", 15, []),
    ("labs-answers.md", 15, []),
    ("flowbind.md", 4, []),
    pytest.param("controllers.md", 1, ["--custom", "topologies/sdn.py", "--topo", "sdn,agents=True",
                                       "--controller", "flowbind"], marks=[needs_controller, needs_switches]),
])  # fmt: skip
def test_what_the_page_shows_is_shown(page, least, arguments):
    commands = examples((ROOT / "docs" / page).read_text())
    assert len(commands) >= least
    with CommandLine(*arguments) as command_line:
        for command, expected in commands:
            output = command_line.ask_as_a_person(command, expected)
            assert matches(expected, output), f"{command} showed:\n{output}\nand not:\n" + "\n".join(expected)


def test_ctrl_c_ends_the_command_and_nothing_else():
    with CommandLine() as command_line:
        command_line.ask_as_a_person("mn flowbind bindings", ["...", "... default"])
        assert "ping statistics" in command_line.interrupt("mn ping cn", "64 bytes")
        for host in ("mn", "ha", "cn"):
            assert "uptime" in command_line.ask(f"{host} flowbind status")


@pytest.mark.parametrize("wrong, what", [("star", "name star"), ("multihome,mobile_nodes=x", "'x'")])
def test_a_network_that_there_is_not(wrong, what):
    command = [sys.executable, "-m", "testbed.emulation.mn", "--topo", wrong]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert what in done.stdout + done.stderr


def program(page: str) -> str:
    """The Python program on a page."""
    (found,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.M | re.S)
    return found


def test_the_program_that_asks_an_agent(tmp_path):
    file = tmp_path / "ask.py"
    file.write_text(program("flowbind.md").replace("print(", "break; print("))
    with CommandLine() as command_line:
        command_line.ask_as_a_person("mn flowbind bindings", ["...", "... default"])
        assert command_line.ask(f"mn python {file}").strip() == ""
        assert "tcp, source port 80" in command_line.ask("mn flowbind flows")


@needs_controller
@needs_switches
def test_the_experiment_with_switches(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", program("controllers.md")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "priority=0 actions=NORMAL" in done.stdout, done.stderr
    assert (tmp_path / "logs" / "events.jsonl").exists()


def overview() -> dict[str, list[str]]:
    """What README.md has to be typed into the command line, by the arguments that this is started with."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "README.md").read_text().splitlines():
        start = re.search(r"`sudo \./run mn ?([^`]*)`", line)
        commands = re.findall(r"`((?:mn|mr|ha) [^`]+)`", line)
        found.setdefault(start[1] if start else "", []).extend(commands)
    return found


@pytest.mark.parametrize("arguments", overview())
def test_commands_of_the_overview(arguments):
    """They do what they say, whatever comes of it."""
    assert overview()[arguments]
    with CommandLine(*arguments.split()) as command_line:
        mobile = "mr" if "nemo" in arguments else "mn"
        command_line.ask_as_a_person(f"{mobile} flowbind bindings", ["...", "... default"])
        for command in overview()[arguments]:
            output = command_line.ask(command)
            assert output.strip() and not any(word in output for word in FAILURES), f"{command}: {output}"


def documented() -> list[str]:
    """Each command of the pages that starts something of ours, from `./run` or `python` on."""
    texts = []
    for page in PAGES:
        text = page.read_text()
        texts += re.findall(r"^    ([^\n#]+)", text, re.M) + re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", text)
    joined = (" ".join(text.split()) for text in texts)
    starts = (re.search(r"^(?:sudo |\.venv/bin/)?((?:\./run|python) .+)", text) for text in joined)
    return sorted({start[1] for start in starts if start})


@cache
def help_of(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def option_of(word: str, known: list[str]) -> bool:
    name = word.partition("=")[0]
    return not word.startswith("--") or re.search(rf"{name}\b", help_of(*known)) is not None


@pytest.mark.parametrize("command", documented())
def test_documented_commands_are_there_with_their_options(command):
    program, *words = shlex.split(command)
    if words[0] == "kernel":  # and what is to be done there
        where = next(i for i, word in enumerate(words[1:], 1) if word in ("check", "multihome", "tests"))
        assert all(option_of(word, MODULES["kernel"]) for word in words[:where])
        words = words[where:]
    if program == "python":
        known, words = (words[:2], words[2:]) if words[0] == "-m" else (words[:1], words[1:])
    elif words[0] in ("setup", "tests"):  # options are pytest's
        assert all((ROOT / word).exists() for word in words if "/" in word and not word.startswith("-"))
        return
    elif words[0] == "bench":
        one = re.fullmatch("[a-z]+", "".join(words[1:2]))
        known = [f"experiments/bench_{words[1] if one else 'all'}.py"]
    else:
        known = MODULES.get(words[0], [f"experiments/{words[0]}.py"])
    assert all(option_of(word, known) for word in words), help_of(*known)
