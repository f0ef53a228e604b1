"""What this kernel and machine offer."""


def choose_tunnel_backend(forced: str | None = None) -> str:
    """The tunnel backend to use; `forced` wins."""
    return "seg6" if forced in (None, "auto") else forced
