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


letters = st.sampled_from([None, "", "a", "b"])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "rename", "regroup"]),
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

    everybody = list(here.values())
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
