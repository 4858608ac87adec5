"""Clients as handlers see them, and the limits."""

from __future__ import annotations

import gc
import json
import math
import weakref

import msgspec
import pytest

from hisock.errors import InvalidOption
from hisock.types import ClientInfo, Limits

ADDRESS = ("127.0.0.1", 5000)
FIELDS = [field.name for field in msgspec.structs.fields(Limits)]


def test_a_client_has_exactly_three_keys() -> None:
    """``client`` is the dictionary of 1.1: ip, name and group."""
    client = ClientInfo(ADDRESS, "Ada", None)

    assert dict(client) == {"ip": ADDRESS, "name": "Ada", "group": None}


def test_a_client_can_be_written_as_json() -> None:
    """``json.dumps(client)`` works, as in 1.1."""
    client = ClientInfo(ADDRESS, "Ada", "red")

    assert (
        json.dumps(client)
        == '{"ip": ["127.0.0.1", 5000], "name": "Ada", "group": "red"}'
    )


def test_a_client_is_itself_only() -> None:
    """Two clients with the same name are two; one may be a key and in a set."""
    one, other = ClientInfo(ADDRESS, "Ada", None), ClientInfo(ADDRESS, "Ada", None)
    scores = {one: 1, other: 2}

    assert (scores[one], scores[other]) == (1, 2)
    assert one == one
    assert one != other
    assert {one, other} - {one} == {other}


def test_a_client_stays_the_key_when_renamed() -> None:
    """A changed name does not lose what is kept for the client."""
    client = ClientInfo(ADDRESS, "Ada", None)
    scores = {client: 7}

    client["name"] = "Grace"

    assert scores[client] == 7


def test_a_client_tells_what_it_is() -> None:
    """``repr`` shows the three keys and the type."""
    expected = "<ClientInfo {'ip': ('127.0.0.1', 5000), 'name': None, 'group': 'red'}>"

    assert expected == repr(ClientInfo(ADDRESS, None, "red"))


def test_a_client_can_be_kept_weakly() -> None:
    """What is kept for a client in a weak table goes with it."""
    kept: weakref.WeakKeyDictionary[ClientInfo, int] = weakref.WeakKeyDictionary()
    client = ClientInfo(ADDRESS, None, None)
    kept[client] = 1

    del client
    gc.collect()

    assert not kept


def test_limits_are_on_by_default() -> None:
    """A server is bounded without a word: only rates are off."""
    off = {name for name in FIELDS if not getattr(Limits(), name)}
    assert off == {"message_rate", "byte_rate", "join_rate"}
    assert (
        Limits().hello,
        Limits().handshake,
        Limits().name,
    ) == (16 * 1024, 5.0, 255)


@pytest.mark.parametrize("name", FIELDS)
def test_zero_switches_a_limit_off(name: str) -> None:
    """0 is accepted for every limit."""
    assert getattr(Limits(**{name: 0}), name) == 0


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("wrong", ["5", None, True, b"1", [1], 1j])
def test_a_limit_is_a_number(name: str, wrong: object) -> None:
    """What is no number is refused, with the limit's name and the value."""
    with pytest.raises(InvalidOption) as caught:
        Limits(**{name: wrong})  # type: ignore[arg-type]  # that is the test

    assert f"Limits.{name} is a number, not {wrong!r}" == str(caught.value)


@pytest.mark.parametrize("wrong", [-1, -0.5, -math.inf])
def test_a_limit_is_not_negative(wrong: float) -> None:
    """A negative limit is refused, and the text says how to switch it off."""
    with pytest.raises(InvalidOption) as caught:
        Limits(handshake=wrong)

    assert f"Limits.handshake is 0 (off) or more, not {wrong}" == str(caught.value)


def test_a_limit_is_not_nan() -> None:
    """``nan`` is no number: as a time-out it would end every handshake at once."""
    with pytest.raises(InvalidOption, match="handshake"):
        Limits(handshake=math.nan)


def test_limits_do_not_change() -> None:
    """Limits are frozen: nobody raises them while a server runs."""
    with pytest.raises(AttributeError):
        Limits().message = 1  # type: ignore[misc]  # that is the test


def test_limits_are_named() -> None:
    """A limit is given by name only."""
    with pytest.raises(TypeError):
        Limits(1)  # type: ignore[call-arg]  # that is the test
