"""The names of 1.1: every function, class, argument and exception of its manual."""

from __future__ import annotations

import builtins
import inspect
import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hisock
from hisock import client, constants, errors, server, utils
from hisock.client import HiSockClient, ThreadedHiSockClient
from hisock.server import HiSockServer, ThreadedHiSockServer

EMPTY = inspect.Parameter.empty
SERVER_PARAMETERS = {
    "addr": EMPTY,
    "blocking": True,
    "max_connections": 0,
    "header_len": 16,
}
CLIENT_PARAMETERS = {
    "addr": EMPTY,
    "name": None,
    "group": None,
    "blocking": True,
    "header_len": 16,
    "cache_size": -1,
}


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults of what can be given by position."""
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (server.start_server, SERVER_PARAMETERS),
        (server.start_threaded_server, SERVER_PARAMETERS),
        (HiSockServer, {**SERVER_PARAMETERS, "tls": None}),
        (client.connect, CLIENT_PARAMETERS),
        (client.threaded_connect, CLIENT_PARAMETERS),
        (HiSockClient, CLIENT_PARAMETERS),
        (utils.get_local_ip, {}),
        (utils.ipstr_to_tup, {"formatted_ip": EMPTY}),
        (utils.iptup_to_str, {"formatted_tuple": EMPTY}),
        (
            utils.input_client_config,
            {
                "ip_prompt": "Enter the IP of the server: ",
                "port_prompt": "Enter the Port of the server: ",
                "name_prompt": "Enter name to connect as: ",
                "group_prompt": "Enter group to connect to: ",
            },
        ),
        (
            utils.input_server_config,
            {
                "ip_prompt": "Enter the IP of where to host the server: ",
                "port_prompt": "Enter the Port of where to host the server: ",
            },
        ),
    ],
)
def test_functions_take_what_they_took(
    function: Callable[..., Any], expected: dict[str, Any]
) -> None:
    """Names, order and defaults are those of the manual."""
    assert list(_parameters(function).items()) == list(expected.items())


@pytest.mark.parametrize(
    ("kind", "method", "expected"),
    [
        (HiSockServer, "close", []),
        (HiSockServer, "disconnect_all_clients", []),
        (HiSockServer, "disconnect_client", ["client"]),
        (HiSockServer, "get_addr", []),
        (HiSockServer, "get_all_clients", ["key"]),
        (HiSockServer, "get_client", ["client"]),
        (HiSockServer, "get_group", ["group"]),
        (HiSockServer, "on", ["command"]),
        (HiSockServer, "run", ["timeout"]),
        (HiSockServer, "send_all_clients", ["command", "content"]),
        (HiSockServer, "send_client", ["client", "command", "content"]),
        (HiSockServer, "send_client_raw", ["client", "content"]),
        (HiSockServer, "send_group", ["group", "command", "content"]),
        (HiSockServer, "send_group_raw", ["group", "content"]),
        (ThreadedHiSockServer, "join", []),
        (ThreadedHiSockServer, "run", ["timeout"]),
        (ThreadedHiSockServer, "start_server", []),
        (ThreadedHiSockServer, "stop_server", []),
        (HiSockClient, "change_group", ["new_group"]),
        (HiSockClient, "change_name", ["new_name"]),
        (HiSockClient, "close", []),
        (HiSockClient, "get_cache", ["idx"]),
        (HiSockClient, "get_client", ["client"]),
        (HiSockClient, "get_client_addr", []),
        (HiSockClient, "get_server_addr", []),
        (HiSockClient, "on", ["command"]),
        (HiSockClient, "raw_send", ["content"]),
        (HiSockClient, "recv_raw", []),
        (HiSockClient, "send", ["command", "content"]),
        (HiSockClient, "update", ["timeout"]),
        (ThreadedHiSockClient, "join", []),
        (ThreadedHiSockClient, "run", ["timeout"]),
        (ThreadedHiSockClient, "start_client", []),
        (ThreadedHiSockClient, "stop_client", []),
    ],
)
def test_methods_take_what_they_took(
    kind: type, method: str, expected: list[str]
) -> None:
    """Names and order of arguments are those of the manual; ours come after them."""
    assert list(_parameters(getattr(kind, method)))[1:] == expected


def test_threaded_classes_take_the_same() -> None:
    """And are the classes that they are threaded variants of."""
    assert issubclass(ThreadedHiSockServer, HiSockServer)
    assert issubclass(ThreadedHiSockClient, HiSockClient)
    with hisock.start_threaded_server(("127.0.0.1", 0), True, 0, 16) as threaded:
        assert type(threaded) is ThreadedHiSockServer
        connected = hisock.threaded_connect(
            threaded.addr, "ann", "red", True, 16, cache_size=3
        )
        assert type(connected) is ThreadedHiSockClient
        with connected:
            assert (connected.name, connected.group) == ("ann", "red")
    with ThreadedHiSockServer(("127.0.0.1", 0), max_connections=5) as threaded:
        ThreadedHiSockClient(threaded.addr, name="ann").close()


def test_functions_make_the_classes() -> None:
    """``start_server`` and ``connect`` return what they are named after."""
    with hisock.start_server(("127.0.0.1", 0), False, 5, 8) as plain:
        assert type(plain) is HiSockServer
        assert plain.header_len == 8
        connected = hisock.connect(plain.addr, "ann", "red", False, 8, 3)
        assert type(connected) is HiSockClient
        connected.close()


@pytest.mark.parametrize(
    "name",
    [
        "start_server",
        "start_threaded_server",
        "connect",
        "threaded_connect",
        "get_local_ip",
        "input_client_config",
        "input_server_config",
        "ipstr_to_tup",
        "iptup_to_str",
        "client",
        "server",
        "utils",
        "constants",
    ],
)
def test_the_front_door_has_the_names(name: str) -> None:
    """What the manual imports from ``hisock`` is there, and listed."""
    assert getattr(hisock, name) is not None
    assert name in dir(hisock)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The front door imports lazily, and still says no."""
    with pytest.raises(AttributeError, match="no attribute 'start_sever'"):
        _ = hisock.start_sever


