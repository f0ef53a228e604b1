"""Traffic, captures and logs, and what is computed from them.

In the hosts: `probe` (sequence probe), `iperf` (bulk TCP), `tcp_information` (what the kernel knows of a
connection), `capture` (packets), `machine` (load of the machine). In the experiment: `process` (a measuring
process in a host), `traffic` (pairs of them: one object a flow). Files: `probe_log`, `packets` (pcap to
columns). Computing: `accounting` (loss, order, delay, gaps), `matching` (captures to flows and paths),
`events` (handovers and their stages), `metadata` (what the run ran on).
"""
