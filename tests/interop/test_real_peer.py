"""Real hisock 1.1 and ours understand each other, in both directions and mixed."""

from __future__ import annotations

import ast
import json
import time
from typing import Any

import pytest
from tests.spelled import spelled

from hisock.errors import ClientDisconnected, Refused, UnknownClient
from hisock.wire.payload import as_text

from .conftest import HOST, Cast, Ours, Real

pytestmark = pytest.mark.timeout(20)

BINARY = b"\x00\x01 \r\n$ \x7f\x80caf\xe9\xff"
CONTENTS = (b"hello", b"", b"with  spaces ", BINARY)
OTHERS = ("client_connect", "client_disconnect")
WHO = (("ann", "red"), ("ann", None), (None, None), ("Žofia", "rød"))

#: A real server whose join handler sends twice, before anything else is said.
GREETER = """
import sys
import hisock
assert hisock.__version__ == "1.1"
server = hisock.start_server(("127.0.0.1", 0), header_len=int(sys.argv[1]))

@server.on("join")
def greet(client):
    server.send_client(client["ip"], "greet", b"one")
    server.send_client(client["ip"], "greet", b"two")

print(server.sock.getsockname()[1], flush=True)
while True:
    server.run()
"""


#: A real server that greets, with what looks like the answer to a probe, and echoes.
ECHO = """
import sys
import hisock
server = hisock.start_server(("127.0.0.1", 0), header_len=int(sys.argv[1]))

@server.on("join")
def greet(client):
    server.send_client(client["ip"], "greet", b"$NOTLS")
    server.send_client(client["ip"], "greet", b"two")

@server.on("echo")
def echo(client, content):
    server.send_client_raw(client["ip"], content)

print(server.sock.getsockname()[1], flush=True)
while True:
    server.run()
"""


def printed_answer(real: Real) -> Any:
    """What a real client's ``get_client`` printed: it returns nothing."""
    return json.loads(ast.literal_eval(real.shown().strip()))


def as_json(info: dict[str, Any]) -> dict[str, Any]:
    """A client as JSON tells it."""
    return {**info, "ip": list(info["ip"])}


# --- real clients, our server --------------------------------------------------------


@pytest.mark.parametrize(("name", "group"), WHO)
def test_a_real_client_joins_and_leaves_our_server(
    cast: Cast, header_len: int, name: str | None, group: str | None
) -> None:
    """With its name and group, or none; while it is here the server finds it."""
    room = cast.room(header_len, "join", "leave")
    real = cast.real_client(room.port, header_len, name=name, group=group)
    info = room.joined()
    assert (info["ip"][0], info["name"], info["group"]) == (HOST, name, group)
    assert room.server.get_all_clients("ip") == [info["ip"]]

    real.do("close")

    assert room.take() == ("leave", info)
    assert len(room.server) == 0


def test_a_real_client_that_vanishes_leaves_our_server(
    cast: Cast, header_len: int
) -> None:
    """Without a goodbye, which broke a real server."""
    room = cast.room(header_len, "join", "leave")
    real = cast.real_client(room.port, header_len, name="ann")
    info = room.joined()

    real.do("sock.close")

    assert room.take() == ("leave", info)


def test_commands_of_a_real_client_reach_our_handlers(
    cast: Cast, header_len: int
) -> None:
    """Text, nothing and binary content come as they were sent, and in order."""
    room = cast.room(header_len, "join", "greet")
    real = cast.real_client(room.port, header_len, name="ann")
    info = room.joined()

    for content in CONTENTS:
        real.do("send", "greet", content)

    assert [room.take() for _ in CONTENTS] == [("greet", info, c) for c in CONTENTS]


def test_our_commands_reach_the_handlers_of_a_real_client(
    cast: Cast, header_len: int
) -> None:
    """By name, by address as text and as a tuple, all at once, in order."""
    room = cast.room(header_len, "join")
    real = cast.real_client(room.port, header_len, "greet", name="ann")
    host, port = room.joined()["ip"]

    for who in ("ann", f"{host}:{port}", (host, port)):
        for content in CONTENTS:
            room.server.send_client(who, "greet", content)

    for content in 3 * CONTENTS:
        assert real.turn() == [("greet", content)]


