"""The protocol core, sans-IO: what a binding is, who keeps it, which messages follow from which. No sockets, no clock."""
