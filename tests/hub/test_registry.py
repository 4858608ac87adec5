"""Who is here, by name, address and group."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hisock.hub.registry import Registry
from hisock.types import ClientInfo


class Member:
    """Somebody who joined."""

    def __init__(self, port: int, name: str | None, group: str | None) -> None:
        self.info = ClientInfo(("127.0.0.1", port), name, group)


@pytest.fixture
def registry() -> Registry[Member]:
    """A registry with nobody in it."""
    return Registry()


def join(
    registry: Registry[Member],
    port: int,
    name: str | None = None,
    group: str | None = None,
) -> Member:
    """Somebody joins."""
    member = Member(port, name, group)
    registry.add(member)
    return member


def test_nobody_is_there(registry: Registry[Member]) -> None:
    """An empty registry finds nobody."""
    assert (
        len(registry),
        list(registry),
        registry.names(),
        registry.groups(),
    ) == (0, [], [], [])
    assert (
        registry.named("Ada"),
        registry.in_group("red"),
        registry.at_address(("127.0.0.1", 1)),
    ) == ([], [], None)


def test_a_member_is_found_by_everything(registry: Registry[Member]) -> None:
    """Name, address and group lead to who joined with them."""
    ada = join(registry, 1, "Ada", "red")

    assert ada in registry
    assert object() not in registry
    assert [ada] == list(registry) == registry.named("Ada") == registry.in_group("red")
    assert ada is registry.at_address(("127.0.0.1", 1))
    assert (registry.names(), registry.groups()) == (["Ada"], ["red"])
    assert registry.group_sizes() == [("red", 1)]


def test_members_keep_their_order(registry: Registry[Member]) -> None:
    """Everybody stands in the order of arrival, among namesakes and groups too."""
    members = [join(registry, port, "Ada", "red") for port in range(5)]
    registry.remove(members[0])

    assert members[1:] == list(registry)
    assert members[1:] == registry.named("Ada")
    assert members[1:] == registry.in_group("red")


def test_who_left_is_not_found(registry: Registry[Member]) -> None:
    """After leaving nothing leads to a member; its info stays for the handler."""
    ada = join(registry, 1, "Ada", "red")
    registry.remove(ada)

    assert ada not in registry
    assert (registry.names(), registry.groups()) == ([], [])
    assert registry.at_address(("127.0.0.1", 1)) is None
    assert dict(ada.info) == {"ip": ("127.0.0.1", 1), "name": "Ada", "group": "red"}


def test_a_reused_port_belongs_to_the_newcomer(registry: Registry[Member]) -> None:
    """When an address came back before its old owner was noticed gone, it stays."""
    old = join(registry, 1)
    new = join(registry, 1)
    registry.remove(old)

    assert new is registry.at_address(("127.0.0.1", 1))


def test_a_new_name_leads_to_its_owner(registry: Registry[Member]) -> None:
    """After a rename the new name leads there and the old one does not."""
    ada = join(registry, 1, "Ada")
    other = join(registry, 2, "Ada")
    registry.rename(ada, "Grace")

    assert [ada] == registry.named("Grace")
    assert [other] == registry.named("Ada")
    assert ada.info["name"] == "Grace"

    registry.rename(ada, None)
    assert (registry.names(), ada.info["name"]) == (["Ada"], None)
    registry.rename(ada, "Ada")
    assert [other, ada] == registry.named("Ada")


def test_a_new_group_has_its_member(registry: Registry[Member]) -> None:
    """After a regroup the new group has the member and the old one does not."""
    ada = join(registry, 1, group="red")
    registry.regroup(ada, "blue")

    assert ([], [ada]) == (registry.in_group("red"), registry.in_group("blue"))
    assert (registry.groups(), ada.info["group"]) == (["blue"], "blue")

    registry.regroup(ada, None)
    assert (registry.groups(), ada.info["group"]) == ([], None)


def test_groups_beside_its_own_are_known(registry: Registry[Member]) -> None:
    """The own one is not among them, unless it was joined, too."""
    ada = join(registry, 1, "Ada", "red")
    assert not registry.joined_by(ada)

    registry.join(ada, "blue")
    registry.regroup(ada, "green")
    assert registry.joined_by(ada) == {"blue"}
    registry.join(ada, "green")
    registry.regroup(ada, "red")

    assert registry.joined_by(ada) == {"blue", "green"}
    assert registry.groups_of(ada) == {"blue", "green", "red"}


def test_who_is_asked_may_change_meanwhile(registry: Registry[Member]) -> None:
    """Answers are copies: sending to a group may end some of its members."""
    for port in range(3):
        join(registry, port, "Ada", "red")
    for member in registry.in_group("red"):
        registry.remove(member)

    assert len(registry) == 0


def test_names_are_exact_bytes(registry: Registry[Member]) -> None:
    """Two forms of é are two names, and so are two cases (F50)."""
    join(registry, 1, "e\u0301")
    join(registry, 2, "ADA")

    assert registry.named("é") == []
    assert registry.named("Ada") == []


# --- coming back from elsewhere --------------------------------------------------


def at(registry: Registry[Member], *ports: int) -> list[Member | None]:
    """Who is found at these ports."""
    return [registry.at_address(("127.0.0.1", port)) for port in ports]


def test_who_moved_is_found_at_both_addresses(registry: Registry[Member]) -> None:
    """Where a member calls from now, and where handlers know it from."""
    ada = join(registry, 1, "Ada", "red")
    registry.move(ada, ("127.0.0.1", 2))

    assert at(registry, 1, 2) == [ada, ada]
    assert ada.info["ip"] == ("127.0.0.1", 1)
    assert [ada] == list(registry) == registry.named("Ada") == registry.in_group("red")


def test_who_moves_again_leaves_the_last_address(registry: Registry[Member]) -> None:
    """Only the first address and the present one lead to a member, however often."""
    ada = join(registry, 1)
    for port in range(2, 100):
        registry.move(ada, ("127.0.0.1", port))

    assert at(registry, 1, 99) == [ada, ada]
    assert at(registry, *range(2, 99)) == [None] * 97


def test_who_moves_back_is_found_there(registry: Registry[Member]) -> None:
    """The first address may be the present one again, and may be left again."""
    ada = join(registry, 1)
    found = []
    for port in (2, 1, 1, 3):
        registry.move(ada, ("127.0.0.1", port))
        found.append(at(registry, 1, 2, 3))

    assert found == [
        [ada, ada, None],
        [ada, None, None],
        [ada, None, None],
        [ada, None, ada],
    ]


def test_who_moved_and_left_is_not_found(registry: Registry[Member]) -> None:
    """Nothing leads to it, and nothing of it is kept."""
    ada = join(registry, 1)
    registry.move(ada, ("127.0.0.1", 2))
    registry.remove(ada)

    assert at(registry, 1, 2) == [None, None]
    assert (registry._moved, registry._addresses) == ({}, {})


def test_an_address_belongs_to_who_came_last(registry: Registry[Member]) -> None:
    """A port is reused: it leads to the newcomer, whoever moves or leaves."""
    ada, bob = join(registry, 1), join(registry, 2)
    registry.move(ada, ("127.0.0.1", 3))
    carl = join(registry, 3)  # which Ada has left without a word
    found = [at(registry, 1, 2, 3)]
    registry.move(ada, ("127.0.0.1", 4))
    found.append(at(registry, 1, 2, 3, 4))
    registry.move(bob, ("127.0.0.1", 1))  # and this one, too
    found.append(at(registry, 1, 2, 3, 4))
    registry.remove(ada)
    found.append(at(registry, 1, 2, 3, 4))

    assert found == [
        [ada, bob, carl],
        [ada, bob, carl, ada],
        [bob, bob, carl, ada],
        [bob, bob, carl, None],
    ]


def test_who_moves_does_not_take_its_first_address_back(
    registry: Registry[Member],
) -> None:
    """Where somebody else calls from by now, that one is found."""
    ada = join(registry, 1)
    registry.move(ada, ("127.0.0.1", 2))
    bob = join(registry, 1)
    registry.move(ada, ("127.0.0.1", 3))

    assert at(registry, 1, 2, 3) == [bob, None, ada]


letters = st.sampled_from([None, "", "a", "b"])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "rename", "regroup", "move"]),
            st.integers(0, 4),
            letters,
            letters,
        ),
        max_size=40,
    )
)
def test_every_look_up_agrees(
    steps: list[tuple[str, int, str | None, str | None]],
) -> None:
    """Whatever happens in whatever order: the look-ups agree with everybody's info."""
    registry: Registry[Member] = Registry()
    here: dict[int, Member] = {}
    for step, port, name, group in steps:
        if step == "add" and port not in here:
            here[port] = join(registry, port, name, group)
        elif port not in here:
            continue
        elif step == "remove":
            registry.remove(here.pop(port))
        elif step == "rename":
            registry.rename(here[port], name)
        elif step == "regroup":
            registry.regroup(here[port], group)
        else:
            registry.move(here[port], ("127.0.0.1", port + 10))
            assert here[port] is registry.at_address(("127.0.0.1", port + 10))

    everybody = list(here.values())
    assert here == {
        port: member
        for port in range(5)
        if (member := registry.at_address(("127.0.0.1", port))) is not None
    }
    assert len(everybody) == len(registry)
    assert set(everybody) == set(registry)
    for text in ("", "a", "b"):
        named = {one for one in everybody if one.info["name"] == text}
        grouped = {one for one in everybody if one.info["group"] == text}
        assert named == set(registry.named(text))
        assert grouped == set(registry.in_group(text))
        assert (text in registry.names(), text in registry.groups()) == (
            bool(named),
            bool(grouped),
        )