def test_raw_messages_pass_between_a_real_client_and_our_server(
    cast: Cast, header_len: int
) -> None:
    """`message` sees what `raw_send` sent; `recv_raw` gets what the server sent."""
    room = cast.room(header_len, "join", "message")
    real = cast.real_client(room.port, header_len, name="ann")
    info = room.joined()

    for content in CONTENTS:
        real.do("raw_send", content)
        assert room.take() == ("message", info, content)
        room.server.send_client_raw("ann", content)
        assert real.receive() == content


def test_a_message_handler_sees_the_commands_of_a_real_client(
    cast: Cast, header_len: int
) -> None:
    """Whole, after the command's own handler, as in 1.1."""
    room = cast.room(header_len, "join", "greet", "message")
    real = cast.real_client(room.port, header_len)
    info = room.joined()

    real.do("send", "greet", b"hello")

    assert room.take() == ("greet", info, b"hello")
    assert room.take() == ("message", info, b"greet hello")


def test_a_real_client_renames_and_regroups_itself(cast: Cast, header_len: int) -> None:
    """Handlers get old and new, and the server finds it under the new."""
    room = cast.room(header_len, "join", "name_change", "group_change")
    real = cast.real_client(room.port, header_len, "greet", name="ann", group="red")
    info = room.joined()

    real.do("change_name", "Øyvind")
    assert room.take() == ("name_change", {**info, "name": "Øyvind"}, "ann", "Øyvind")
    real.do("change_group", "blue")
    changed = {**info, "name": "Øyvind", "group": "blue"}
    assert room.take() == ("group_change", changed, "red", "blue")

    room.server.send_client("Øyvind", "greet", b"by name")
    assert real.turn() == [("greet", b"by name")]
    room.server.send_group("blue", "greet", b"by group")
    assert real.turn() == [("greet", b"by group")]
    with pytest.raises(TypeError):
        room.server.send_group("red", "greet", b"")


def test_a_real_client_drops_its_name_and_group(cast: Cast, header_len: int) -> None:
    """It forgets the header then, which broke a real server; ours goes on with it."""
    room = cast.room(header_len, "join", "name_change", "group_change", "greet")
    real = cast.real_client(room.port, header_len, name="ann", group="red")
    info = room.joined()

    real.do("change_group", None)
    assert room.take() == ("group_change", {**info, "group": None}, "red", None)
    real.do("change_name", None)
    bare = {**info, "name": None, "group": None}
    assert room.take() == ("name_change", bare, "ann", None)
    real.do("send", "greet", b"still here")

    assert room.take() == ("greet", bare, b"still here")


def test_a_real_client_asks_our_server_about_clients(
    cast: Cast, header_len: int
) -> None:
    """By name and by address it gets the client; an unknown one is said to be so."""
    room = cast.room(header_len, "join")
    ben = cast.ours(room.port, header_len, name="ben", group="red")
    room.joined()
    real = cast.real_client(room.port, header_len, name="ann")
    ann = room.joined()
    real.shown()

    for known in ("ben", f"{HOST}:{ben.port}"):
        real.do("get_client", known)
        assert printed_answer(real) == as_json(ben.info("ben", "red"))
    real.do("get_client", "nobody")
    assert printed_answer(real) == {"traceback": "$NOEXIST$"}
    real.do("get_client", f"{HOST}:99999")
    assert printed_answer(real).keys() == {"traceback"}
    assert ben.client.get_client("ann") == ann


def test_a_real_client_that_asks_for_tls_is_told_there_is_none(
    cast: Cast, header_len: int
) -> None:
    """Its `tls.enable` ends as on a real server, and it can go on in clear."""
    room = cast.room(header_len, "join", "greet")
    real = cast.real_client(room.port, header_len)
    info = room.joined()

    assert real.do("tls.enable") == {"raised": "TypeError"}
    real.do("send", "greet", b"in clear")

    assert room.take() == ("greet", info, b"in clear")


