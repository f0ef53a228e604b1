"""Traffic, captures and logs, and what is computed from them.

In the hosts: `probe` (sequence probe: `probe_udp`, `probe_tcp`, `pacing`), `iperf` (bulk TCP),
`tcp_information` (what the kernel knows of a connection), `capture` (packets, from a `packet_ring`),
`machine` (load of the machine). In the experiment: `process` (a measuring process in a host), `traffic`
(pairs of them: one object a flow), `path_watch` (what the mobile node can know of its paths). Files:
`probe_log`, `packets` (pcap to columns). Computing: `accounting` (loss, order, delay, gaps), `matching`
(captures to flows and paths), `events` (handovers and their stages), `metadata` and `checkout` (what the run
ran on, and of which code).
"""
