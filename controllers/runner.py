"""Start the controller: `python -m controllers.runner --fabric FILE [--port N] ...`.

Prints "ready" when switches can connect; ends at SIGTERM or SIGINT, after taking its rules out of the
switches. Exit status 2: it cannot run, one sentence says why.
"""

import argparse
import logging
import os
import signal
import sys


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m controllers.runner",
        description="Mirror flow bindings into OpenFlow 1.3 switch rules.",
    )
    parser.add_argument("--fabric", required=True, metavar="FILE", help="TOML: which switch is for what")
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS", help="for switches (127.0.0.1)")
    parser.add_argument("--port", type=int, default=6653, help="TCP port for switches (6653)")
    parser.add_argument("--socket", default="/run/flowbind/controller.control", help="control socket")
    parser.add_argument("--events", default="", metavar="FILE", help="append events to FILE, as JSON lines")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    arguments = parser.parse_args()
    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        from controllers import ryu_api
    except Exception as error:
        if type(error).__name__ != "LibraryMissing":
            raise
        return _refuse(str(error))
    from controllers.app import EVENTS_VARIABLE, FABRIC_VARIABLE, SOCKET_VARIABLE
    from controllers.fabric import FabricError, load

    try:
        load(arguments.fabric)
    except FabricError as error:
        return _refuse(str(error))
    os.environ |= {
        FABRIC_VARIABLE: arguments.fabric,
        SOCKET_VARIABLE: arguments.socket,
        EVENTS_VARIABLE: arguments.events,
    }
    return _run(ryu_api, arguments.listen, arguments.port)


def _run(ryu_api, address: str, port: int) -> int:
    hub, outcome = ryu_api.hub, ryu_api.hub.Queue()

    class Server(ryu_api.controller.StreamServer):
        """Tells when it listens, or why it cannot."""

        def __init__(self, *arguments, **parameters) -> None:
            try:
                super().__init__(*arguments, **parameters)
            except OSError as error:
                outcome.put(f"{address} port {port}: cannot listen for switches: {error.strerror}")
                raise
            outcome.put(None)

    ryu_api.controller.StreamServer = Server
    configuration = ryu_api.cfg.CONF
    configuration(
        args=["--ofp-listen-host", address, "--ofp-tcp-listen-port", str(port)],
        project="flowbind",
        default_config_files=[],
    )
    # a switch that is silent for this long is not reached any more
    configuration.set_override("echo_request_interval", 1.0)
    configuration.set_override("maximum_unreplied_echo_requests", 3)
    manager = ryu_api.app_manager.AppManager.get_instance()
    manager.load_apps(["controllers.app", f"{ryu_api.LIBRARY}.controller.ofp_handler"])
    manager.instantiate_apps(**manager.create_contexts())
    sentence = outcome.get()
    if sentence:
        return _refuse(sentence)
    stop = hub.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.put(number))
    logging.getLogger(__name__).info("%s listens on %s port %d", ryu_api.VERSION, address, port)
    print("ready", flush=True)
    stop.get()
    manager.applications["FlowBindingMirror"].withdraw()
    sys.stdout.flush()
    logging.shutdown()
    os._exit(0)  # green threads of the library that wait for ever have nothing to tidy up


def _refuse(sentence: str) -> int:
    print(f"flowbind controller: {sentence}", file=sys.stderr, flush=True)
    os._exit(2)


if __name__ == "__main__":
    sys.exit(main())
