"""The error tree: one root, stable codes, and what programs for 1.1 catch."""

from __future__ import annotations

import builtins
import copy
import pickle
import re

import pytest

from hisock import errors
from hisock.errors import HiSockError

ERRORS: list[type[HiSockError]] = [
    getattr(errors, name) for name in errors.__all__ if name != "NoHeaderWarning"
]
each_error = pytest.mark.parametrize("error", ERRORS, ids=lambda one: one.__name__)

#: What hisock 1.1 could raise, and what else it was.
OF_1_1 = {
    "ClientException": Exception,
    "ClientDisconnected": Exception,
    "ServerException": Exception,
    "ServerNotRunning": Exception,
    "NoMessageException": Exception,
    "NoHeaderWarning": Warning,
}

#: What a report to ``on_error`` tells.
_REPORT = "client command where"

#: What a program for 1.1 has in its ``except`` where this version raises these.
BESIDE = [
    (errors.ServerNotRunning, (ConnectionError, OSError)),
    (errors.ClientDisconnected, (ConnectionError, OSError)),
    (errors.CannotListen, (OSError,)),
    (errors.PrivilegedPort, (PermissionError, OSError)),
    (errors.InvalidAddress, (ValueError, TypeError, OSError)),
    (errors.InvalidClient, (ValueError,)),
    (errors.InvalidName, (ValueError, TypeError)),
    (errors.InvalidOption, (ValueError, TypeError)),
    (errors.UnknownClient, (TypeError,)),
    (errors.UnknownGroup, (TypeError,)),
    (errors.ReservedCommand, (ValueError, TypeError)),
    (errors.HandlerSignatureError, (ValueError, TypeError)),
    (errors.NotSendable, (TypeError,)),
    (errors.MessageTooLarge, (ValueError,)),
    (errors.AlreadyRunning, (RuntimeError,)),
    (errors.WouldDeadlock, (RuntimeError,)),
    (errors.SessionLost, (ConnectionError, OSError)),
    (errors.ConversionError, (TypeError, ValueError)),
    (errors.RequestTimeout, (TimeoutError,)),
    (errors.SendTimeout, (TimeoutError,)),
    (errors.WouldBlock, (BlockingIOError,)),
]


@each_error
def test_an_error_is_made_from_a_text(error: type[HiSockError]) -> None:
    """Every error is made from one text, and that text is what it shows."""
    assert str(error("what was wrong")) == "what was wrong"


@each_error
def test_one_except_catches_all(error: type[HiSockError]) -> None:
    """``except HiSockError`` catches every error of the library."""
    with pytest.raises(HiSockError, match="text"):
        raise error("text")


@each_error
def test_an_error_crosses_a_process(error: type[HiSockError]) -> None:
    """An error can be pickled and copied, as multiprocessing and futures do."""
    one = error("text")
    for again in (pickle.loads(pickle.dumps(one)), copy.copy(one)):
        assert (error, "text", one.code) == (type(again), str(again), again.code)


@pytest.mark.parametrize(
    ("one", "attributes"),
    [
        (errors.CommandError("full", "no seat", {"seats": 0}), "code message data"),
        (errors.RemoteError("full", "no seat", [1, b"x"]), "code message data"),
        (errors.Refused("it is 1.1", code="classic_wire"), "code"),
        (errors.HandlerError("failed", {"name": "x"}, "it", "a.py:1"), _REPORT),
        (errors.UnknownCommand("nobody", None, "it", ""), _REPORT),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_an_error_says_crosses_a_process_too(
    one: HiSockError, attributes: str
) -> None:
    """Its attributes are those it was made with, in copies as well."""
    for again in (pickle.loads(pickle.dumps(one)), copy.copy(one)):
        assert (type(again), str(again)) == (type(one), str(one))
        for name in attributes.split():
            assert getattr(again, name) == getattr(one, name)


def test_the_code_of_a_refused_call_is_the_handlers() -> None:
    """``CommandError(code, message, data)`` arrives as ``RemoteError`` with the same,
    and either is shown by what was said."""
    sent = errors.CommandError("full", "no seat")
    came = errors.RemoteError(sent.code, sent.message, sent.data)

    assert (came.code, came.message, came.data) == ("full", "no seat", None)
    assert (str(sent), str(came)) == ("no seat", "full: no seat")
    assert str(errors.CommandError("full")) == str(errors.RemoteError("full")) == "full"


def test_codes_are_unique_words() -> None:
    """Every class has a code of its own, a short word in small letters; but for what
    carries the code that a handler gave it."""
    own = [error for error in ERRORS if not issubclass(error, errors.CommandError)]
    codes = [error.code for error in own]

    assert len(codes) == len(set(codes)) == len(ERRORS) - 2
    assert all("code" in vars(error) for error in own)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_the_module_lists_every_error() -> None:
    """``__all__`` has every exception and warning that the module defines."""
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }

    assert defined == set(errors.__all__)


def test_the_tree_is_drawn_as_it_is() -> None:
    """The drawing at the top of errors.py has every class at its place."""
    assert errors.__doc__ is not None
    drawn: dict[str, str] = {}
    parents: dict[int, str] = {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([ │├└─]*)(\w+)(  .*)?$", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        parents[depth] = found[2]
        if depth:
            drawn[found[2]] = parents[depth - 1]

    real = {
        error.__name__: error.__bases__[0].__name__ for error in ERRORS if error.mro()
    }
    real.pop("HiSockError")

    assert real == drawn


def test_the_tree_names_the_builtins() -> None:
    """Behind ``also`` in the drawing stand exactly the built-in bases."""
    assert errors.__doc__ is not None
    drawn = {
        found[1]: found[2].split(", ")
        for found in re.finditer(r"(\w+) +(?:1\.1, )?also (.+)", errors.__doc__)
    }
    real = {
        error.__name__: [
            base.__name__ for base in error.__bases__ if base.__module__ == "builtins"
        ]
        for error in ERRORS
        if error is not HiSockError
    }

    assert {name: bases for name, bases in real.items() if bases} == drawn


@pytest.mark.parametrize(
    ("error", "caught"), BESIDE, ids=[error.__name__ for error, _ in BESIDE]
)
def test_programs_for_1_1_still_catch_it(
    error: type[HiSockError], caught: tuple[type[Exception], ...]
) -> None:
    """What 1.1 raised as a built-in error is still one."""
    for builtin in caught:
        with pytest.raises(builtin):
            raise error("text")


@pytest.mark.parametrize(("name", "base"), OF_1_1.items())
def test_the_exceptions_of_1_1_are_members(name: str, base: type[Exception]) -> None:
    """The exceptions of hisock 1.1 exist and, but for the warning, are in the tree."""
    error = getattr(errors, name)

    assert issubclass(error, base)
    assert issubclass(error, HiSockError) or name == "NoHeaderWarning"


def test_no_builtin_is_shadowed() -> None:
    """``from hisock.errors import *`` hides nothing of Python's own."""
    assert not [name for name in errors.__all__ if hasattr(builtins, name)]


def test_an_error_of_the_system_keeps_its_number() -> None:
    """``errno`` of what the system refused can be set and read."""
    error = errors.AddressInUse("port 6969 is in use")
    error.errno = 98

    assert (error.errno, str(error)) == (98, "port 6969 is in use")


def test_a_warning_of_1_1_can_be_filtered() -> None:
    """``NoHeaderWarning`` is a warning that ``warnings.simplefilter`` accepts."""
    assert issubclass(errors.NoHeaderWarning, UserWarning)
