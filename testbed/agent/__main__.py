"""`python -m testbed.agent FILE.toml`: run the agent that the file describes.

Functions: `main`, `serve`, `make_agent`.
"""

from testbed.agent.territory import TerritoryError
from testbed.environment import reexec_in_project_environment

if __name__ == "__main__":
    reexec_in_project_environment()

import argparse
import asyncio
import logging
import os
import signal
import sys

from testbed.agent.configuration import (
    AgentFile,
    AnchorPointFile,
    ConfigurationError,
    CorrespondentNodeFile,
    HomeAgentFile,
    has_keys,
    key_files,
    load,
)
from testbed.agent.control import ControlError
from testbed.agent.daemon import Agent, AgentError
from testbed.agent.garbage import collect_rarely
from testbed.agent.security import readable_by_others
from testbed.datapath.error import DatapathError

logger = logging.getLogger(__name__)


def make_agent(file: AgentFile) -> Agent:
    """The agent that a configuration describes. Raises AgentError or DatapathError."""
    if isinstance(file, HomeAgentFile):
        from testbed.agent.home_agent import HomeAgentAgent

        return HomeAgentAgent(file)
    if isinstance(file, AnchorPointFile):
        from testbed.agent.anchor_point import AnchorPointAgent

        return AnchorPointAgent(file)
    if isinstance(file, CorrespondentNodeFile):
        from testbed.agent.correspondent_node import CorrespondentNodeAgent

        return CorrespondentNodeAgent(file)
    from testbed.agent.mobile_node import MobileNodeAgent

    return MobileNodeAgent(file)


async def serve(file: AgentFile) -> None:
    """Run one agent until SIGTERM or SIGINT; the second of them ends it at once."""
    loop = asyncio.get_running_loop()
    agent = make_agent(file)
    collect_rarely()

    def stop() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        agent.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await agent.run()


def main(arguments: list[str] | None = None) -> int:
    """Run the agent of a configuration file; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.agent",
        description="The agent of a Mobile IPv6 node with flow bindings. Prints 'ready' when it serves; "
        "SIGTERM or Ctrl-C ends it in good order.",
        epilog="docs/configuration.md describes the configuration; 'flowbind' talks to a running agent.",
    )
    parser.add_argument("file", metavar="FILE.toml", help="the configuration")
    options = parser.parse_args(arguments)
    try:
        file = load(options.file)
        name = file.name.replace("%", "%%")
        logging.basicConfig(
            stream=sys.stderr, level=file.log.level.upper(), format=f"{name}: %(levelname)s: %(message)s"
        )
        keys = [options.file] if has_keys(file) else []
        for path in readable_by_others(keys + key_files(file)):
            logger.warning("%s has a key in it and can be read by everybody: chmod o-r %s", path, path)
        if os.geteuid() != 0:
            raise AgentError("an agent changes routes and sends raw packets: start it as root (sudo)")
        asyncio.run(serve(file))
    except (ConfigurationError, AgentError, ControlError, TerritoryError, DatapathError) as error:
        print(f"flowbind: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
