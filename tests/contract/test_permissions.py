"""What clients may do and be called: ``requires=``, renames, and unique names."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from hisock import (
    ClientDisconnected,
    ClientInfo,
    Credentials,
    Handlers,
    Identity,
    RemoteError,
    connect,
    start_server,
    start_threaded_server,
)
from hisock.errors import Forbidden, HandlerError, InvalidOption, Refused

from . import KINDS, LOCALHOST, Net, Raw, Record, Thread, eventually

ROLES = {"ann": frozenset({"admin", "user"}), "ben": frozenset({"user"})}


def roles(credentials: Credentials) -> Identity:
    """A check that knows users by the names they give."""
    name = credentials.name or ""
    return Identity(name, roles=ROLES.get(name, frozenset()))


# --- requires ------------------------------------------------------------------------


def handler(kind: str, got: Record) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A handler of a kind, and the options that make it one."""

    def plain(client: ClientInfo, message: Any) -> int:
        got(client["name"], message)
        return 1

    async def coroutine(client: Any, message: Any) -> int:
        got(client["name"], message)
        return 1

    def generator(client: ClientInfo, message: Any) -> Any:
        got(client["name"], message)
        yield 1

    async def async_generator(client: Any, message: Any) -> Any:
        got(client["name"], message)
        yield 1

    made: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "plain": (plain, {}),
        "threaded": (plain, {"threaded": True}),
        "coroutine": (coroutine, {}),
        "generator": (generator, {}),
        "async_generator": (async_generator, {}),
    }
    return made[kind]


@pytest.mark.parametrize("kind", ["plain", "threaded", "coroutine"])
@pytest.mark.parametrize("watched", [False, True])
def test_a_message_without_permission_is_dropped(
    net: Net, kind: str, watched: bool
) -> None:
    """And reported; those before and after it, and of others, are not."""
    server, got, errors = net.server(), Record(), Record()
    server.authenticate(roles)
    function, options = handler(kind, got)
    server.on("boss", requires="admin", **options)(function)
    server.on("all", **options)(function)
    seen = Record()
    if watched:
        server.on("message")(lambda client, message: seen(message))
    server.on_error(lambda error: errors(error))
    ann, ben = net.client(server, "ann"), net.client(server, "ben")
    net.turn()
    net.expect_members(server, 2)
    ben.send("all", b"1")
    ben.send("boss", b"2")
    ben.raw_send("boss 3")
    ben.send("all", b"4")
    assert got.take(2) == [("ben", b"1"), ("ben", b"4")]
    for _ in range(2):
        error = errors.next()
        assert isinstance(error, Forbidden)
        assert (error.code, error.command) == ("forbidden", "boss")
        assert error.client == server.client("ben")
        assert "test_permissions.py" in error.where
    ann.send("boss", b"5")
    assert got.next() == ("ann", b"5")
    assert not len(errors)
    if watched:
        assert seen.take(3) == [b"all 1", b"all 4", b"boss 5"]


@pytest.mark.parametrize(
    "kind", ["plain", "threaded", "coroutine", "generator", "async_generator"]
)
def test_a_call_without_permission_is_told_so(compact: Net, kind: str) -> None:
    """Also a stream; the program on the server hears nothing of it."""
    server, got, errors = compact.server(), Record(), Record()
    server.authenticate(roles)
    function, options = handler(kind, got)
    server.on("boss", requires="admin", **options)(function)
    server.on_error(lambda error: errors(error))
    ann, ben = compact.client(server, "ann"), compact.client(server, "ben")
    compact.turn()

    def ask(client: Any) -> Any:
        if "generator" in kind:
            return list(client.stream("boss", 1))
        return [client.call("boss", 1)]

    for _ in range(2):
        with pytest.raises(RemoteError) as caught:
            ask(ben)
        assert caught.value.code == "forbidden"
    assert len(got) == 0
    assert ask(ann) == [1]
    assert got.next() == ("ann", 1)
    assert not len(errors)