def test_our_server_disconnects_a_real_client(cast: Cast, header_len: int) -> None:
    """Its `force_disconnect` runs, our `leave` runs, and nobody finds it any more."""
    room = cast.room(header_len, "join", "leave")
    real = cast.real_client(room.port, header_len, "force_disconnect", name="ann")
    info = room.joined()
    real.begin("update")

    room.server.disconnect_client("ann")

    assert real.handled() == [("force_disconnect",)]
    assert room.take() == ("leave", info)
    with pytest.raises(TypeError):
        room.server.get_client("ann")


def test_our_server_closes_on_real_clients(cast: Cast, header_len: int) -> None:
    """Their `force_disconnect` runs, and `leave` of ours, before `close` returns."""
    room = cast.room(header_len, "join", "leave")
    them = {}
    for name in ("ann", "ben"):
        real = cast.real_client(room.port, header_len, "force_disconnect", name=name)
        them[name] = (real, room.joined())
        real.begin("update")

    room.server.close()

    left = [room.take() for _ in them]
    for real, info in them.values():
        assert real.handled() == [("force_disconnect",)]
        assert ("leave", info) in left


def test_a_real_client_that_does_not_listen_does_not_hold_our_server(
    cast: Cast,
) -> None:
    """`close` waits a second for it, no longer."""
    room = cast.room(16, "join", "leave")
    cast.real_client(room.port, 16, name="ann")
    info = room.joined()
    began = time.monotonic()

    room.server.close()

    assert time.monotonic() - began < 3.0
    assert room.take() == ("leave", info)


def test_both_sends_of_our_join_handler_reach_a_real_client(
    cast: Cast, header_len: int
) -> None:
    """Though the client registers its handlers only after it connected."""
    room = cast.room(header_len)

    @room.server.on("join")
    def join(client: dict[str, Any]) -> None:
        room.server.send_client(client["ip"], "greet", b"one")
        room.server.send_client(client["ip"], "greet", b"two")

    real = cast.real_client(room.port, header_len, "greet", name="ann")

    assert real.turn() == [("greet", b"one")]
    assert real.turn() == [("greet", b"two")]


@pytest.mark.parametrize("ours_len", [2, 8, 64])
def test_a_client_may_have_another_header_len_than_our_server(
    cast: Cast, header_len: int, ours_len: int
) -> None:
    """Its hello tells; all are served, real or ours, and hear one broadcast."""
    room = cast.room(16, "join", "greet")
    real = cast.real_client(room.port, header_len, "news", name="ann", group="red")
    real_info = room.joined()
    ours = cast.ours(room.port, ours_len, "news", name="ben", group="red")
    ours_info = room.joined()

    real.do("send", "greet", b"from 1.1")
    assert room.take() == ("greet", real_info, b"from 1.1")
    ours.client.send("greet", b"from ours")
    assert room.take() == ("greet", ours_info, b"from ours")
    room.server.send_group("red", "news", BINARY)

    assert real.turn() == [("news", BINARY)]
    assert ours.turn() == [("news", BINARY)]


# --- our clients, a real server ------------------------------------------------------


@pytest.mark.parametrize(("name", "group"), WHO)
def test_our_client_joins_and_leaves_a_real_server(
    cast: Cast, header_len: int, name: str | None, group: str | None
) -> None:
    """With its name and group, or none, and a goodbye that does not break it."""
    real = cast.real_server(header_len, "join", "leave")
    ours = cast.ours(real.port, header_len, name=name, group=group)
    assert real.meet(ours) == [("join", ours.info(name, group))]
    real.begin("run")

    ours.client.close()

    assert real.handled() == [("leave", ours.info(name, group))]


