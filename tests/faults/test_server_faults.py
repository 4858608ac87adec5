"""The faults of hisock 1.1 against our server, by the numbers of the table of faults.

A raw socket plays the bad peer; the honest client of the ``Stage`` must not notice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

import pytest

from hisock import (
    ClientInfo,
    HiSockError,
    Limits,
    connect,
    start_server,
    start_threaded_server,
    threaded_connect,
    utils,
)
from hisock.errors import (
    AlreadyRunning,
    InvalidOption,
    MessageTooLarge,
    UnknownClient,
    UnknownGroup,
)

from .raw import (
    HOST,
    SERVER_GOODBYE,
    Raw,
    Stage,
    counts_descriptors,
    ends_within,
    eventually,
    frame,
    header,
    hello,
    in_thread,
    needs_posix,
    open_descriptors,
    turn_server,
)

pytestmark = pytest.mark.timeout(20)

#: Lengths that Python's ``int`` forgives, or that ended 1.1, each as sent.
BAD_LENGTHS = {
    "plus": b"+5",
    "underscore": b"1_0",
    "spaces before": b"  5",
    "leading zeros": b"00000000000005",
    "one leading zero": b"05",
    "minus": b"-1",
    "fourteen digits": b"99999999999999",
    "sixteen digits": b"9999999999999999",
    "letters": b"abc",
    "float": b"5.0",
    "exponent": b"1e3",
    "hexadecimal": b"0x10",
    "not a number": b"NaN",
    "arabic digit": "٣".encode(),
    "fullwidth digit": "５".encode(),  # noqa: RUF001  # that is the fault
    "zero byte": b"5\0",
    "tab": b"5\t",
    "newline": b"5\n",
    "two numbers": b"5 5",
    "nothing": b"",
}

BAD_HELLOS = {
    "no json": b"$CLTHELLO$ {nope",
    "no utf-8": b'$CLTHELLO$ {"name": "\xff\xfe", "group": null}',
    "no name": b'$CLTHELLO$ {"group": null}',
    "no group": b'$CLTHELLO$ {"name": "bad"}',
    "name is a list": b'$CLTHELLO$ {"name": ["bad"], "group": null}',
    "name is a number": b'$CLTHELLO$ {"name": 5, "group": null}',
    "group is an object": b'$CLTHELLO$ {"name": "bad", "group": {}}',
    "an array": b'$CLTHELLO$ ["bad", null]',
    "nothing": b"$CLTHELLO$ ",
    "no space": b'$CLTHELLO${"name": "bad", "group": null}',
    "NaN": b'$CLTHELLO$ {"name": "bad", "group": NaN}',
    "a key twice": b'$CLTHELLO$ {"name": "bad", "name": "worse", "group": null}',
    "deep": b'$CLTHELLO$ {"name": ' + b"[" * 16_000,
    "huge number": b'$CLTHELLO$ {"name": "bad", "group": ' + b"9" * 5000 + b"}",
    "lone surrogate": b'$CLTHELLO$ {"name": "\\ud800", "group": null}',
    "control character": b'$CLTHELLO$ {"name": "a\\u0000", "group": null}',
    "name too long": b'$CLTHELLO$ {"name": "' + b"a" * 256 + b'", "group": null}',
    "hello too long": b"$CLTHELLO$ " + b" " * 16 * 1024 + hello("bad")[11:],
    "another command": b"ping x",
}


def by_name(table: dict[str, bytes]) -> pytest.MarkDecorator:
    """Parametrise with the rows of a table."""
    return pytest.mark.parametrize("given", list(table.values()), ids=list(table))


def is_bad(client: ClientInfo) -> bool:
    """Whether a handler's client is another than the honest one."""
    return bool(client["name"] != "honest")


# --- bytes -------------------------------------------------------------------------


def test_h01_split_header() -> None:
    """A header may come in any two pieces."""
    whole = frame(b"ping hi")
    with Stage() as stage:
        stage.record("ping")
        with stage.peer() as peer:
            for cut in range(1, 17):
                peer.send(whole[:cut])
                stage.check()
                peer.send(whole[cut:])
        eventually(lambda: len(stage.ran) == 16, "every message arrives")
        assert set(stage.ran) == {("ping", b"hi")}


def test_h01_split_hello() -> None:
    """So may the hello, and whatever comes with it, even byte by byte."""
    whole = frame(hello("slow")) + frame(b"ping hi")
    with Stage() as stage:
        stage.record("ping")
        with stage.stranger() as peer:
            for at in range(len(whole)):
                peer.send(whole[at : at + 1])
                stage.check()
            eventually(lambda: stage.ran, "the message after the hello")
        assert stage.joined[1:] == ["slow"]
        assert stage.ran == [("ping", b"hi")]


def test_h02_split_body() -> None:
    """A body may come in any two pieces, and its handler gets all of it."""
    whole = frame(b"ping 0123456789")
    with Stage() as stage:
        stage.record("ping")
        with stage.peer() as peer:
            for cut in range(16, len(whole)):
                peer.send(whole[:cut])
                stage.check()
                peer.send(whole[cut:])
        cuts = len(whole) - 16
        eventually(lambda: len(stage.ran) == cuts, "every message arrives")
        assert set(stage.ran) == {("ping", b"0123456789")}


