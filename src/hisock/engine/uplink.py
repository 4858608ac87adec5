"""What a client sends, and on which wire; may be called from any thread."""

from __future__ import annotations

__all__ = ("Uplink",)

import time
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.batch import Batches
from hisock.engine.delivery import Delivery
from hisock.engine.post import FLUSH_SIZE
from hisock.engine.threads import in_this_process
from hisock.engine.waiting import wait_for_room
from hisock.errors import Overloaded, SendTimeout, SessionLost, WouldBlock
from hisock.hub.outbox import STALL
from hisock.session.events import Dropped
from hisock.session.resume import ACK_FRAMES, Written
from hisock.wire import classic, compact
from hisock.wire.compact import Encoded
from hisock.wire.frames import Regroup, Rename, Roster

if TYPE_CHECKING:
    from hisock.engine.blocking import ClientEngine

#: Seconds between two looks at a server that has nobody else to turn it.
_LOOK: Final = 0.01


#: Encodes what leaves before the welcome as it would be sent again. It has no limit:
#: on the classic wire the same message is some bytes shorter.
_KEPT = compact.Writer(0)


class Uplink:
    """The sending half of a client's engine.

    Args:
        engine: The engine.
        waits: Whether a send may wait while the outbox is full.

    Attributes:
        batches: What threads collect.
    """

    __slots__ = (
        "_engine",
        "_is_crowded",
        "_limits",
        "_link",
        "_lock",
        "_open_batches",
        "_outgoing",
        "_packer",
        "_pump",
        "_sent",
        "_waits",
        "_writer",
        "batches",
    )

    def __init__(self, engine: ClientEngine, *, waits: bool) -> None:
        self._engine = engine
        self._limits = engine.limits
        self._link = engine.link
        self._lock = engine.lock
        self._outgoing = engine.outgoing
        self._pump = engine.pump
        self._waits = waits
        #: Whether the next send is to wait for room.
        self._is_crowded = False
        #: Frames since somebody looked for acknowledgements.
        self._sent = 0
        #: Encodes for our own wire.
        self._packer = compact.Writer(engine.limits.message)
        #: What encodes messages, once both sides know which wire is spoken.
        self._writer: classic.Writer | compact.Writer | None = None
        self.batches = Batches(self.write)
        self._open_batches = self.batches.open

    # --- which wire ------------------------------------------------------------

    @property
    def wire(self) -> str | None:
        """``"compact"``, ``"websocket"``, or ``"classic"``; ``None`` until the server
        has answered."""
        connection = self._link.connection
        if self._writer is None and not connection.is_agreed:
            return None
        if connection.is_packed:
            return "websocket"
        writer = self._writer
        is_compact = connection.writes_compact if writer is None else writer.is_compact
        return "compact" if is_compact else "classic"

    def know_wire(self) -> bool:
        """Look whether both sides know which wire is spoken by now."""
        connection = self._link.connection
        if self._writer is None and connection.is_agreed:
            if connection.writes_compact:
                self._link.writer = self._packer
            self._writer = self._link.writer
            self.tell_roster()
        return self._writer is not None

    def forget_wire(self) -> None:
        """The server may be another by now; under the lock."""
        self._writer = None
        self._link.writer = self._engine.classic_writer
        self._engine.forget_wire()

    def agree(self, timeout: float) -> None:
        """Wait until both sides know which wire is spoken.

        Raises:
            SendTimeout: The server did not answer in time.
            ClientDisconnected: The connection ended first.
        """
        end = time.monotonic() + timeout
        while not self.know_wire():
            seen = self._pump.news
            if not (self._engine.is_usable and self._link.is_open):
                self._engine.raise_closed()
            left = end - time.monotonic()
            if self._link.connection.is_agreed:
                continue
            is_near = self._is_near()
            if self.know_wire():
                return
            if left <= 0:
                raise SendTimeout(
                    f"the server did not answer the hello within {timeout:g} s, so "
                    "what this content needs cannot be sent yet; is its run() called? "
                    "(bytes can be sent at once)"
                )
            self._engine.wait_more(min(left, _LOOK) if is_near else left, seen)

    def go_over(self, patience: float, timeout: float) -> str:
        """Wait until the server of a WebSocket has gone over to it; why not, if not.

        Args:
            patience: Seconds in which it is tried again after a cut.
            timeout: Seconds for all of it, if that is longer.

        Raises:
            ClientDisconnected: It refused, or cannot be trusted.
        """
        link, began = self._link, time.monotonic()
        end = began + max(patience, timeout)
        while not getattr(link.secure, "is_open", False):
            seen = self._pump.news
            if not (self._engine.is_usable and link.is_open):
                self._engine.raise_closed()
            left = (began + patience if link.is_dropped else end) - time.monotonic()
            if left <= 0:
                cuts = (e.reason for e in link.inbox if isinstance(e, Dropped))
                return next(cuts, f"it did not answer within {end - began:g} s")
            is_near = self._is_near()
            self._engine.wait_more(min(left, _LOOK) if is_near else left, seen)
        return ""

    def _is_near(self) -> bool:
        """Have a server in this very thread answer, where nobody else turns it; whether
        there is one."""
        try:
            address = self._link.sock.getpeername()
        except OSError:
            return False
        servers = [engine for engine in in_this_process() if hasattr(engine, "gate")]
        if not any(server.gate.admit(address) for server in servers):
            return False
        self._pump.try_pump(0.0)
        return True

    def tell_roster(self) -> None:
        """Ask to be told who joins and leaves, if a handler wants to know."""
        wants = self._engine.table.event("client_connect") or self._engine.table.event(
            "client_disconnect"
        )
        if wants and self._writer is not None and self._writer.is_compact:
            self.write(compact.encode(Roster(on=True)))

    # --- sending ---------------------------------------------------------------

    def send(
        self, command: str | None, content: Any, wish: Delivery | None = None
    ) -> None:
        """Send one message: a command with content, or raw content.

        Raises:
            ClientDisconnected: The connection has ended.
            ReservedCommand, NotSendable, MessageTooLarge: The message cannot be sent.
            SendTimeout: The server took nothing for 10 s.
            WouldBlock: The outbox is full and this client may not wait.
        """
        writer = self._writer
        if writer is None:
            self._send_early(command, content, wish)
            return
        if wish is None:
            frame = writer.message(command, content)
        else:
            frame = writer.message(command, content, wish.until)
            if wish.when_slow is not None and self._send_as(frame, wish, command):
                return
        # ``Batches.collect`` in place (bench/one_way.py).
        if (batches := self._open_batches) and (batch := batches.get(get_ident())):
            if frame.__class__ is bytes:
                batch.frames.append(frame)
                batch.size = size = batch.size + len(frame)
                if size >= FLUSH_SIZE:
                    self.batches.flush()
                return
            self.batches.flush()  # large: nothing is gained by joining
        link = self._link  # ``write`` in place (bench/single_send.py)
        if (
            link.outbox.size
            or self._is_crowded
            or link.is_dropped
            or not link.connection.is_open
        ):
            self._is_crowded = False
            if not self._write_behind(frame):
                self.send(command, content, wish)
            return
        self._sent += 1
        if self._outgoing.send(link, frame) or self._sent >= ACK_FRAMES:
            self.see_off()
            self._is_crowded = link.outbox.is_full

    def write(self, frame: Written) -> None:
        """Write frames after everything before them; waits for room where it may.

        Raises:
            SessionLost: Another server than before answers now, on another wire.
        """
        link = self._link
        is_open = self._engine.is_usable and link.connection.is_open
        if link.outbox.size or link.is_dropped or not is_open:
            if not self._write_behind(frame):
                raise SessionLost("the session was lost while this was about to leave")
            return
        if self._outgoing.send(link, frame):
            self.see_off()

    def _write_behind(self, data: Written) -> bool:
        """Write where something may be in the way; false if the wire is another now."""
        link, writer = self._link, self._writer
        if not (self._engine.is_usable and link.is_open):
            self._engine.raise_closed()
        if link.is_dropped:
            self._try_to_come_back()
        if link.outbox.is_full:
            self._wait_for_room()
        if self._writer is not writer and not self.know_wire():
            return False
        if writer is not None and self._link.writer.is_compact != writer.is_compact:
            return False
        self._lock.run(self._outgoing.write, link, data)
        self.see_off()
        return True

    def _try_to_come_back(self) -> None:
        """Who only sends comes back, too: take the next step, without waiting."""
        if not (self._lock.is_busy or self._engine.turn.claims):
            self._pump.try_pump(0.0)

    def _send_as(self, frame: Encoded, wish: Delivery, command: str | None) -> bool:
        """Send what may be dropped, or say that there is no room; whether that was all.

        Raises:
            WouldBlock: There is no room, and the sender wants to know.
        """
        link = self._link
        if not (self._engine.is_usable and link.is_open):
            self._engine.raise_closed()
        if self._open_batches:
            self.batches.flush()
        if link.is_dropped:
            self._try_to_come_back()
        if wish.is_loose:
            self._lock.run(self._outgoing.offer, link, frame, wish, command)
            if link.is_unheard:
                self._look()
            return True
        if wish.when_slow == "raise" and link.outbox.is_full:
            raise WouldBlock(f"{link.outbox.held} bytes wait to be sent already")
        return False

    def _send_early(
        self, command: str | None, content: Any, wish: Delivery | None
    ) -> None:
        """Send before the server has said which wire it speaks.

        A command with bytes means the same on both wires, so it may leave at once;
        anything else has to wait.
        """
        if not (self._engine.is_usable and self._link.is_open):
            self._engine.raise_closed()
        if not self._lock.is_busy:  # as in a signal handler, in the middle of a read
            self._pump.try_pump(0.0)
        if not self.send_at_once(command, content, wish):
            self.agree(STALL)
            self.send(command, content, wish)

    def send_at_once(
        self, command: str | None, content: Any, wish: Delivery | None
    ) -> bool:
        """As ``_send_early``, if it need not wait for the server's answer; else false.

        Raises:
            ReservedCommand, NotSendable, MessageTooLarge: The message cannot be sent.
        """
        if (
            self._link.is_dropped
            or not self.may_leave(command, content, wish)
            or self.know_wire()
        ):
            return False
        self._link.writer.message(command, content)  # what cannot be sent raises
        if self._link.outbox.is_full:
            self._wait_for_room()
        has_left = self._lock.run(
            self._write_early, lambda writer: writer.message(command, content)
        )
        if has_left is False:
            return False
        self.see_off()
        return True

    def may_leave(
        self, command: str | None, content: Any, wish: Delivery | None
    ) -> bool:
        """Whether a message means the same on both wires, and no proof has to come
        before it."""
        return (
            type(content) is bytes
            and wish is None
            and (command is not None or b" " not in content)
            and not self.is_held
        )

    @property
    def is_held(self) -> bool:
        """Whether nothing leaves until the server has let us in."""
        if self._engine.keeper.proof.is_secretive:
            return True
        connection = self._link.connection
        return connection.is_asked or connection.is_packed

    def _write_early(self, encode: Callable[[Any], Any]) -> bool:
        """Write on the wire that holds by now; it may have been settled just before.
        False if it has to wait: we were asked just now who we are."""
        if self.know_wire() or self._link.is_dropped:
            self._outgoing.write(self._link, encode(self._link.writer))
        elif self._link.connection.is_asked:
            return False
        else:
            classic_writer = self._engine.classic_writer
            self._link.send_early(encode(classic_writer), encode(_KEPT))
        return True

    def rename(self, frame: Rename | Regroup) -> None:
        """Tell the server another name or group."""
        if not (self._engine.is_usable and self._link.is_open):
            self._engine.raise_closed()
        if not self.know_wire():
            if self.rename_at_once(frame):
                return
            self.agree(STALL)
        self.note_wish(frame)
        encoded = self._link.writer.control(frame)
        batch = self._open_batches.get(get_ident())
        if batch is None:
            self.write(encoded)
        else:  # between what was sent before and after it
            batch.frames.append(encoded)
            batch.size += len(encoded)

    def rename_at_once(self, frame: Rename | Regroup) -> bool:
        """As ``rename``, if it need not wait for the server's answer; else false."""
        if self._link.is_dropped:
            self.note_wish(frame)
            return True  # the next hello says so
        if self.is_held or self.know_wire():
            return False
        if self._lock.run(self._rename_early, frame) is False:
            return False
        self.see_off()
        return True

    def _rename_early(self, frame: Rename | Regroup) -> bool:
        if not self._write_early(lambda writer: writer.control(frame)):
            return False
        self.note_wish(frame)
        return True

    def note_wish(self, frame: Rename | Regroup) -> None:
        """The program wants to be called something else from now on."""
        persona = self._engine.keeper.persona
        if isinstance(frame, Rename):
            persona.wants("name", frame.name)
        else:
            persona.wants("group", frame.group)

    def see_off(self) -> None:
        """Wait until what could not be written at once is, where one may wait: nobody
        else will do it while the program does other things."""
        link = self._link
        if link.is_unheard or self._sent >= ACK_FRAMES:
            self._look()
        if link.wants_writing and self._may_drain:
            self._drain(STALL, whole=True)

    @property
    def _may_drain(self) -> bool:
        return self._waits and not self._outgoing.unsent

    def _look(self) -> None:
        """Read, without waiting, what acknowledges what was sent."""
        link = self._link
        self._sent = 0
        if link.replay is None:
            return  # nothing is acknowledged
        bound = self._limits.outbox
        link.look_at = link.replay.next_look(bound)
        if self._outgoing.gather is not None or self._lock.is_busy:
            return  # the program's loop reads anyway
        if not self._is_overfed:
            self._pump.try_pump(0.0)
        if link.replay is not None:
            link.look_at = link.replay.next_look(bound)

    @property
    def _is_overfed(self) -> bool:
        """Whether more waits for ``update()`` than may."""
        return 0 < self._limits.queue <= self._engine.queued()

    def flush_unsent(self) -> None:
        """Write what handlers sent."""
        if self._outgoing.unsent:
            self._outgoing.flush()
            self.see_off()

    def flush_batches(self) -> None:
        """Write what this thread's batch has collected."""
        if self._open_batches:
            self.batches.flush()

    def flush(self) -> None:
        """Write what was collected: this thread is about to wait."""
        if self._open_batches:
            self.batches.flush()
        if self._outgoing.unsent:
            self.flush_unsent()

    def _wait_for_room(self) -> None:
        if self._outgoing.gather is not None:
            return  # the program's loop turns: a send's awaitable waits for room
        if not self._waits:
            self._lock.run(self._link.flush)
            if self._link.outbox.is_full:
                raise WouldBlock(
                    f"{self._link.outbox.held} bytes wait to be sent already; call "
                    "update() and try again"
                )
            return
        if self._drain(STALL, whole=False):
            return
        if self._is_overfed:
            raise Overloaded(
                f"{self._engine.queued()} bytes wait for update(), so that nothing "
                "more can be read, nor sent; call update() more often"
            )
        raise SendTimeout(
            f"the server took nothing for {STALL:g} s while "
            f"{self._link.outbox.held} bytes were waiting for it"
        )

    def _drain(self, patience: float, *, whole: bool) -> bool:
        """Write what waits, and read meanwhile, so that both sides can go on.

        Args:
            patience: Seconds in which something has to move.
            whole: Whether to go on until all is written, else until there is room.

        Returns:
            Whether it came to that.
        """
        link, outbox = self._link, self._link.outbox
        end = time.monotonic() + patience
        part = min(0.1, patience)
        while link.wants_writing if whole else outbox.is_full:
            if link.is_over and not link.is_dropped:
                break
            before = outbox.held + outbox.size
            reading = link.is_open and not self._is_overfed
            if not (reading and self._pump.try_pump(part)):
                wait_for_room(link.sock, part)
            self._lock.run(link.flush)
            now = time.monotonic()
            if outbox.held + outbox.size < before:
                end = now + patience
            elif now >= end or (self._is_overfed and not outbox.size):
                return False
        return True
