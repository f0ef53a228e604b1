"""Results for people and notebooks.

`result` (the file and its fields), `assembly` (measurements to a result), `table` (terminal tables), `flows`
(flows.csv), `plot` (figures). Tables, CSV and plots read nothing but a result.
"""
