"""What experiments share, so that each of them is only its scenario. Experiments are in the folder
`experiments`.

One run: `options` (the command line), `narrator` (what a person sees), `run` (network, agents, traffic,
captures, events, result), `switched_run`, `verdict` (what a result must show), `profile` and `trace` (links,
traffic and scenarios as data files).

Many: `case` (one case, in a process of its own), `steering` and `load` (the kinds of cases), `series` (order,
repeats, resuming), `matrix` (strategies × scenarios × links), `sweep` (grids from a file), `cluster` (on
other machines).

Of the testbed itself: `bench` (what benchmarks share).
"""
