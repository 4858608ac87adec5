"""A client's verbs for coroutines; see the methods of ``AsyncHiSockClient``."""

from __future__ import annotations

__all__ = ("ClientVerbs",)

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from hisock.engine.asking import reader_for
from hisock.engine.awaiting import Asker, AsyncStream, Sent, reply
from hisock.engine.blocking import ClientEngine
from hisock.engine.client_face import ClientFace, read_answer, spell_client
from hisock.engine.delivery import Delivery, waits
from hisock.engine.inbox import Mail
from hisock.engine.waiting import check_timeout, end_of
from hisock.engine.watch import ClientWatch
from hisock.errors import (
    ClientDisconnected,
    HiSockError,
    LocalProtocolError,
    RemoteError,
    RequestTimeout,
    WouldBlock,
)
from hisock.session.connection import LINGER, milliseconds
from hisock.session.requests import Asked
from hisock.types import ClientLike
from hisock.wire import compact
from hisock.wire.frames import ClientAnswer, GetClient, Regroup, Rename

#: Seconds that an answer about another client may take.
_ANSWER = 5.0

#: A message with its content and wishes, or another name or group.
_Early: TypeAlias = tuple[str | None, Any, Delivery | None] | Rename | Regroup


class ClientVerbs:
    """What an async client does, once the loop turns it.

    Args:
        face: The client.
    """

    def __init__(self, face: ClientFace) -> None:
        self._face = face
        self._watch: ClientWatch | None = None
        #: What waits for the server's first answer, in order.
        self._early: deque[_Early] = deque()
        #: Bytes of that.
        self._early_size = 0
        #: Other threads send, too; what waits stays in order.
        self._sending_early = threading.RLock()
        self._asking = asyncio.Lock()
        #: A connect that was cancelled; its thread goes on.
        self._unwanted: asyncio.Future[None] | None = None

    # --- beginning and end -----------------------------------------------------

    @property
    def is_started(self) -> bool:
        """Whether there is a connection, or was."""
        return self._watch is not None

    @property
    def _engine(self) -> ClientEngine:
        if self._watch is None:
            raise LocalProtocolError(
                "this client is not connected yet; await it, or enter it with "
                "`async with`"
            )
        return self._face._engine

    async def connect(self, connect: Callable[[], None]) -> None:
        """Connect in a thread, and have the running loop turn the client."""
        await self._end_unwanted()
        loop = asyncio.get_running_loop()
        connecting = loop.run_in_executor(None, connect)
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            self._unwanted = connecting
            connecting.add_done_callback(self._abandon)
            raise
        self._watch = ClientWatch(self._face._engine, loop)
        self._watch.on_agreed = self._send_early

    def _abandon(self, connecting: asyncio.Future[None]) -> None:
        """Say goodbye on a connection that nobody waits for any more."""
        self._unwanted = None
        if not connecting.cancelled() and connecting.exception() is None:
            self._face._engine.abandon()

    async def _end_unwanted(self) -> None:
        while self._unwanted is not None:
            await asyncio.wait([self._unwanted])

    async def ended(self) -> None:
        """Wait until the connection is over.

        Raises:
            ClientDisconnected: The server ended it.
        """
        engine = self._engine
        assert self._watch is not None
        await self._watch.ended.wait()
        if not engine.is_closed:
            engine.raise_closed()

    async def close(self) -> None:
        """Say goodbye and wait until the server has heard it, at most 1 s."""
        if self._watch is None:
            if self._unwanted is not None:  # its end is seen to in any case
                await asyncio.wait([self._unwanted], timeout=LINGER)
            return
        engine, watch = self._engine, self._watch
        if engine.is_closed:
            return
        if self._early and engine.is_usable and engine.is_open:
            with suppress(RequestTimeout, ClientDisconnected):  # it ends all the same
                await self._agree(LINGER)
        engine.begin_close()
        end = time.monotonic() + LINGER
        while not engine.link.is_over and time.monotonic() < end:
            engine.lock.run(engine.read_now)
            if not engine.link.is_over:
                await asyncio.sleep(0.002)
        watch.stop()
        if engine.tasks is not None:
            engine.tasks.close()
        engine.drop()
        watch.news()
        engine.telling.what_stays()

    # --- sending ---------------------------------------------------------------

    def send(self, command: str | None, content: Any, wish: Delivery | None) -> Sent:
        """Send now, or as soon as the server has answered the hello."""
        engine, watch = self._engine, self._watch
        assert watch is not None
        size = engine.link.outbox.held
        if engine.link.outbox.is_full and size >= 2 * engine.limits.outbox:
            raise WouldBlock(
                f"{size} bytes wait to be sent already; await what a send returns"
            )
        if watch.agreed.is_set() and not self._early:
            engine.uplink.send(command, content, wish)
        else:
            with self._sending_early:
                self._send_in_order(command, content, wish)
        watch.look_for_room()
        links = [engine.link] if waits(wish) else []
        return Sent(links, self._waiting_early if self._early else None)

    def _waiting_early(self) -> tuple[int, int]:
        """How many bytes wait for the server's answer, and how many may."""
        most = self._engine.limits.outbox
        return (self._early_size, most) if self._early else (0, most)

    def _send_in_order(
        self, command: str | None, content: Any, wish: Delivery | None
    ) -> None:
        """Send what may have to wait for the server's answer, behind what does."""
        engine = self._engine
        if engine.uplink.know_wire():
            self._send_early()
            engine.uplink.send(command, content, wish)
            return
        if not (engine.is_usable and engine.is_open):
            engine.raise_closed()
        if self._early or not engine.uplink.send_at_once(command, content, wish):
            size = len(compact.pack(content))  # what cannot be sent is refused here
            most = 2 * engine.limits.outbox
            if 0 < most <= self._early_size and len(self._early) > 1:
                raise WouldBlock(
                    f"{self._early_size} bytes wait for the server's answer to the "
                    "hello; await what a send returns"
                )
            self._early_size = size + (self._early_size if self._early else 0)
            self._early.append((command, content, wish))

    def rename(self, frame: Rename | Regroup) -> None:
        """Be called something else, in order with what is sent."""
        engine = self._engine
        with self._sending_early:
            if engine.uplink.know_wire():
                self._send_early()
                engine.uplink.rename(frame)
                return
            if not (engine.is_usable and engine.is_open):
                engine.raise_closed()
            if self._early or not engine.uplink.rename_at_once(frame):
                self._early.append(frame)

    def _send_early(self) -> None:
        engine = self._engine
        with self._sending_early:
            while self._early and engine.is_usable and engine.is_open:
                first = self._early[0]
                try:
                    if isinstance(first, tuple):
                        engine.uplink.send(*first)
                    else:
                        engine.uplink.rename(first)
                except HiSockError as error:
                    engine.reports.failed_alone(self.send, error)
                self._early.popleft()

    def _check_loop(self, watch: ClientWatch) -> None:
        """Waiting makes sense only while somebody turns this client.

        Raises:
            LocalProtocolError: Its loop is closed, or does not run.
        """
        if not watch.loop.is_running():
            raise LocalProtocolError(
                "this client belongs to another event loop, which does not run any "
                "more; connect anew in this one"
            )

    async def _agree(self, timeout: float | None) -> None:
        """Wait until the server has answered the hello.

        Raises:
            RequestTimeout: It did not in time.
            ClientDisconnected: The connection ended first.
            LocalProtocolError: Nobody turns this client.
        """
        engine, watch = self._engine, self._watch
        assert watch is not None
        self._check_loop(watch)
        if not engine.uplink.know_wire():
            try:
                await asyncio.wait_for(watch.agreed.wait(), timeout)
            except TimeoutError:
                raise RequestTimeout(
                    f"the server did not answer the hello within {timeout:g} s"
                ) from None
        self._send_early()
        if not engine.uplink.know_wire():
            engine.raise_closed()

    # --- receiving -------------------------------------------------------------

    async def receive(
        self, wanted: Callable[[Mail], bool] | None, timeout: float | None
    ) -> Mail:
        """Wait for the next message without a handler.

        Raises:
            RequestTimeout: It did not come in time.
            ClientDisconnected: The connection ended first.
            LocalProtocolError: Nobody turns this client.
        """
        engine, watch = self._engine, self._watch
        assert watch is not None
        self._check_loop(watch)
        end = None
        if timeout is not None:
            check_timeout(timeout)
            end = time.monotonic() + timeout
        while True:
            if engine.telling.is_lost_to_tell and engine.telling.loss_first():
                continue
            mail: Mail | None = engine.lock.run(engine.search.find, wanted)
            if mail is not None:
                return mail
            engine.receiving.check()
            if not engine.is_usable:
                engine.raise_closed()
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise RequestTimeout(f"nothing came within {timeout:g} s")
            await watch.wait_for_news(left)

    # --- asking ----------------------------------------------------------------

    async def call(
        self, command: str, content: Any, timeout: float | None, kind: Any
    ) -> Any:
        """What the server's handler returns."""
        read = reader_for(kind)
        engine = self._engine
        questions = engine.questions
        end = ttl = None
        if timeout is not None:
            end = end_of(timeout)
            ttl = milliseconds(end)
        watch = self._watch
        assert watch is not None
        if (
            self._early
            or not engine.link.writer.is_compact
            or asyncio.get_running_loop() is not watch.loop
        ):
            await self._agree(timeout)
            questions.check_wire()
        asked = questions.ask(command, content, ttl=ttl)
        watch.look_for_room()

        def too_late() -> RequestTimeout:
            return RequestTimeout(
                f"no answer to {command!r:.80} came within {timeout} s"
            )

        return await reply(questions, asked, read, end, too_late, watch.alarms)

    def stream(
        self, command: str, content: Any, timeout: float | None, kind: Any
    ) -> AsyncStream[Any]:
        """An async iterator over what the server's generator yields."""

        async def begin() -> tuple[Asker, Asked]:
            questions = self._engine.questions
            await self._agree(timeout)
            questions.check_wire()
            asked = questions.ask(command, content, is_stream=True)
            self._look()
            return questions, asked

        return AsyncStream(begin, reader_for(kind), timeout)

    def _look(self) -> None:
        assert self._watch is not None
        self._watch.look_for_room()

    async def get_client(self, client: ClientLike) -> dict[str, Any]:
        """Ask the server who somebody is."""
        who = spell_client(client)
        await self._agree(_ANSWER)
        if self._engine.uplink.wire == "classic":
            return read_answer(client, await self._ask_classic(who))
        try:
            info = await self.call("$GETCLT$", who, _ANSWER, dict)
        except RemoteError as error:
            nobody = error.code == "unknown_client"
            refusal = "$NOEXIST$" if nobody else error.message
            return read_answer(client, ClientAnswer(None, refusal))
        if isinstance(info.get("ip"), list):
            info["ip"] = tuple(info["ip"])
        return read_answer(client, ClientAnswer(info))

    async def _ask_classic(self, who: str) -> ClientAnswer:
        engine = self._engine
        async with self._asking:
            engine.uplink.write(engine.link.writer.control(GetClient(who)))
            engine.search.answers_due += 1
            while True:
                try:
                    mail = await self.receive(engine.questions.is_answer, _ANSWER)
                except RequestTimeout:
                    text = f"the server did not answer within {_ANSWER:g} s"
                    raise RequestTimeout(text) from None
                engine.search.answers_due -= 1
                if not engine.search.answers_due:
                    return engine.questions.read_answer(mail)
