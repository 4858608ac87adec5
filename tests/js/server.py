"""A real server for the tests of ``hisock.js``; ends when its standard input does.

Prints the port it listens on. Arguments: ``--auth`` checks tokens, ``--reject`` has
names unique, ``--window`` is the resume window in seconds, ``--dead-after`` as it says.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from hisock import CommandError
from hisock.aio import AsyncHiSockServer, start_server
from hisock.types import AsyncClientInfo, Credentials, Identity


def register(server: AsyncHiSockServer) -> None:
    """What the tests call."""
    seen: list[Any] = []
    stopped = asyncio.Event()

    @server.on("join")
    def join(client: AsyncClientInfo) -> None:
        client.send("joined", client["name"])

    @server.on("note")
    def note(client: AsyncClientInfo, content: Any) -> None:
        seen.append(content)

    @server.on("notes")
    def notes(client: AsyncClientInfo) -> list[Any]:
        return seen

    @server.on("echo")
    def echo(client: AsyncClientInfo, content: Any) -> Any:
        return content

    @server.on("back")
    def back(client: AsyncClientInfo, content: Any) -> None:
        client.send("back", content)

    @server.on("flood")
    async def flood(client: AsyncClientInfo, count: int) -> None:
        for n in range(count):
            await client.send("flood", n)

    @server.on("type")
    def type_of(client: AsyncClientInfo, content: Any) -> str:
        return type(content).__name__

    @server.on("fail")
    def fail(client: AsyncClientInfo, content: Any) -> None:
        raise CommandError("no_luck", "not today", {"tries": content})

    @server.on("late")
    async def late(client: AsyncClientInfo) -> None:
        await asyncio.sleep(0.1)

    @server.on("count")
    async def count(client: AsyncClientInfo, upto: int) -> AsyncIterator[int]:
        try:
            for n in range(upto):
                yield n
                await asyncio.sleep(0)
        finally:
            stopped.set()

    @server.on("silent")
    async def silent(client: AsyncClientInfo) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            stopped.set()

    @server.on("stopped")
    async def was_stopped(client: AsyncClientInfo) -> bool:
        await stopped.wait()
        stopped.clear()
        return True

    @server.on("ask back")
    async def ask_back(client: AsyncClientInfo, content: list[Any]) -> Any:
        command, value = content
        return await client.call(command, value)

    @server.on("read back")
    async def read_back(client: AsyncClientInfo, content: list[Any]) -> list[Any]:
        command, value, most = content
        items = []
        async for item in client.stream(command, value):
            items.append(item)
            if len(items) == most:
                break
        return items

    @server.on("kick")
    def kick(client: AsyncClientInfo) -> None:
        client.disconnect(reason="out")

    @server.on("come back")
    def come_back(client: AsyncClientInfo) -> None:
        client.disconnect(reason="later", reconnect=True)

    @server.on("who")
    def who(client: AsyncClientInfo) -> list[Any]:
        return [client["name"], client["group"], client.wire]

    @server.on("names")
    def names(client: AsyncClientInfo) -> list[Any]:
        return [each["name"] for each in server]


def check(credentials: Credentials) -> Identity | None:
    """Who may come in, where somebody looks."""
    token = credentials.token or ""
    return Identity(token, name=f"{token}!") if token.startswith("user") else None


async def main() -> None:
    """Serve until nobody needs it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--auth", action="store_true")
    parser.add_argument("--reject", action="store_true")
    parser.add_argument("--window", type=float, default=30.0)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    server = start_server(
        ("127.0.0.1", options.port),
        unique_names="reject" if options.reject else "allow",
        resume_window=options.window,
    )
    register(server)
    if options.auth:
        server.authenticate(check)
    async with server:
        print(server.addr[1], flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