def test_commands_pass_between_our_client_and_a_real_server(
    cast: Cast, header_len: int
) -> None:
    """Text, nothing and binary content arrive as they were sent, each way."""
    real = cast.real_server(header_len, "greet")
    ours = cast.ours(real.port, header_len, "greet", name="ann")
    real.meet(ours)

    for content in CONTENTS:
        ours.client.send("greet", content)
        assert real.turn() == [("greet", ours.info("ann", None), content)]
        real.do("send_client", "ann", "greet", content)
        assert ours.turn() == [("greet", content)]
        real.do("send_client", f"{HOST}:{ours.port}", "greet", content)
        assert ours.turn() == [("greet", content)]


def test_raw_messages_pass_between_our_client_and_a_real_server(
    cast: Cast, header_len: int
) -> None:
    """`message` of 1.1 sees what `raw_send` sent; `recv_raw` gets what it answers."""
    real = cast.real_server(header_len, "message")
    ours = cast.ours(real.port, header_len, name="ann")
    real.meet(ours)

    for content in CONTENTS:
        ours.client.raw_send(content)
        assert real.turn() == [("message", ours.info("ann", None), content)]
        real.do("send_client_raw", "ann", content)
        assert ours.receive() == content


def test_our_client_renames_and_regroups_itself_on_a_real_server(
    cast: Cast, header_len: int
) -> None:
    """To others and to none: ours sends the header that 1.1 forgot."""
    real = cast.real_server(header_len, "name_change", "group_change")
    ours = cast.ours(real.port, header_len, name="ann", group="red")
    real.meet(ours)

    ours.client.change_name("Øyvind")
    changed = ours.info("Øyvind", "red")
    assert real.turn() == [("name_change", changed, "ann", "Øyvind")]
    ours.client.change_group("blue")
    changed = ours.info("Øyvind", "blue")
    assert real.turn() == [("group_change", changed, "red", "blue")]
    ours.client.change_name(None)
    changed = ours.info(None, "blue")
    assert real.turn() == [("name_change", changed, "Øyvind", None)]
    ours.client.change_group(None)
    assert real.turn() == [("group_change", ours.info(None, None), "blue", None)]


def test_our_client_asks_a_real_server_about_clients(
    cast: Cast, header_len: int
) -> None:
    """It gets the client, or an error that tells; 1.1's broken JSON does no harm."""
    real = cast.real_server(header_len)
    ben = cast.ours(real.port, header_len, name="ben", group="red")
    real.meet(ben)
    ours = cast.ours(real.port, header_len, name="ann")
    real.meet(ours)

    for known in ("ben", f"{HOST}:{ben.port}", (HOST, ben.port)):
        real.begin("run")
        assert ours.client.get_client(known) == ben.info("ben", "red")
        real.handled()
    real.begin("run")
    with pytest.raises(UnknownClient):
        ours.client.get_client("nobody")
    real.handled()
    real.begin("run")
    with pytest.raises(Refused, match="not a valid port"):
        ours.client.get_client((HOST, 99999))
    real.handled()


def test_a_real_server_disconnects_our_client(cast: Cast, header_len: int) -> None:
    """`force_disconnect` runs, the real server hears the goodbye, `update` raises."""
    real = cast.real_server(header_len, "leave")
    ours = cast.ours(real.port, header_len, "force_disconnect", name="ann")
    real.meet(ours)

    real.do("disconnect_client", "ann")

    assert ours.turn() == [("force_disconnect",)]
    assert real.turn() == [("leave", ours.info("ann", None))]
    with pytest.raises(ClientDisconnected):
        ours.turn()


def test_a_real_server_closes_on_our_clients(cast: Cast, header_len: int) -> None:
    """They are told; without a `force_disconnect` handler `update` raises at once."""
    real = cast.real_server(header_len)
    ann = cast.ours(real.port, header_len, "force_disconnect")
    real.meet(ann)
    ben = cast.ours(real.port, header_len)
    real.meet(ben)

    real.do("close")

    assert ann.turn() == [("force_disconnect",)]
    with pytest.raises(ClientDisconnected):
        ben.turn()


