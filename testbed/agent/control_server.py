"""The agent's end of the control socket.

Class: `ControlServer`. The protocol is described in module `control`.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from testbed.agent.control import ControlError
from testbed.agent.events import EventLog
from testbed.agent.feed import Feed
from testbed.agent.requests import Events, FeedRequest, Request, RequestError, parse_request

logger = logging.getLogger(__name__)

#: The longest command, and how far a listener to events may fall behind before it is dropped; octets.
MAX_LINE, MAX_BACKLOG = 1 << 16, 1 << 20


class ControlServer:
    """Answers commands at `path` with what `handle` returns; RequestError is its way to refuse one.

    Only the agent's user may use the socket. A socket that a killed agent left behind is replaced.
    """

    def __init__(
        self, path: str, handle: Callable[[Request], Awaitable[Any]], events: EventLog, feed: Feed
    ) -> None:
        self.path = path
        self._handle = handle
        self._events = events
        self._feed = feed
        self._server: asyncio.AbstractServer | None = None
        self._inode = 0
        self._tasks: set[asyncio.Task] = set()

    async def start(self) -> None:
        """Listen. Raises ControlError if another agent does, or if the socket cannot be made."""
        try:
            os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
            if _is_answered(self.path):
                raise ControlError(f"another agent answers at {self.path}: stop it, or use another name")
            if os.path.lexists(self.path):
                os.unlink(self.path)
            mask = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._serve, self.path, limit=MAX_LINE)
            finally:
                os.umask(mask)
            self._inode = os.stat(self.path).st_ino
        except OSError as error:
            raise ControlError(f"the control socket {self.path} cannot be made: {error.strerror}") from None

    async def close(self) -> None:
        """Stop listening, end all connections, remove the socket."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if os.stat(self.path).st_ino == self._inode:  # not somebody else's by now
                os.unlink(self.path)
        except OSError:
            pass

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            while line := await reader.readline():
                if line.strip():
                    await self._answer(line, reader, writer)
        except ValueError:  # StreamReader's for a line over the limit
            self._refuse(writer, f"a command has at most {MAX_LINE} octets")
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = parse_request(line)
            if isinstance(request, Events):
                return await self._send_events(request, reader, writer)
            if isinstance(request, FeedRequest):
                return await self._feed.serve(reader, writer)
            result = await self._handle(request)
        except RequestError as error:
            self._refuse(writer, str(error))
        except Exception:  # a defect: the others are served on, the log shows where it is
            logger.exception("command failed: %s", line[:200])
            self._refuse(writer, "the agent failed at this; its log says where")
        else:
            writer.write(msgspec.json.encode({"ok": True, "result": result}) + b"\n")
        await writer.drain()

    @staticmethod
    def _refuse(writer: asyncio.StreamWriter, sentence: str) -> None:
        writer.write(msgspec.json.encode({"ok": False, "error": sentence}) + b"\n")

    async def _send_events(
        self, request: Events, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answer = msgspec.json.encode({"ok": True, "result": self._events.recent(request.last)}) + b"\n"
        if not request.follow:
            writer.write(answer)
            await writer.drain()
            return

        def listen(event: dict[str, Any], line: bytes) -> None:
            if writer.transport.get_write_buffer_size() > MAX_BACKLOG:
                logger.warning("a listener to events does not keep up, and is dropped")
                self._events.listeners.discard(listen)
                writer.transport.abort()
            elif not writer.is_closing():
                writer.write(line + b"\n")

        self._events.listeners.add(listen)
        writer.write(answer)
        try:
            while await reader.read(MAX_LINE):  # nothing more is expected: this is to see the listener leave
                pass
        finally:
            self._events.listeners.discard(listen)


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionError, FileNotFoundError):
            return False
        return True
