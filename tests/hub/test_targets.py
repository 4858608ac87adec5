"""From what a user calls a client to the member it is."""

from __future__ import annotations

from typing import Any

import pytest
from tests.spelled import spelled

from hisock.errors import InvalidClient, UnknownClient, UnknownGroup
from hisock.hub.registry import Registry
from hisock.hub.targets import find, find_group
from hisock.types import ClientInfo


class Member:
    """Somebody who joined."""

    def __init__(self, address: Any, name: str | None, group: str | None) -> None:
        self.info = ClientInfo(address, name, group)
        self.info._member = self


ADA = Member(("127.0.0.1", 5000), "Ada", "red")
SIX = Member(("::1", 5001), "Six", "red")
ODD = Member(("unix", 7), "10.0.0.1:80", None)
TWIN = Member(("127.0.0.1", 5002), "Ada", None)


@pytest.fixture
def registry() -> Registry[Member]:
    """Four clients, two of them with the same name."""
    made: Registry[Member] = Registry()
    for member in (ADA, SIX, ODD, TWIN):
        made.add(member)
    return made


@pytest.mark.parametrize(
    ("who", "meant"),
    [
        (("127.0.0.1", 5000), ADA),
        ("127.0.0.1:5000", ADA),
        (ADA.info, ADA),
        (TWIN.info, TWIN),
        (dict(TWIN.info), TWIN),
        ({"ip": "127.0.0.1:5002"}, TWIN),
        ("Six", SIX),
        (("::1", 5001), SIX),
        ("[::1]:5001", SIX),
        ("::1:5001", SIX),
        (("unix", 7), ODD),
    ],
    ids=spelled,
)
def test_a_client_is_found(registry: Registry[Member], who: Any, meant: Member) -> None:
    """A name, an address in both forms, what a handler got, or a dictionary."""
    assert (meant, "") == find(registry, who)


def test_a_name_comes_before_an_address(registry: Registry[Member]) -> None:
    """Who took an address for a name is found by that name."""
    assert find(registry, "10.0.0.1:80") == (ODD, "")


def test_the_oldest_of_two_is_meant(registry: Registry[Member]) -> None:
    """Of two with one name the older one is meant, and a warning says so."""
    member, warning = find(registry, "Ada")

    assert ADA is member
    assert (
        warning == "2 clients have the name 'Ada'; the oldest is meant, "
        "{'ip': ('127.0.0.1', 5000), 'name': 'Ada', 'group': 'red'}"
    )


@pytest.mark.parametrize(
    ("who", "told"),
    [
        ("Sx", "no client has the name 'Sx'. Did you mean 'Six'?"),
        ("nobody", "no client has the name 'nobody'."),
        ("", "no client has the name ''."),
        ("a:80", "no client has the name 'a:80'."),
        ("1.2.3.4:x", "no client has the name '1.2.3.4:x'."),
        ("1.2.3.4:٣", "no client has the name '1.2.3.4:٣'."),
        (":80", "no client has the name ':80'."),
        ("x" * 200, f"no client has the name '{'x' * 79}."),
        ("127.0.0.1:1", "no client with address 127.0.0.1:1"),
        (("127.0.0.1", 1), "no client with address 127.0.0.1:1"),
        (("::1", 1), "no client with address ::1:1"),
        (("unix", 0), "no client with address unix:0"),
        ({"ip": ("127.0.0.1", 1)}, "no client with address 127.0.0.1:1"),
    ],
    ids=lambda value: spelled(value)[:30],
)
def test_an_unknown_client(registry: Registry[Member], who: Any, told: str) -> None:
    """Who is not here is told by name, with the name that was probably meant."""
    with pytest.raises(UnknownClient) as caught:
        find(registry, who)

    assert told == str(caught.value)


@pytest.mark.parametrize(
    ("who", "told"),
    [
        (
            None,
            'a client is a name, "ip:port", (ip, port) or what a handler got, not N',
        ),
        (5, 'a client is a name, "ip:port", (ip, port) or what a handler got, not 5'),
        (b"Ada", "a client is a name, "),
        (["127.0.0.1", 5000], "a client is a name, "),
        ({"name": "Ada"}, "a client is a name, "),
        ({"ip": ["127.0.0.1", 5000]}, "a client is a name, "),
        ((), "an address is (ip, port), not ()"),
        (("127.0.0.1",), "an address is (ip, port), not ('127.0.0.1',)"),
        (("127.0.0.1", "80"), "an address is (ip, port), not ('127.0.0.1', '80')"),
        (("127.0.0.1", True), "an address is (ip, port), not ('127.0.0.1', True)"),
        (("127.0.0.1", []), "an address is (ip, port), not ('127.0.0.1', [])"),
        (("127.0.0.1", 80, 0, 0), "an address is (ip, port), not "),
        (("localhost", 80), "'localhost' in ('localhost', 80) is no IP address"),
        ("1.2.3:80", "'1.2.3' in ('1.2.3', 80) is no IP address"),
        (("127.0.0.1", 0), "port 0 in ('127.0.0.1', 0) is not from 1 to 65535"),
        (
            "127.0.0.1:65536",
            "port 65536 in ('127.0.0.1', 65536) is not from 1 to 65535",
        ),
        ("127.0.0.1:" + "9" * 5000, "port 99999999 in "),
    ],
    ids=lambda value: spelled(value)[:30],
)
def test_what_names_no_client(registry: Registry[Member], who: Any, told: str) -> None:
    """What could not name anybody is refused, with what would be right."""
    with pytest.raises(InvalidClient) as caught:
        find(registry, who)

    assert str(caught.value).startswith(told)


def test_who_has_left(registry: Registry[Member]) -> None:
    """What a handler got does not lead to a newcomer at the same address."""
    registry.remove(ADA)
    registry.add(Member(("127.0.0.1", 5000), "Ada", None))
    told = (
        "{'ip': ('127.0.0.1', 5000), 'name': 'Ada', 'group': 'red'} "
        "is no longer connected"
    )

    with pytest.raises(UnknownClient) as caught:
        find(registry, ADA.info)
    assert told == str(caught.value)
    with pytest.raises(UnknownClient, match="no longer connected"):
        find(registry, ClientInfo(("127.0.0.1", 5000), "Ada", None))


def test_a_group_is_found(registry: Registry[Member]) -> None:
    """A group is everybody in it, the oldest first."""
    assert find_group(registry, "red") == [ADA, SIX]


@pytest.mark.parametrize(
    ("group", "told"),
    [
        ("rad", "nobody is in group 'rad'. Did you mean 'red'?"),
        ("blue", "nobody is in group 'blue'."),
        ("", "nobody is in group ''."),
    ],
)
def test_a_group_with_nobody_in_it(
    registry: Registry[Member], group: str, told: str
) -> None:
    """An empty group is told by name, with the one that was probably meant."""
    with pytest.raises(UnknownGroup) as caught:
        find_group(registry, group)

    assert told == str(caught.value)