def test_both_sends_of_a_real_join_handler_reach_our_client(
    cast: Cast, header_len: int
) -> None:
    """Though they may come in one read, before our handlers are registered."""
    program = cast.program(GREETER, str(header_len))
    ours = cast.ours(int(program.read_line()), header_len, "greet", name="ann")

    notes = ours.turn()
    if len(notes) == 1:
        notes += ours.turn()

    assert notes == [("greet", b"one"), ("greet", b"two")]


def test_what_a_real_join_handler_sends_first_is_no_answer_to_our_client(
    cast: Cast, header_len: int
) -> None:
    """It stands before the answer to our probe, is handled as any message, and what our
    client sends at once, text and numbers included, follows and is echoed as text."""
    program = cast.program(ECHO, str(header_len))
    ours = cast.ours(int(program.read_line()), header_len, "greet", name="ann")

    for content in (b"bytes", "text", 12, [1, "two"], None):
        ours.client.send("echo", content)

    echoed = [ours.receive() for _ in range(5)]
    assert echoed == [b"bytes", b"text", b"12", b'[1, "two"]', b""]
    assert ours.client.wire == "classic"
    notes = ours.turn()
    if len(notes) == 1:
        notes += ours.turn()
    assert notes == [("greet", b"$NOTLS"), ("greet", b"two")]
    assert program.shown() == ""


@pytest.mark.parametrize("content", ["text", 12, {"a": 1}], ids=spelled)
def test_a_real_server_hears_nothing_but_1_1_of_our_client(
    cast: Cast, header_len: int, content: object
) -> None:
    """A `message` handler of 1.1 sees each message, and nothing of what our client
    asks to find out which wire it speaks."""
    real = cast.real_server(header_len, "join", "message", "echo")
    real.shown()
    ours = cast.ours(real.port, header_len, name="ann", group="red")
    info = ours.info("ann", "red")
    assert real.meet(ours) == [("join", info)]

    ours.client.send("echo", content)

    whole = b"echo " + as_text(content)
    notes = real.turn()
    assert notes == [("echo", info, as_text(content)), ("message", info, whole)]
    assert real.shown() == ""


def test_calls_are_refused_to_a_real_server(cast: Cast, header_len: int) -> None:
    """At once and with the reason; nothing of them is sent, and sends go on."""
    real = cast.real_server(header_len, "join", "message", "echo")
    ours = cast.ours(real.port, header_len, name="ann")
    real.meet(ours)

    for ask in (ours.client.call, ours.client.stream):
        with pytest.raises(Refused) as caught:
            ask("echo", b"x")
        assert caught.value.code == "classic_wire"
    ours.client.send("echo", b"x", ttl=5.0)

    assert real.turn()[0] == ("echo", ours.info("ann", None), b"x")


def test_our_client_hears_of_others_on_a_real_server(
    cast: Cast, header_len: int
) -> None:
    """Of who joins and who leaves; `recv_raw` never takes that for a message."""
    real = cast.real_server(header_len)
    ours = cast.ours(real.port, header_len, *OTHERS, name="ann")
    real.meet(ours)
    other = cast.ours(real.port, header_len, name="ben", group="red")
    real.meet(other)
    ben = other.info("ben", "red")

    real.do("send_client_raw", "ann", b"raw")

    assert ours.receive() == b"raw"
    assert ours.turn() == [("client_connect", ben)]
    real.begin("run")
    other.client.close()
    real.handled()
    assert ours.turn() == [("client_disconnect", ben)]


# --- mixed rooms ---------------------------------------------------------------------