def test_everything_may_require_something(net: Net) -> None:
    """``"*"`` is a command like any other."""
    server, got, errors = net.server(), Record(), Record()
    server.authenticate(roles)
    server.on("*", requires="admin")(
        lambda client, command, message: got(client["name"], command, message)
    )
    server.on_error(lambda error: errors(error))
    ann, ben = net.client(server, "ann"), net.client(server, "ben")
    net.turn()
    net.expect_members(server, 2)
    ben.send("any", b"1")
    assert errors.next().code == "forbidden"
    ann.send("any", b"2")
    assert got.next() == ("ann", "any", b"2")
    if net.is_compact:
        with pytest.raises(RemoteError) as caught:
            ben.call("other")
        assert caught.value.code == "forbidden"


def test_a_function_may_tell_who_may(compact: Net) -> None:
    """It gets the client, each time; what it raises, or a coroutine, is no."""
    server, errors, asked = compact.server(), Record(), Record()
    answers: list[Any] = []

    def may(client: ClientInfo) -> Any:
        asked(client["name"])
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    async def later() -> bool:
        return True

    server.on("it", requires=may)(lambda client: "done")
    server.on_error(lambda error: errors(error))
    client = compact.client(server, "ann")
    compact.turn()
    for answer in (False, None, 0, ValueError("x"), later):
        answers.append(answer)
        with pytest.raises(RemoteError) as caught:
            client.call("it")
        assert caught.value.code == "forbidden"
        assert "x" not in caught.value.message.replace("'it'", "")
    causes = [errors.next().__cause__ for _ in range(2)]
    assert [type(cause) for cause in causes] == [ValueError, InvalidOption]
    answers += [True, {"some"}]
    assert [client.call("it"), client.call("it")] == ["done", "done"]
    assert asked.take(7) == ["ann"] * 7


def test_without_a_check_nobody_has_a_role(net: Net) -> None:
    """So what requires one is for nobody."""
    server, got, errors = net.server(), Record(), Record()
    server.on("boss", requires="admin")(lambda client: got("ran"))
    server.on_error(lambda error: errors(error))
    client = net.client(server, "ann")
    net.turn()
    client.send("boss", b"")
    assert errors.next().code == "forbidden"
    assert not len(got)


async def _coroutine(client: Any) -> bool:
    return True


@pytest.mark.parametrize("requires", ["", 7, True, ["admin"], _coroutine])
def test_what_cannot_be_required(requires: Any) -> None:
    """Fails where it is registered."""
    with start_server(None) as server, pytest.raises(InvalidOption, match="requires"):
        server.on("it", requires=requires)(lambda client: None)


def test_where_nothing_can_be_required() -> None:
    """Events happen without anybody's asking, and a client has one server."""
    with start_threaded_server((LOCALHOST, 0)) as server:
        for event in ("join", "leave", "message", "name_change"):
            with pytest.raises(InvalidOption, match="for commands"):
                server.on(event, requires="admin")(lambda client: None)
        with (
            connect(server.addr) as client,
            pytest.raises(InvalidOption, match="are for servers"),
        ):
            client.on("it", requires="admin")(lambda: None)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": None},
        {"id": True},
        {"id": b"1"},
        {"id": 1, "name": 7},
        {"id": 1, "roles": "admin"},
        {"id": 1, "roles": {7}},
        {"id": 1, "roles": None},
    ],
    ids=str,
)
def test_what_is_no_identity(fields: dict[str, Any]) -> None:
    """Fails where it is made, so in the check; a text is not several roles."""
    with pytest.raises(InvalidOption):
        Identity(**fields)
    made = Identity(1, roles=["a", "b"])  # type: ignore[arg-type]  # any collection
    assert made.roles == frozenset({"a", "b"})


