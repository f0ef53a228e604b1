"""What experiments share, so that each of them is only its scenario. Experiments are in the folder
`experiments`.

One run: `options` (the command line), `narrator` (what a person sees), `run` (network, agents, traffic,
captures, events, result), `switched_run`, `applications` (what runs in it), `planes` (two ways of steering
side by side), `verdict` (what a result must show), `profile` and `trace` (links, traffic and scenarios as
data files).

Many: `repetition` (of one run), `case` (one case, in a process of its own), `parameters` (what it takes),
`steering` and `load` (the kinds of cases), `distance` (where they are alike), `series` (order, repeats,
resuming), `matrix` (strategies × scenarios × links), `sweep` (grids from a file), `book` (what pages rest
on), `cluster` (on other machines).

Of the testbed itself: `bench` (what benchmarks share), `bench_page` (their figures in pages of text).
"""
