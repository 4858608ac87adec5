"""Which function answers which path."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

import pytest

from hisock.web.files import Folder
from hisock.web.routes import Routes, path_of
from hisock.wire.http import Head, HttpError, Response, text


def ask(routes: Routes, target: str, **headers: str) -> Response:
    """What is answered to somebody on this machine."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return routes.answer(Head(target, named), from_here=True)


def status_of(routes: Routes, target: str, **headers: str) -> HTTPStatus:
    """The status of an answer, or of the refusal."""
    try:
        response = ask(routes, target, **headers)
    except HttpError as error:
        return error.status
    response.close()
    return response.status


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/a?b=c", "/a"),
        ("/a?b=/../c#d", "/a"),
        ("/?", "/"),
        ("/a%20b", "/a b"),
        ("/%C3%BC", "/ü"),
        ("/%2e%2e/x", "/../x"),
        ("/%252e%252e/x", "/%2e%2e/x"),
        ("/a%3Fb", "/a?b"),
        ("/100%", "/100%"),
        ("//evil.example/a", "//evil.example/a"),
        ("/a:b@c", "/a:b@c"),
        ("/a%5cb", "/a\\b"),
    ],
)
def test_a_path_is_decoded_once(target: str, path: str) -> None:
    """Never twice, and the query is no part of it."""
    assert path_of(target) == path


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "x",
        "http://a/b",
        "/%00",
        "/a%0d%0ab",
        "/a%0Ab",
        "/%1b",
        "/%7f",
        "/%ff",
        "/%c0%ae%c0%ae/x",
        "/%ed%a0%80",
        "/%e2%80%ae",
        "/..%2fx",
        "/..%2Fx",
        "/a#b",
    ],
)
def test_what_is_no_path(target: str) -> None:
    """Control characters, what is no UTF-8 or longer than it needs to be, and what a
    proxy may have read in another way."""
    with pytest.raises(HttpError, match="malformed") as caught:
        path_of(target)
    assert caught.value.status is HTTPStatus.BAD_REQUEST


def test_health() -> None:
    """It says ok until the server is about to end."""
    is_closing = False
    routes = Routes(is_closing=lambda: is_closing)
    healthy = ask(routes, "/healthz?x")
    assert (healthy.status, b"".join(healthy.body)) == (HTTPStatus.OK, b"ok\n")
    is_closing = True
    ill = ask(routes, "/healthz")
    assert ill.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert b"".join(ill.body) == b"closing\n"
    assert healthy.headers["Cache-Control"] == "no-store"


def test_our_paths_go_before_pages(tmp_path: Path) -> None:
    """A file called like one of ours is never seen; another is."""
    for name in ("healthz", "mine", "other.txt"):
        (tmp_path / name).write_text("the user's")
    routes = Routes(Folder(tmp_path.resolve()))
    routes.add("/mine", lambda head: text(HTTPStatus.OK, "ours"))
    assert b"".join(ask(routes, "/healthz").body) == b"ok\n"
    assert b"".join(ask(routes, "/mine").body) == b"ours\n"
    assert b"".join(ask(routes, "/m%69ne").body) == b"ours\n"
    assert b"".join(ask(routes, "/other.txt").body) == b"the user's"
    assert status_of(routes, "/nothing") is HTTPStatus.NOT_FOUND


def test_nothing_else_is_there() -> None:
    """Without pages there are only our own paths."""
    routes = Routes()
    assert status_of(routes, "/") is HTTPStatus.NOT_FOUND
    assert status_of(routes, "/healthz/") is HTTPStatus.NOT_FOUND
    assert status_of(routes, "/metrics") is HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    "proxied", ["Forwarded", "Via", "X-Forwarded-For", "X-Real-IP"]
)
def test_what_is_for_this_machine_only(proxied: str) -> None:
    """Who asks from elsewhere is refused, and so is a proxy here, which may ask for
    anybody."""
    routes = Routes()
    routes.add("/mine", lambda head: text(HTTPStatus.OK, "yes"), is_local=True)
    assert status_of(routes, "/mine") is HTTPStatus.OK
    assert status_of(routes, "/mine", **{proxied.lower(): "x"}) is HTTPStatus.FORBIDDEN
    with pytest.raises(HttpError, match="for this machine only"):
        routes.answer(Head("/mine", {}))
    assert routes.answer(Head("/healthz", {})).status is HTTPStatus.OK


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/", "serves no pages"),
        ("/dashboard", "dashboard=True would show it"),
        ("/metrics", "metrics=True would show it"),
        ("/nothing", "there is no '/nothing' here"),
    ],
)
def test_what_would_be_there(path: str, words: str) -> None:
    """Who begins hears what is missing, not only that something is."""
    with pytest.raises(HttpError, match=re.escape(words)):
        Routes().answer(Head(path, {"host": "localhost"}))