def test_h02b_five_megabytes() -> None:
    """A body larger than any read arrives whole, and what follows is in step."""
    large = bytes(range(256)) * 20_000
    with Stage() as stage:
        stage.record("ping")
        with stage.peer() as peer:
            peer.send(frame(b"ping " + large) + frame(b"ping after"))
            eventually(lambda: len(stage.ran) == 2, "both messages arrive")
        assert stage.ran == [("ping", large), ("ping", b"after")]


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_h03_connect_and_close(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """A port scan costs nothing: no handler, no line in the log."""
    caplog.set_level(logging.INFO, "hisock.server")
    with Stage() as stage:
        lines = len(caplog.records)
        for _ in range(30):
            with stage.stranger() as scan:
                if how == "reset":
                    scan.reset()
        stage.check()
        assert stage.joined == ["honest"]
        assert len(caplog.records) == lines


def test_h04_silent_client() -> None:
    """Who says nothing delays nobody, and is gone after the handshake's time."""
    with Stage(limits=Limits(handshake=0.3)) as stage:
        silent = [stage.stranger() for _ in range(20)]
        assert stage.check() < 0.25
        for peer in silent:
            with peer:
                assert peer.take_all() == b""
        assert stage.joined == ["honest"]


@by_name(BAD_HELLOS)
def test_h05_bad_hello(given: bytes) -> None:
    """A hello that is none ends that one connection, without an answer."""
    with Stage() as stage:
        with stage.stranger() as peer:
            peer.throw(frame(given))
            assert peer.take_all() == b""
        stage.check()
        assert stage.joined == ["honest"]


def test_h05e_hello_without_its_prefix() -> None:
    """Only ``$CLTHELLO$`` says hello."""
    with Stage() as stage:
        with stage.stranger() as peer:
            peer.send(frame(b'{"name":"n","group":"g"}'))
            assert peer.take_all() == b""
        stage.check()
        assert stage.joined == ["honest"]


@pytest.mark.parametrize("given", [b"HEAD / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00"])
def test_h06_http_or_tls(given: bytes) -> None:
    """A browser tab that meets the port is sent away at once."""
    with Stage() as stage:
        stage.record("message")
        with stage.stranger() as peer:
            peer.throw(given)
            assert peer.take_all() == b""
        stage.check()
        assert stage.joined == ["honest"]
        assert stage.ran == []


@by_name(BAD_LENGTHS)
def test_h07_length_grammar(given: bytes) -> None:
    """A length is digits and then spaces; for all else the client is ended, told so."""
    with Stage() as stage:
        stage.record("ping", "message")
        with stage.peer() as peer:
            peer.throw(given.ljust(16) + b"ping x" * 10)
            assert peer.take_all() == frame(SERVER_GOODBYE)
        eventually(lambda: stage.left == ["bad"], "it leaves")
        assert stage.ran == []


@by_name(BAD_LENGTHS)
def test_h07_length_grammar_of_the_hello(given: bytes) -> None:
    """The same holds for the length before a hello; strangers get no answer."""
    with Stage() as stage:
        with stage.stranger() as peer:
            peer.throw(given.ljust(16) + hello())
            assert peer.take_all() == b""
        stage.check()
        assert stage.joined == ["honest"]


def test_h07_a_length_over_the_limit_is_refused_at_its_header() -> None:
    """The limit itself passes; one more ends the client before the body comes."""
    with Stage(limits=Limits(message=1000)) as stage:
        stage.record("message")
        with stage.peer() as peer:
            peer.send(frame(b"x" * 1000))
            eventually(lambda: stage.ran, "the largest message arrives")
            peer.send(header(1001))
            assert peer.take_all() == frame(SERVER_GOODBYE)
        assert stage.ran == [("message", b"x" * 1000)]


def test_h07b_two_gigabytes_claimed() -> None:
    """A claimed length is no message: nothing short is handed out as complete."""
    with Stage() as stage:
        stage.record("ping", "message")
        with stage.peer() as peer:
            peer.throw(header(2_000_000_000) + b"ping x")
            assert peer.take_all() == frame(SERVER_GOODBYE)
        assert stage.ran == []


def test_h07c_zero_length() -> None:
    """An empty message is a message, and the next one is not lost."""
    with Stage() as stage:
        stage.record("message")
        with stage.peer() as peer:
            peer.send(frame(b"") * 2 + frame(b"ping x"))
            eventually(lambda: len(stage.ran) == 3, "three messages")
        bodies = [body for _, body in stage.ran]
        assert bodies == [b"", b"", b"ping x"]


@pytest.mark.parametrize("how", ["closed", "half closed", "reset"])
@pytest.mark.parametrize("amid", [b"", b"1", frame(b"ping hi")[:20]])
def test_h08_end_without_goodbye(how: str, amid: bytes) -> None:
    """A client that just ends has left, once; half a message of it is dropped."""
    with Stage() as stage:
        stage.record("ping", "message")
        with stage.peer() as peer:
            peer.send(amid)
            match how:
                case "closed":
                    peer.sock.close()
                case "half closed":
                    peer.sock.shutdown(1)
                case "reset":
                    peer.reset()
            eventually(lambda: stage.left == ["bad"], "it leaves", within=1.0)
        stage.check()
        assert stage.left == ["bad"]
        assert stage.ran == []


# --- which handler runs ------------------------------------------------------------


def test_h09_prefix_match() -> None:
    """A command is the whole word: each message runs the one handler it names."""
    with Stage() as stage:
        stage.record("ping", "pingpong")
        with stage.peer() as peer:
            for body in (b"pingpong hi", b"pinged hi", b"ping hi", b"pin hi"):
                peer.send(frame(body))
            stage.check()
        eventually(lambda: len(stage.ran) == 2, "both")
        assert stage.ran == [("pingpong", b"hi"), ("ping", b"hi")]


@pytest.mark.parametrize("word", ["join", "leave", "name_change", "group_change"])
def test_h10_reserved_handlers_from_the_wire(word: str) -> None:
    """No event happens because somebody wrote its name."""
    happened: list[str] = []
    with Stage() as stage:
        stage.server.on("name_change")(lambda client, old, new: happened.append(new))
        stage.server.on("group_change")(lambda client, old, new: happened.append(new))
        with stage.peer() as peer:
            peer.send(frame(word.encode()) + frame(f"{word} x y".encode()))
            peer.send(frame(b"echo still here"))
            assert SERVER_GOODBYE not in peer.take_frame()
            assert stage.joined == ["honest", "bad"]
            assert stage.left == []
            assert happened == []


def test_h10_message_event_from_the_wire() -> None:
    """``message x`` is a message like any other: seen once, and whole."""
    with Stage() as stage:
        stage.record("message")
        with stage.peer() as peer:
            peer.send(frame(b"message x"))
            eventually(lambda: stage.ran, "it is seen")
        assert stage.ran == [("message", b"message x")]


def test_h10b_reserved_messages_are_consumed() -> None:
    """What hisock says to itself reaches no handler but that of its event."""
    changes: list[tuple[Any, Any]] = []
    seen: list[int] = []
    with Stage() as stage:

        @stage.server.on("message")
        def message(client: ClientInfo, number: int) -> None:
            if is_bad(client):
                seen.append(number)

        @stage.server.on("name_change")
        def name_change(client: ClientInfo, old: str, new: str) -> None:
            changes.append((old, new))

        with stage.peer() as peer:
            peer.send(frame(b"$CHNAME$ 5") + frame(b"$CHGROUP$ 6"))
            peer.send(frame(b"$DH_NUMS$") + frame(b"$GETCLT$ honest") + frame(b"42"))
            eventually(lambda: seen, "the one message")
        eventually(lambda: stage.left == ["5"], "it leaves under its new name")
    assert changes == [("bad", "5")]
    assert seen == [42]


@pytest.mark.parametrize("event", ["ping", "message", "join", "leave", "name_change"])
def test_h11_handler_exception(event: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a handler raises is logged with its place and costs nobody anything."""
    caplog.set_level(logging.ERROR, "hisock.server")
    with Stage() as stage:
        stage.record("after")

        def fail(client: ClientInfo) -> None:
            if is_bad(client):
                raise ZeroDivisionError("on purpose")

        stage.server.on(event, override=True)(fail)
        with Raw.call(stage.address) as peer:
            peer.send(frame(hello()) + frame(b"ping x") + frame(b"$CHNAME$ x"))
            peer.send(frame(b"after y"))
            eventually(lambda: stage.ran, "its next message")
        assert stage.ran == [("after", b"y")]
        eventually(lambda: "test_server_faults.py" in caplog.text, "the log names it")
    assert "ZeroDivisionError: on purpose" in caplog.text


def test_h11_errors_raise_lets_it_out() -> None:
    """``errors="raise"`` is for those who want 1.1's way; the next run goes on."""
    ran: list[bytes] = []
    with start_server((HOST, 0), errors="raise") as server:

        @server.on("bad")
        def bad(client: ClientInfo, message: bytes) -> None:
            raise ZeroDivisionError

        @server.on("good")
        def good(client: ClientInfo, message: bytes) -> None:
            ran.append(message)

        with Raw.call(server.get_addr()) as client:
            client.send(frame(hello()) + frame(b"bad") + frame(b"good 1"))
            with pytest.raises(ZeroDivisionError):
                server.run()
            server.run()
    assert ran == [b"1"]


def test_h12_failed_conversion(caplog: pytest.LogCaptureFixture) -> None:
    """Content that is not what the hint asks for is refused, with what was wrong."""
    numbers: list[int] = []
    with Stage() as stage:

        @stage.server.on("num")
        def num(client: ClientInfo, number: int) -> None:
            numbers.append(number)

        with stage.peer() as peer:
            peer.send(frame(b"num abc") + frame(b"num") + frame(b"num 5"))
            eventually(lambda: numbers, "the good one")
    assert numbers == [5]
    assert "expected int, got b'abc'" in caplog.text
    assert "byte indices" not in caplog.text


@pytest.mark.parametrize(
    ("hint", "wanted"), [(int, 42), (float, 42.0), (str, "42"), (bytes, b"42")]
)
def test_h12b_hints_are_not_swapped(hint: type, wanted: object) -> None:
    """``message`` with the hint int gets an int, with float a float."""
    got: list[object] = []
    with Stage() as stage:

        def message(client: ClientInfo, content: Any) -> None:
            if is_bad(client):
                got.append(content)

        message.__annotations__["content"] = hint
        stage.server.on("message")(message)
        stage.server.on("num")(message)
        with stage.peer() as peer:
            peer.send(frame(b"42") + frame(b"num 42"))
            eventually(lambda: got, "it is seen")
    assert got[0] == wanted
    assert type(got[0]) is hint


# --- slow and vanished readers -----------------------------------------------------


@pytest.mark.parametrize(
    ("inside", "many"),
    [(True, 1), (False, 1), (False, 12)],
    ids=["in a handler", "by a thread", "most of them"],
)
def test_f24_h13_slow_reader(
    inside: bool, many: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Who never reads delays nobody, and is cut with the reason in the log."""
    behind: SimpleQueue[int] = SimpleQueue()
    data = b"x" * 16 * 1024
    caplog.set_level(logging.INFO, "hisock.server")
    with Stage(limits=Limits(outbox=256 * 1024)) as stage:
        stage.server.on("go")(lambda: stage.server.send_all_clients("blob", data))
        with (
            contextlib.ExitStack() as stack,
            threaded_connect(stage.address, "reader") as reader,
        ):
            for _ in range(many):
                stack.enter_context(stage.peer("slow", buffer=4096))
            reader.on("blob")(lambda content: behind.get_nowait())
            stage.honest.on("blob")(lambda: None)
            eventually(lambda: "reader" in stage.joined, "the reader joins")
            rounds = 0
            while len(stage.left) < many:
                rounds += 1
                assert rounds < 2000, "the slow reader was never cut"
                behind.put(rounds)
                if inside:
                    reader.send("go")
                else:
                    stage.server.send_all_clients("blob", data)
                eventually(behind.empty, "the others read on", within=1.0)
                stage.honest.update()
            assert "reader" not in stage.left
    assert "slow consumer" in caplog.text


def test_h13_one_large_message_is_no_slow_reader() -> None:
    """An empty outbox takes any one message: a large one cuts no honest reader."""
    large = b"x" * 24 * 1024 * 1024
    limits = Limits(message=len(large) + 16, outbox=1024 * 1024)
    with (
        Stage(limits=limits) as stage,
        connect(stage.address, "reader", limits=limits) as reader,
    ):
        eventually(lambda: "reader" in stage.joined, "the reader joins")
        sender = in_thread(lambda: stage.server.send_client_raw("reader", large))
        assert reader.recv_raw() == large
        assert ends_within(sender, 5.0)


def test_f42_slow_readers_share_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond ``Limits.memory`` the slowest are cut, though each alone may have more."""
    bound = 1024 * 1024
    data = b"x" * 128 * 1024
    limits = Limits(memory=bound, outbox=64 * bound)
    with Stage(limits=limits) as stage, contextlib.ExitStack() as stack:
        for number in range(6):
            stack.enter_context(stage.peer(f"p{number}", "slow", buffer=4096))
        held = stage.server.stats
        rounds = 0
        while not stage.left or held()["buffered_bytes"] > bound:
            rounds += 1
            assert rounds < 2000, "nobody was cut"
            with contextlib.suppress(UnknownGroup):
                stage.server.send_group("slow", "blob", data)
            stage.check()
    assert "all clients together hold too much" in caplog.text


@needs_posix
def test_h14_broadcast_to_a_reset_peer() -> None:
    """A send to somebody who just vanished is that one's loss alone."""
    left: list[Any] = []
    with start_server((HOST, 0), blocking=False) as server:
        server.on("leave")(lambda client: left.append(client["name"]))

        @server.on("go")
        def go(client: ClientInfo, message: bytes) -> None:
            for _ in range(3):
                server.send_all_clients("news", message)

        with connect(server.get_addr(), "sender") as sender:
            turn_server(server, lambda: len(server) == 1, "the sender")
            victim = Raw.call(server.get_addr())
            victim.send(frame(hello("victim")))
            with connect(server.get_addr(), "other") as other:
                turn_server(server, lambda: len(server) == 3, "all three")
                sender.send("go", "hi")
                victim.reset()
                turn_server(server, lambda: left == ["victim"], "the victim leaves")
                for client in (sender, other):
                    assert [client.recv_raw() for _ in range(3)] == [b"news hi"] * 3
                server.send_all_clients("later")
                assert other.recv_raw() == b"later "


# --- names, roster -----------------------------------------------------------------


def test_h15_duplicate_names() -> None:
    """Two may have one name; sends go to the oldest, with a warning."""
    with Stage() as stage, stage.peer("same") as first, stage.peer("same") as second:
        with pytest.warns(UserWarning, match="2 clients have the name 'same'"):
            stage.server.send_client_raw("same", b"one")
        assert next_body(first) == b"one"
        first.sock.close()
        eventually(lambda: "same" in stage.left, "the first leaves")
        stage.server.send_client_raw("same", b"two")
        assert next_body(second) == b"two"


def next_body(peer: Raw) -> bytes:
    """The next body that is not about other clients."""
    while (body := peer.take_frame()).startswith((b"$CLTCONN$", b"$CLTDISCONN$")):
        pass
    return body


def test_h16_get_client(capfd: pytest.CaptureFixture[str]) -> None:
    """With the roster on ``$GETCLT$`` is answered in whole JSON, and prints nothing."""
    with Stage() as stage, stage.peer() as peer:
        for who in (b"honest", b"nobody", b"127.0.0.1:99999", b"", b"a b"):
            peer.send(frame(b"$GETCLT$ " + who))
            answer = json.loads(peer.take_frame())
            if who == b"honest":
                assert set(answer) == {"ip", "name", "group"}
            else:
                assert set(answer) == {"traceback"}
    assert capfd.readouterr() == ("", "")


def test_h16_roster_off_tells_nothing() -> None:
    """``roster=False``: no client gets another's address, asked or not."""
    with Stage(roster=False) as stage:
        port = str(stage.honest.get_client_addr()[1]).encode()
        with stage.peer() as peer:
            for who in (b"honest", f"{HOST}:{port.decode()}".encode(), b"bad", b"x"):
                peer.send(frame(b"$GETCLT$ " + who))
                answer = peer.take_frame()
                assert set(json.loads(answer)) == {"traceback"}
                assert port not in answer


def test_h18_roster_tells_the_others() -> None:
    """With the roster on the others hear of a join and a leave, once each."""
    with Stage() as stage, stage.peer("watcher") as watcher:
        with stage.peer("guest", "g") as guest:
            told = {"ip": list(guest.address), "name": "guest", "group": "g"}
        for word in (b"$CLTCONN$", b"$CLTDISCONN$"):
            token, _, info = watcher.take_frame().partition(b" ")
            assert (token, json.loads(info)) == (word, told)


def test_h18_roster_off_is_quiet() -> None:
    """``roster=False``: joins and leaves cost nobody a message."""
    with Stage(roster=False) as stage, stage.peer("watcher") as watcher:
        with stage.peer("guest"):
            pass
        eventually(lambda: stage.left == ["guest"], "the guest leaves")
        stage.server.disconnect_client("watcher")
        assert watcher.take_all() == frame(SERVER_GOODBYE)


# --- sizes, look-ups, caps ---------------------------------------------------------


def test_h19_length_over_the_header() -> None:
    """A message whose length the header cannot hold is refused, before a byte of it."""
    with Stage(header_len=2) as stage, stage.peer(header_len=2) as peer:
        with pytest.raises(MessageTooLarge, match="header_len 2 cannot hold"):
            stage.server.send_client("bad", "ping", b"x" * 200)
        stage.server.send_client_raw("bad", b"in step")
        assert peer.take_frame(2) == b"in step"


def test_h19_in_a_broadcast(caplog: pytest.LogCaptureFixture) -> None:
    """To many it goes to those whose header can hold it; the log names the other."""
    with (
        Stage(roster=False) as stage,
        stage.peer("small", header_len=2) as small,
        stage.peer("large") as large,
    ):
        stage.honest.on("news")(lambda: None)
        stage.server.send_all_clients("news", b"x" * 200)
        stage.server.send_all_clients("news")
        assert large.take_frame() == b"news " + b"x" * 200
        assert small.take_frame(2) == b"news "
    assert "sent to many cannot reach {'ip'" in caplog.text
    assert "'name': 'small'" in caplog.text
    assert "header_len 2 cannot hold" in caplog.text
    assert "'large'" not in caplog.text


def test_h19b_headers_count_bytes() -> None:
    """A header counts bytes of UTF-8, not letters."""
    assert utils.make_header("é", 16) == header(2)
    with Stage() as stage, stage.peer() as peer:
        stage.server.send_client("bad", "grüß", "é€😀")
        body = "grüß é€😀".encode()
        assert peer.take(16 + len(body)) == frame(body)


def test_h20_max_connections() -> None:
    """``max_connections`` is how many are served at once; a place is free again."""
    with Stage(max_connections=2) as stage:
        with stage.peer("second"):
            with stage.stranger() as third:
                third.send(frame(hello("third")) + frame(b"echo x"))
                assert third.take_all() == frame(SERVER_GOODBYE)
            assert len(stage.server) == 2
        eventually(lambda: stage.left == ["second"], "the second leaves")
        stage.peer("fourth").sock.close()
        assert stage.joined == ["honest", "second", "fourth"]


LOOK_UPS: dict[str, Callable[[Any, Any], object]] = {
    "send_client": lambda server, who: server.send_client(who, "x"),
    "send_client_raw": lambda server, who: server.send_client_raw(who, "x"),
    "disconnect_client": lambda server, who: server.disconnect_client(who),
    "get_client": lambda server, who: server.get_client(who),
}


@pytest.mark.parametrize("call", list(LOOK_UPS.values()), ids=list(LOOK_UPS))
@pytest.mark.parametrize("who", ["nobody", f"{HOST}:1", (HOST, 1)])
def test_h21_unknown_client(call: Callable[[Any, Any], object], who: Any) -> None:
    """A client that is not here is the documented TypeError, wherever it is named."""
    with Stage() as stage:
        with pytest.raises(UnknownClient) as caught:
            call(stage.server, who)
        assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    "who",
    [("10.0.0.255", 65535), "255.255.255.255:65535", ("::1", 65535), "[fe80::1]:80"],
)
def test_h22_whole_range_of_addresses(who: Any) -> None:
    """Octet 255, port 65535 and IPv6 are addresses: of nobody here, but no mistake."""
    with Stage() as stage, pytest.raises(UnknownClient):
        stage.server.get_client(who)


@pytest.mark.parametrize("who", [("10.0.0.256", 1), ("10.0.0.1", 65536), ("x", 1)])
def test_h22_what_is_no_address(who: Any) -> None:
    """What cannot be an address is the documented ValueError."""
    with Stage() as stage, pytest.raises(ValueError, match="is n"):
        stage.server.get_client(who)


def test_h22_ipv6() -> None:
    """A server at an IPv6 address serves its clients by it."""
    try:
        server = start_threaded_server(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with server, connect(server.get_addr(), "six") as client:
        eventually(lambda: len(server) == 1, "it joins")
        host, port = client.get_client_addr()
        assert server.get_client(f"[{host}]:{port}")["name"] == "six"


@counts_descriptors
@pytest.mark.parametrize("how", ["one", "all", "close"])
def test_h23_sockets_are_really_closed(how: str) -> None:
    """A client is told and its socket closed, though it never closes its own."""
    server = start_threaded_server((HOST, 0))
    with server, Raw.call(server.get_addr()) as peer:
        peer.send(frame(hello()))
        eventually(lambda: len(server) == 1, "it joins")
        sock = server.get_client("bad")["socket"]
        match how:
            case "one":
                server.disconnect_client("bad")
            case "all":
                server.disconnect_all_clients()
            case "close":
                server.close()
        assert peer.take_all() == frame(SERVER_GOODBYE)
        eventually(lambda: sock.fileno() < 0, "closed", within=1.5)
        assert len(server) == 0


# --- stopping, threads, time -------------------------------------------------------


@pytest.mark.parametrize("company", ["silent", "joined", "slow"])
def test_h24_stop_from_outside(company: str) -> None:
    """``stop_server`` and ``join`` are through in a second, whoever is connected."""
    server = start_threaded_server((HOST, 0))
    server.start_server()
    with Raw.call(server.get_addr(), buffer=4096) as peer:
        if company in ("joined", "slow"):
            peer.send(frame(hello()))
            eventually(lambda: len(server) == 1, "it joins")
        if company == "slow":
            for _ in range(8):
                server.send_all_clients("blob", b"x" * 1024 * 1024)
        began = time.monotonic()
        server.stop_server()
        server.join()
        assert time.monotonic() - began < 1.0
    server.close()


def test_h24_stop_from_a_handler() -> None:
    """In a handler stop only sets the flag: its thread ends after the handler."""
    server = start_threaded_server((HOST, 0))
    done = threading.Event()

    @server.on("stop")
    def stop(client: ClientInfo) -> None:
        server.stop_server()
        server.join()  # from its own thread: returns at once
        done.set()

    server.start_server()
    with connect(server.get_addr()) as client:
        client.send("stop")
        assert done.wait(1.0)
        assert ends_within(in_thread(server.join), 1.0)


def test_h24_second_start_raises() -> None:
    """A thread is started once; a second start says so, also after the stop."""
    server = start_threaded_server((HOST, 0))
    server.start_server()
    with pytest.raises(AlreadyRunning):
        server.start_server()
    server.stop_server()
    server.join()
    with pytest.raises(RuntimeError):
        server.start_server()


def test_h24_stop_before_start() -> None:
    """A server that never started stops and joins without a wait."""
    server = start_threaded_server((HOST, 0))
    server.stop_server()
    assert ends_within(in_thread(server.join), 1.0)


def test_h24_close_wakes_a_waiting_run() -> None:
    """``close()`` from another thread ends a ``run()`` that waits, within a second."""
    server = start_server((HOST, 0))
    turning = in_thread(server.run)
    with Raw.call(server.get_addr()) as peer:
        peer.send(frame(hello()))
        eventually(lambda: len(server) == 1, "the turn is on")
        peer.reset()
    server.close()
    assert ends_within(turning, 1.0)
    server.run()  # does nothing


def test_h25_threads_never_interleave() -> None:
    """Messages of many threads to one client come whole, each thread's in order."""
    threads, each = 4, 300
    with Stage(roster=False) as stage, stage.peer() as peer:

        def talk(who: int) -> None:
            for number in range(each):
                stage.server.send_client("bad", f"t{who}", b"%d " % number * 50)

        talkers = [in_thread(lambda who=who: talk(who)) for who in range(threads)]  # type: ignore[misc]  # the default binds it
        came: dict[bytes, list[int]] = {}
        for _ in range(threads * each):
            word, _, rest = peer.take_frame().partition(b" ")
            numbers = set(rest.split())
            assert len(numbers) == 1
            came.setdefault(word, []).append(int(numbers.pop()))
        assert all(ends_within(talker, 1.0) for talker in talkers)
    assert sorted(came) == [b"t0", b"t1", b"t2", b"t3"]
    assert all(numbers == list(range(each)) for numbers in came.values())


def test_h25_disconnecting_amid_an_iteration() -> None:
    """A handler may end clients, itself and all others, while it goes through them."""
    with Stage() as stage:

        @stage.server.on("purge")
        def purge(client: ClientInfo, message: bytes) -> None:
            for info in stage.server.clients.values():
                if info["name"] != "honest":
                    stage.server.disconnect_client(info)
            stage.ran.append(("purge", len(stage.server)))

        peers = [stage.peer(f"p{number}") for number in range(8)]
        peers[3].send(frame(b"purge") + frame(b"purge never seen"))
        eventually(lambda: len(stage.left) == 8, "all of them leave")
        for peer in peers:
            with peer:
                assert peer.take_all().endswith(frame(SERVER_GOODBYE))
        assert stage.ran == [("purge", 1)]
        assert sorted(map(str, stage.left)) == [f"p{number}" for number in range(8)]


def test_f30_disbanding_a_group_amid_an_iteration() -> None:
    """Who goes through a group may empty it, and send to it and others meanwhile."""
    with Stage() as stage:
        server = stage.server

        @server.on("disband")
        def disband(client: ClientInfo, message: bytes) -> None:
            for each in server.group("red"):
                server.leave_group(each, "red")
                server.send_group("blue", "gone", str(each["name"]))
            with pytest.raises(UnknownGroup):
                server.send_group("red", "gone", "nobody")
            stage.ran.append(("left in it", len(server.group("red"))))

        with contextlib.ExitStack() as stack:
            names = [f"p{number}" for number in range(6)]
            peers = [stack.enter_context(stage.peer(name)) for name in names]
            for name in names:
                server.join_group(name, "red")
                server.join_group(name, "blue")
            peers[2].send(frame(b"disband"))
            for peer in peers:
                assert [taken(peer, b"gone") for _ in names] == [
                    b"gone %b" % name.encode() for name in names
                ]
        assert stage.ran == [("left in it", 0)]


def taken(peer: Raw, command: bytes) -> bytes:
    """The next body with that command; the news of others between are left out."""
    while not (body := peer.take_frame()).startswith(command):
        pass
    return body


@pytest.mark.parametrize("whom", ["the client", "everybody", "the server"])
def test_f31_closing_in_join(whom: str) -> None:
    """Who has just joined is told of its end, and leaves once; sends raise or go
    nowhere, and whatever is closed may be closed again."""
    server = start_threaded_server((HOST, 0))
    told: list[tuple[str, str | None]] = []
    server.on("leave")(lambda client: told.append(("leave", client["name"])))

    @server.on("join")
    def join(client: ClientInfo) -> None:
        told.append(("join", client["name"]))
        for _ in range(2):
            with contextlib.suppress(UnknownClient):
                match whom:
                    case "the client":
                        server.disconnect_client(client)
                    case "everybody":
                        server.disconnect_all_clients()
                    case _:
                        server.close()
        with contextlib.suppress(UnknownClient):
            server.send_client(client, "news")

    with server, Raw.call(server.get_addr()) as peer:
        peer.send(frame(hello()) + frame(b"it"))
        assert peer.take_all().endswith(frame(SERVER_GOODBYE))
        peer.sock.close()
        eventually(lambda: len(told) == 2, "it leaves")
    assert told == [("join", "bad"), ("leave", "bad")]


def test_f29_a_handler_that_never_returns() -> None:
    """Others are served, what its own client said waits, and ``close`` does not."""
    let_go = threading.Event()
    held: list[bytes] = []
    server = start_threaded_server((HOST, 0))
    server.on("echo")(lambda client, text: server.send_client_raw(client, text))

    @server.on("hold", threaded=True)
    def hold(client: ClientInfo, message: bytes) -> None:
        held.append(message)
        let_go.wait(30)

    with server:
        where = server.get_addr()
        with Raw.call(where) as peer, connect(where, "ann") as ann:
            peer.send(
                frame(hello()) + b"".join(frame(b"hold %d" % n) for n in range(1000))
            )
            eventually(lambda: held, "the handler runs")
            ann.send("echo", "x")
            assert ann.recv_raw() == b"x"
            closing = in_thread(server.stop_server)
            assert peer.take_all().endswith(frame(SERVER_GOODBYE))
            peer.sock.close()
        assert ends_within(closing, 3.0)
        assert held == [b"0"]
        let_go.set()
    assert held == [b"0"]


def test_h26_half_open_peers_are_found() -> None:
    """The kernel asks a silent peer whether it lives, and gives it up after 20 s."""
    import socket

    with Stage() as stage:
        sock = stage.server.get_client("honest")["socket"]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            given_up = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert given_up == 20_000
        if hasattr(socket, "TCP_KEEPIDLE"):
            idle, interval, count = (
                sock.getsockopt(socket.IPPROTO_TCP, option)
                for option in (
                    socket.TCP_KEEPIDLE,
                    socket.TCP_KEEPINTVL,
                    socket.TCP_KEEPCNT,
                )
            )
            assert idle + interval * count == 20


@pytest.mark.parametrize("tls", ["default", True, False, "", 0])
@pytest.mark.parametrize("start", [start_server, start_threaded_server])
def test_h27_no_tls_is_pretended(start: Callable[..., object], tls: object) -> None:
    """Whatever would encrypt nothing, 1.1's ``"default"`` first of all, is refused,
    with what does."""
    cure = 'a server has tls= "auto", {"cert": file, "key": file} or SSLContext'
    with pytest.raises(InvalidOption, match=re.escape(cure)) as caught:
        start((HOST, 0), tls=tls)
    assert isinstance(caught.value, HiSockError | ValueError)


@pytest.mark.parametrize("start", [start_server, start_threaded_server])
def test_h27_no_tls_without_a_certificate(start: Callable[..., object]) -> None:
    """A file that is not there is told by its name, and no server starts without."""
    with pytest.raises(InvalidOption, match=r"nothing\.pem") as caught:
        start((HOST, 0), tls={"cert": "nothing.pem"})
    assert isinstance(caught.value, HiSockError | ValueError)


def test_c05_bare_tokens_of_a_legacy_peer() -> None:
    """The two headerless tokens of a 1.1 client are understood, in any pieces."""
    changes: list[tuple[str, Any, Any]] = []
    with Stage() as stage:
        stage.record("ping")

        @stage.server.on("name_change")
        def name_change(client: ClientInfo, old: Any, new: Any) -> None:
            changes.append(("name", old, new))

        @stage.server.on("group_change")
        def group_change(client: ClientInfo, old: Any, new: Any) -> None:
            changes.append(("group", old, new))

        with stage.peer("bad", "g") as peer:
            peer.send(frame(b"ping 1") + b"$CHNAME$" + frame(b"ping 2"))
            for at in range(len(b"$CHGROUP$")):
                peer.send(b"$CHGROUP$"[at : at + 1])
                stage.check()
            peer.send(frame(b"ping 3") + b"$CHGROUP$$CHNAME$")
            eventually(lambda: len(changes) == 4, "all changes")
        assert stage.ran == [("ping", b"%d" % number) for number in (1, 2, 3)]
    assert changes == [
        ("name", "bad", None),
        ("group", "g", None),
        ("group", None, None),
        ("name", None, None),
    ]


@pytest.mark.parametrize(
    "given", [b"$USRCLOSE$", b"$CHNAMES", b"$", b"$CHNAME", b"$CLTHELLO$ ", b"$chname$"]
)
def test_c05_other_bare_tokens(given: bytes) -> None:
    """No other headerless token is; each ends the client as soon as it is none."""
    with Stage() as stage:
        stage.record("message")
        with stage.peer() as peer:
            peer.throw(given + b"!" * 16)
            assert peer.take_all() == frame(SERVER_GOODBYE)
        eventually(lambda: stage.left == ["bad"], "it leaves")
        assert stage.ran == []


@counts_descriptors
def test_c04_the_library_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    """A server prints nothing and ends no program, whatever befalls it."""
    logging.getLogger("hisock").addHandler(quiet := logging.NullHandler())
    before = open_descriptors()
    try:
        with Stage() as stage:
            stage.server.on("fail")(lambda: 1 / 0)
            with stage.peer() as peer:
                peer.send(frame(b"fail") + frame(b"unknown") + frame(b"$GETCLT$ x"))
                peer.throw(b"nonsense")
                peer.take_all()
            with stage.stranger() as stranger:
                stranger.throw(b"nonsense")
                stranger.take_all()
            stage.peer().reset()
        assert open_descriptors() == before
    finally:
        logging.getLogger("hisock").removeHandler(quiet)
    assert capfd.readouterr() == ("", "")


def test_messages_stay_in_order() -> None:
    """A thousand messages in one write run in order, and none twice."""
    with Stage() as stage:
        stage.record("n")
        with stage.peer() as peer:
            peer.send(b"".join(frame(b"n %d" % number) for number in range(1000)))
            eventually(lambda: len(stage.ran) == 1000, "all of them")
    numbers = [int(content) for _, content in stage.ran]
    assert all(after - before == 1 for before, after in pairwise(numbers))
