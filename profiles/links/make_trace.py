#!/usr/bin/env python3
"""Make `traces/moving.csv`: a rate and a loss that go up and down as on the move. Not a measurement, but a
recording in the format of one, always the same."""

import math
import random
from pathlib import Path

SECONDS, STEP_S, SEED = 60, 0.5, 1


def main() -> None:
    generator = random.Random(SEED)
    fading = 0.0
    lines = ["time_s,bandwidth_mbit,loss_percent"]
    for index in range(int(SECONDS / STEP_S) + 1):
        at_s = index * STEP_S
        fading = 0.8 * fading + generator.gauss(0, 0.35)  # shadowing is correlated
        rate = 16 * math.exp(0.7 * math.sin(2 * math.pi * at_s / 30) + fading - 0.4)
        rate = min(max(rate, 0.8), 40)
        lines.append(f"{at_s:.1f},{rate:.2f},{0.2 if rate > 4 else 2.0}")
    Path(__file__).with_name("traces").joinpath("moving.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
