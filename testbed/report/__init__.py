"""Results for people and notebooks.

Of one run: `result` (the file and its fields), `assembly` (measurements to a result), `flow_figures`, `table`
(terminal tables), `flows` (flows.csv), `plot` (figures), `files`. Tables, CSV and plots read nothing but a
result.

Of many: `collection` (read together), `metric` (one figure a run), `statistics`, `comparison_plot`, `runs`
(runs.csv, cases.csv), `html` (the page, figures for papers), `html_style`, `markdown`, `book` (figures in
pages of text), `compare` (what changed, and is it significant), `command` (`./run report`, `./run compare`).
"""
