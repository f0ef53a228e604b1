"""What experiments share, so that each of them is only its scenario.

Modules: `options` (the command line), `narrator` (what a person sees), `run` (network, agents, traffic,
captures, events, result), `verdict` (what a result must show). Experiments are in the folder `experiments`.
"""