# --- renames -------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["name", "group"])
@pytest.mark.parametrize("checked", [True, False])
def test_a_client_may_keep_what_it_has(compact: Net, what: str, checked: bool) -> None:
    """With a check, or where the server says so, a change is refused: both sides know
    what holds, and the client's ``on_error`` is told."""
    option = {"allow_rename": False} if what == "name" else {"allow_regroup": False}
    server, told, errors = (
        compact.server(**({} if checked else option)),
        Record(),
        Record(),
    )
    if checked:
        server.authenticate(roles)
    server.on("name_change")(lambda client, old, new: told("name", old, new))
    server.on("group_change")(lambda client, old, new: told("group", old, new))
    server.on("sync")(lambda client: dict(client))
    handlers = Handlers()
    handlers.on_error(lambda error: errors(error))
    client = compact.client(server, "ann", "red", handlers=handlers)
    compact.turn()
    info = client.call("sync")
    change = client.change_name if what == "name" else client.change_group
    change("other")
    change(None)
    assert client.call("sync") == info
    for new in ("'other'", "None"):
        error = errors.next()
        assert isinstance(error, Refused)
        assert error.code == ("rename_refused" if what == "name" else "regroup_refused")
        assert f"have the {what} {new}; it is" in str(error)
        assert (error.client, error.command, error.where) == (None, "", "")
    assert (client.name, client.group) == ("ann", "red")
    change(getattr(client, what))  # what it has already it may have
    client.call("sync")
    assert not len(errors)
    assert not [t for t in (told.take(len(told))) if t[1] != t[2]]


def test_a_check_may_leave_names_to_clients(compact: Net) -> None:
    """``allow_rename`` and ``allow_regroup`` say so."""
    server, told = compact.server(allow_rename=True, allow_regroup=True), Record()
    server.authenticate(roles)
    server.on("name_change")(lambda client, old, new: told(old, new))
    server.on("group_change")(lambda client, old, new: told(old, new))
    client = compact.client(server, "ann", "red")
    compact.turn()
    compact.expect_members(server, 1)
    client.change_name("Ann")
    client.change_group("blue")
    assert told.take(2) == [("ann", "Ann"), ("red", "blue")]
    assert (client.name, client.group) == ("Ann", "blue")


