"""The labs are true: every command in them shows what the page says it shows."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROMPT = "mininet> "


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


def test_labs():
    commands = examples((ROOT / "docs" / "labs.md").read_text())
    assert len(commands) > 15
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed.emulation.mn"],
        cwd=ROOT,
        text=True,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    def answer() -> str:
        """What comes up to the next prompt."""
        text = ""
        while not text.endswith(PROMPT):
            character = process.stdout.read(1)
            assert character, text
            text += character
        return text.removesuffix(PROMPT)

    def ask(command: str) -> str:
        process.stdin.write(command + "\n")
        return answer()

    def ask_as_a_person(command: str, expected: list[str]) -> str:
        """Nobody types as fast as this test: what only looks is asked again until it is as expected."""
        output = ask(command)
        for _ in range(100 if command.endswith("bindings") else 0):
            if matches(expected, output):
                break
            output = ask(command)
        return output

    answer()
    try:
        for command, expected in commands:
            output = ask_as_a_person(command, expected)
            assert matches(expected, output), f"{command} showed:\n{output}\nand not:\n" + "\n".join(expected)
    finally:
        process.stdin.write("exit\n")
        process.communicate(timeout=30)
    assert process.returncode == 0
