"""Experiments: each a scenario and what is measured. Start one with `sudo python experiments/NAME.py`."""