def test_the_version() -> None:
    """Ours starts at 4.0.0, under both names."""
    assert hisock.__version__ == constants.__version__
    assert int(hisock.__version__.split(".")[0]) >= 4


@pytest.mark.parametrize(
    "name",
    [
        "ClientException",
        "ServerException",
        "NoMessageException",
        "ServerNotRunning",
        "ClientDisconnected",
    ],
)
def test_the_exceptions_are_members_of_the_tree(name: str) -> None:
    """Under their names of 1.1, from ``hisock``, ``errors`` and ``utils``."""
    error = getattr(errors, name)
    assert issubclass(error, hisock.HiSockError)
    assert getattr(hisock, name) is getattr(utils, name) is error


def test_the_warning() -> None:
    """``NoHeaderWarning`` can still be filtered."""
    assert issubclass(utils.NoHeaderWarning, Warning)


def test_every_error_has_a_code_of_its_own() -> None:
    """So that a program can tell them apart for good."""
    kinds = [getattr(errors, name) for name in errors.__all__]
    codes = [k.code for k in kinds if issubclass(k, errors.HiSockError)]
    assert len(set(codes)) == len(codes)


def test_addresses_convert_both_ways() -> None:
    """``"ip:port"`` and ``(ip, port)``, the port a number."""
    assert utils.ipstr_to_tup("127.0.0.1:6969") == ("127.0.0.1", 6969)
    assert utils.iptup_to_str(("127.0.0.1", 6969)) == "127.0.0.1:6969"
    assert utils.ipstr_to_tup(utils.iptup_to_str(("::1", 80))) == ("::1", 80)


@pytest.mark.parametrize("text", ["", "127.0.0.1", "127.0.0.1:", ":80", "h:x", "h:-1"])
def test_a_string_that_is_no_address_is_a_value_error(text: str) -> None:
    """And the text shows the form that is one."""
    with pytest.raises(ValueError, match='written "ip:port"'):
        utils.ipstr_to_tup(text)


def test_the_local_ip_is_an_address() -> None:
    """Of this machine, in a form that a server can listen at."""
    assert ipaddress.ip_address(utils.get_local_ip())


def test_without_a_network_the_local_ip_is_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that the first programs of the manual run on a train."""

    class Offline(socket.socket):
        def connect(self, address: Any) -> None:
            raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "socket", Offline)
    assert utils.get_local_ip() == "127.0.0.1"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """What the user types; gives the prompts that were shown for it."""
    left: list[str] = []
    prompts: list[str] = []

    def answer(prompt: str = "") -> str:
        prompts.append(prompt)
        return left.pop(0)

    def type_in(*answers: str) -> list[str]:
        left[:] = answers
        return prompts

    monkeypatch.setattr(builtins, "input", answer)
    yield type_in
    assert not left


def test_input_client_config(typed: Callable[..., list[str]]) -> None:
    """IP, port, name and group, in this order, with the prompts of the manual."""
    prompts = typed("127.0.0.1", "6969", "ann", "red")
    assert utils.input_client_config() == ("127.0.0.1", 6969, "ann", "red")
    assert prompts == list(_parameters(utils.input_client_config).values())


def test_input_client_config_leaves_out_what_has_no_prompt(
    typed: Callable[..., list[str]],
) -> None:
    """``None`` asks for no name, or no group."""
    prompts = typed("127.0.0.1", "6969")
    asked = utils.input_client_config("ip? ", "port? ", None, None)
    assert asked == ("127.0.0.1", 6969)
    assert prompts == ["ip? ", "port? "]


def test_input_server_config(typed: Callable[..., list[str]]) -> None:
    """IP and port."""
    prompts = typed("127.0.0.1", "6969")
    assert utils.input_server_config() == ("127.0.0.1", 6969)
    assert prompts == list(_parameters(utils.input_server_config).values())


def test_bad_input_is_asked_for_again(
    typed: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Until it is an address; what was wrong is printed."""
    prompts = typed("nonsense", "127.0.0.1", "x", "65536", "-1", "80", "", "ann", "red")
    asked = utils.input_client_config("ip", "port", "name", "group")
    assert asked == ("127.0.0.1", 80, "ann", "red")
    counts = {prompt: prompts.count(prompt) for prompt in prompts}
    assert counts == {"ip": 2, "port": 4, "name": 2, "group": 1}
    printed = capsys.readouterr().out
    assert "nonsense" in printed
    assert "65536" in printed