def test_a_refusal_is_logged_where_nobody_hears_it(
    compact: Net, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, on the client."""
    server = compact.server(allow_rename=False)
    server.on("sync")(lambda client: None)
    client = compact.client(server, "ann")
    compact.turn()
    for _ in range(3):
        client.change_name("other")
    client.call("sync")
    eventually(lambda: client.name == "ann")
    lines = [r for r in caplog.records if "does not let this client" in r.getMessage()]
    assert len(lines) == 1


def test_a_1_1_client_is_not_told(classic: Net) -> None:
    """Its wire has no word for it; its name stays all the same."""
    server, got = classic.server(allow_rename=False, allow_regroup=False), Record()
    server.on("it")(lambda client, message: got(client["name"], client["group"]))
    classic.turn()
    raw = classic.raw_client(server, "ann", "red")
    raw.send(b"$CHNAME$ other", b"$CHGROUP$ blue", b"it x")
    assert got.next() == ("ann", "red")
    assert not raw.has_mail


def test_groups_that_a_client_may_not_choose(compact: Net) -> None:
    """The answer to ``Groups`` says which hold, and which of those asked for do not."""
    server = compact.server(allow_regroup=False)
    compact.turn()
    raw = compact.raw_client(server, "ann", "red")
    compact.expect_members(server, 1)
    server.join_group("ann", "blue")
    raw.send(b"sync ")
    raw.sock.sendall(raw.pack([15, ["blue", "green"], ["red"]]))  # type: ignore[attr-defined]  # of our own wire
    assert raw.receive() == b"[15, ['blue', 'red'], ['green']]"
    assert server.client("ann").groups == {"red", "blue"}


@pytest.mark.parametrize("refused", [1, 2, 3])
def test_the_last_wish_that_is_granted_holds(compact: Net, refused: int) -> None:
    """Whichever of several in a row is refused, client and server agree in the end."""
    server, errors = compact.server(unique_names="reject"), Record()
    server.on("who")(lambda client: client["name"])
    handlers = Handlers()
    handlers.on_error(lambda error: errors(error))
    client = compact.client(server, "ann", handlers=handlers)
    compact.client(server, "taken")
    compact.turn()
    compact.expect_members(server, 2)
    names = ["one", "two", "three"]
    names[refused - 1] = "taken"
    for name in names:
        client.change_name(name)
    expected = "two" if refused == 3 else "three"
    assert client.call("who") == expected
    assert errors.next().code == "rename_refused"
    eventually(lambda: client.name == expected)
    assert not len(errors)


# --- unique names --------------------------------------------------------------------


def end_of(net: Net, server: Any, name: str | None) -> tuple[Any, Record]:
    """A client, and what its ``force_disconnect`` says."""
    ends, handlers = Record(), Handlers()
    handlers.on("force_disconnect")(lambda: ends("end"))
    return net.client(server, name, handlers=handlers), ends


def test_a_name_that_somebody_has(net: Net) -> None:
    """``reject``: who has it keeps it, the newcomer is out for good."""
    server, told = net.server(unique_names="reject"), Record()
    server.on("join")(lambda client: told("join", client["name"]))
    server.on("leave")(lambda client: told("leave", client["name"]))
    net.client(server, "ann")
    net.turn()
    assert told.next() == ("join", "ann")
    info = server.client("ann")
    other, ends = end_of(net, server, "ann")
    net.turn()
    assert ends.next() == "end"
    with pytest.raises(ClientDisconnected) as caught:
        other.recv_raw()
    if net.is_compact:
        assert isinstance(caught.value.__cause__, Refused)
        assert caught.value.__cause__.code == "name_taken"
    assert server.client("ann") is info
    assert not len(told)


@pytest.mark.parametrize("policy", ["allow", "reject", "replace"])
def test_no_name_may_be_had_twice(net: Net, policy: str) -> None:
    """It is not a name; and with ``allow`` any may."""
    server = net.server(unique_names=policy)
    names = [None, None, "ann", "ben"] + (["ann"] if policy == "allow" else [])
    for name in names:
        net.client(server, name)
    net.turn()
    net.expect_members(server, len(names))


def test_the_last_one_has_the_name(net: Net) -> None:
    """``replace``: the other is told so, leaves before that one joins, stays away."""
    server, told = net.server(unique_names="replace"), Record()
    server.on("join")(lambda client: told("join", client.id))
    server.on("leave")(lambda client: told("leave", client.id))
    first, ends = end_of(net, server, "ann")
    net.turn()
    _, before = told.next()
    assert server.client("ann").id == before
    net.client(server, "ann")
    net.turn()
    assert told.take(2) == [("leave", before), ("join", before + 1)]
    assert ends.next() == "end"
    with pytest.raises(ClientDisconnected) as caught:
        first.recv_raw()
    if net.is_compact:
        assert isinstance(caught.value.__cause__, Refused)
        assert caught.value.__cause__.code == "replaced"
    assert server.client("ann").id == before + 1
    assert len(server) == 1
    assert not len(told)


def test_a_rename_to_a_name_that_somebody_has(compact: Net) -> None:
    """Is refused, or the other goes."""
    for policy in ("reject", "replace"):
        server, told = compact.server(unique_names=policy), Record()
        server.on("join")(lambda client, told=told: told("join"))
        server.on("leave")(lambda client, told=told: told("leave", client.id))
        server.on("who")(lambda client: client["name"])
        holder, ends = end_of(compact, server, "ann")
        compact.turn()
        assert told.next() == "join"
        holder_id = server.client("ann").id
        other = compact.client(server, "ben")
        other.on_error(lambda error: None)
        compact.turn()
        assert told.next() == "join"
        other.change_name("ann")
        if policy == "reject":
            assert other.call("who") == "ben"
            eventually(partial(_is_called, other, "ben"))
            assert holder.call("who") == "ann"
        else:
            assert other.call("who") == "ann"
            assert told.next() == ("leave", holder_id)
            assert ends.next() == "end"
        other.change_name("ann" if policy == "replace" else "ben")  # its own
        assert other.call("who") == other.name


def _is_called(client: Any, name: str) -> bool:
    return bool(client.name == name)


def cut_off(net: Net, server: Any, **options: Any) -> Any:
    """A client called ann whose link is cut, and that cannot come back."""
    dropped = Record()
    server.on_drop(lambda client: dropped("drop"))
    proxy = net.proxy(server)
    client = net.client(proxy, "ann", **options)
    net.turn()
    eventually(lambda: len(server) and client.is_connected)
    proxy.refuse()
    assert proxy.cut("rst") == 1
    assert dropped.next() == "drop"
    return client


@pytest.mark.parametrize("policy", ["reject", "replace"])
def test_the_name_of_one_who_is_cut_off(compact: Net, policy: str) -> None:
    """Is free for a newcomer; the old session ends and leaves first."""
    server, told = compact.server(unique_names=policy), Record()
    server.on("join")(lambda client: told("join", client.id))
    server.on("leave")(lambda client: told("leave", client.id))
    cut_off(compact, server)
    _, before = told.next()
    compact.client(server, "ann")
    compact.turn()
    assert told.take(2) == [("leave", before), ("join", before + 1)]
    assert server.client("ann").id == before + 1
    assert len(server) == 1


def test_the_name_of_another_user_who_is_cut_off(compact: Net) -> None:
    """Stays that user's, where a check knows them; the user itself may take it."""
    server, told = compact.server(unique_names="reject"), Record()
    server.authenticate(lambda credentials: Identity(credentials.token or ""))
    server.on("join")(lambda client: told("join", client.identity.id))
    server.on("leave")(lambda client: told("leave", client.identity.id))
    cut_off(compact, server, token="1")
    assert told.next() == ("join", "1")
    thief, ends = end_of_token(compact, server, "2")
    assert ends.next() == "end"
    with pytest.raises(ClientDisconnected) as caught:
        thief.recv_raw()
    assert getattr(caught.value.__cause__, "code", "") == "name_taken"
    end_of_token(compact, server, "1")
    assert told.take(2) == [("leave", "1"), ("join", "1")]


def end_of_token(net: Net, server: Any, token: str) -> tuple[Any, Record]:
    """A client called ann with a token, and what its ``force_disconnect`` says."""
    ends, handlers = Record(), Handlers()
    handlers.on("force_disconnect")(lambda: ends("end"))
    client = net.client(server, "ann", handlers=handlers, token=token)
    net.turn()
    return client, ends


def test_a_name_means_one_that_is_connected(compact: Net) -> None:
    """Before one that is cut off, then the oldest."""
    server, got = compact.server(), Record()
    old = cut_off(compact, server)
    cut = server.client("ann")
    handlers = Handlers()
    handlers.on("it")(lambda message: got(message))
    compact.client(server, "ann", handlers=handlers)
    compact.turn()
    compact.expect_members(server, 2)
    with pytest.warns(UserWarning, match="the oldest connected one is meant"):
        here = server.client("ann")
    assert here is not cut
    with pytest.warns(UserWarning, match="2 clients have the name"):
        server.send_client("ann", "it", 1)
    assert got.next() == 1
    server.disconnect_client(here)
    compact.expect_members(server, 1)
    assert server.client("ann") is cut
    assert old.name == "ann"


def race(net: Net, server: Any, wire: str, count: int = 50) -> list[Raw]:
    """So many raw clients of one name, at once."""
    start = threading.Barrier(count)

    def call() -> Raw:
        start.wait()
        return net.raw_client(server, "ann", wire=wire)

    return [thread.result() for thread in [Thread(call) for _ in range(count)]]


@pytest.mark.parametrize("wire", ["classic", "compact"])
@pytest.mark.parametrize("checked", [False, True])
def test_fifty_clients_want_one_name(wire: str, checked: bool) -> None:
    """F18, ``reject``: exactly one has it, the others are refused."""
    net = Net("compact", KINDS[2], KINDS[0])
    joined, left = Record(), Record()
    server = net.server(unique_names="reject", wires=("classic", "compact"))
    if checked and wire == "classic":
        server.authenticate(lambda credentials: True)
    server.on("join")(lambda client: joined(client.id))
    server.on("leave")(lambda client: left(client.id))
    net.turn()
    try:
        raws = race(net, server, wire)
        refused = 0
        for raw in raws:
            if _is_refused(raw):
                refused += 1
        assert refused == 49
        assert (len(server), len(joined), len(left)) == (1, 1, 0)
    finally:
        net.close()


def _is_refused(raw: Raw) -> bool:
    """Whether a raw client was sent away, or is a member that hears nothing more."""
    raw.sock.settimeout(0.2)
    try:
        body = raw.receive()
    except TimeoutError:
        return False
    assert body.startswith((b"$DISCONN$", b"$REFUSED$")), body
    return True


@pytest.mark.parametrize("wire", ["classic", "compact"])
def test_fifty_clients_take_one_name(wire: str) -> None:
    """F18, ``replace``: the last one has it, each leaves before the next joins."""
    net = Net("compact", KINDS[2], KINDS[0])
    told = Record()
    wires = ("classic", "compact")
    server = net.server(unique_names="replace", wires=wires, roster=False)
    server.on("join")(lambda client: told("join", client.id))
    server.on("leave")(lambda client: told("leave", client.id))
    net.turn()
    try:
        raws = race(net, server, wire)
        goodbyes: Counter[bytes] = Counter()
        for raw in raws:
            raw.sock.settimeout(0.2)
            try:
                goodbyes[raw.receive()] += 1
            except TimeoutError:
                goodbyes[b"stays"] += 1
            if wire == "compact" and raw.frames:  # type: ignore[attr-defined]  # its own
                frame = raw.frames[-1]  # type: ignore[attr-defined]  # its own
                assert frame[:2] == [35, 2]
                assert frame[3] is None
        assert goodbyes == {b"$DISCONN$": 49, b"stays": 1}
        assert len(server) == 1
        here = None
        for what, number in told.take(len(told)):
            if what == "join":
                assert here is None
                here = number
            else:
                assert here == number
                here = None
        assert server.client("ann").id == here
    finally:
        net.close()


def test_a_handler_that_takes_long_holds_up_no_name() -> None:
    """Who runs it loses its name at once, and leaves when it is done."""
    go, told = threading.Event(), Record()
    with start_threaded_server((LOCALHOST, 0), unique_names="replace") as server:

        @server.on("slow", threaded=True)
        def slow(client: ClientInfo) -> None:
            told("slow")
            go.wait()

        server.on("join")(lambda client: told("join", client.id))
        server.on("leave")(lambda client: told("leave", client.id))
        with connect(server.addr, "ann") as first:
            first.send("slow", b"")
            _, before = told.next()
            assert told.next() == "slow"
            with connect(server.addr, "ann"):
                assert told.next() == ("join", before + 1)
                go.set()
                assert told.next() == ("leave", before)


@pytest.mark.parametrize(
    "options",
    [
        {"unique_names": "yes"},
        {"unique_names": None},
        {"allow_rename": 1},
        {"allow_regroup": "no"},
    ],
    ids=str,
)
def test_options_that_mean_nothing(options: dict[str, Any]) -> None:
    """Are refused where the server is made."""
    with pytest.raises(InvalidOption):
        start_server(None, **options)


def test_the_errors_of_permissions() -> None:
    """Are of the tree, with their codes."""
    error = Forbidden("no", None, "it", "here")
    assert isinstance(error, HandlerError)
    assert (error.code, error.command) == ("forbidden", "it")
    assert Refused("no", "rename_refused").code == "rename_refused"