def test_real_and_our_clients_hear_of_each_other_on_our_server(
    cast: Cast, header_len: int
) -> None:
    """Who was here first hears of the other's join and leave, whoever is real."""
    room = cast.room(header_len, "join")
    first = cast.real_client(room.port, header_len, *OTHERS, name="ann")
    room.joined()
    second = cast.ours(room.port, header_len, *OTHERS, name="ben", group="red")
    ben = room.joined()
    assert first.turn() == [("client_connect", ben)]
    third = cast.real_client(room.port, header_len, name="cat")
    cat = room.joined()
    assert first.turn() == [("client_connect", cat)]
    assert second.turn() == [("client_connect", cat)]

    third.do("close")
    assert first.turn() == [("client_disconnect", cat)]
    assert second.turn() == [("client_disconnect", cat)]
    second.client.close()
    assert first.turn() == [("client_disconnect", ben)]


def test_our_server_sends_to_groups_and_to_all_in_a_mixed_room(
    cast: Cast, header_len: int
) -> None:
    """Everybody who is meant gets it, once, and nobody else."""
    room = cast.room(header_len, "join")
    everybody: dict[str, Real | Ours] = {}
    for name, group in (("ann", "red"), ("ben", "blue")):
        everybody[f"real {name}"] = cast.real_client(
            room.port, header_len, "news", name=name, group=group
        )
        room.joined()
        everybody[f"our {name}"] = cast.ours(
            room.port, header_len, "news", name=name, group=group
        )
        room.joined()

    room.server.send_all_clients("news", b"for all")
    for one in everybody.values():
        assert one.turn() == [("news", b"for all")]
    room.server.send_group("red", "news", b"for red")
    room.server.send_group("blue", "news", b"for blue")
    for who, one in everybody.items():
        wanted = b"for red" if who.endswith("ann") else b"for blue"
        assert one.turn() == [("news", wanted)]
    room.server.send_group_raw("red", BINARY)
    room.server.send_group_raw("blue", b"raw")
    for who, one in everybody.items():
        assert one.receive() == (BINARY if who.endswith("ann") else b"raw")


def test_a_real_server_sends_to_groups_and_to_all_in_a_mixed_room(
    cast: Cast, header_len: int
) -> None:
    """Ours gets what a real client beside it gets."""
    server = cast.real_server(header_len, "join")
    ours = cast.ours(server.port, header_len, "news", name="ann", group="red")
    server.meet(ours)
    real = cast.real_client(server.port, header_len, "news", name="ben", group="red")
    server.turn()

    server.do("send_all_clients", "news", b"for all")
    assert ours.turn() == real.turn() == [("news", b"for all")]
    server.do("send_group", "red", "news", BINARY)
    assert ours.turn() == real.turn() == [("news", BINARY)]
    server.do("send_group_raw", "red", b"raw")
    assert ours.receive() == real.receive() == b"raw"


def test_real_and_our_clients_hear_of_each_other_on_a_real_server(
    cast: Cast, header_len: int
) -> None:
    """1.1 tells ours of the real one, and the real one of ours."""
    server = cast.real_server(header_len, "join")
    ours = cast.ours(server.port, header_len, *OTHERS, name="ann", group="red")
    [(_, ann)] = server.meet(ours)
    real = cast.real_client(server.port, header_len, *OTHERS, name="ben")
    [(_, ben)] = server.turn()
    assert ours.turn() == [("client_connect", ben)]

    server.begin("run")
    ours.client.close()
    server.handled()

    assert real.turn() == [("client_disconnect", ann)]


def test_our_server_empties_a_mixed_room(cast: Cast, header_len: int) -> None:
    """`disconnect_all_clients` ends real clients and ours; newcomers are welcome."""
    room = cast.room(header_len, "join", "leave")
    real = cast.real_client(room.port, header_len, "force_disconnect", name="ann")
    room.joined()
    ours = cast.ours(room.port, header_len, "force_disconnect", name="ben")
    room.joined()
    real.begin("update")

    room.server.disconnect_all_clients()

    assert real.handled() == [("force_disconnect",)]
    assert ours.turn() == [("force_disconnect",)]
    assert {room.take()[1]["name"] for _ in range(2)} == {"ann", "ben"}
    cast.real_client(room.port, header_len, name="cat")
    assert room.joined()["name"] == "cat"
