"""Files as responses: nothing outside of the folder, and nothing that would wait."""

from __future__ import annotations

import os
import sys
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from hisock.web import files
from hisock.web.files import Folder, own_file
from hisock.wire.http import Head, HttpError, Response

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="needs symlinks")
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


def head(path: str = "/", **headers: str) -> Head:
    """A request with these headers."""
    return Head(path, {key.replace("_", "-"): value for key, value in headers.items()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pages, with secrets in it and beside it."""
    pages = tmp_path / "pages"
    (pages / "sub" / "deep").mkdir(parents=True)
    (pages / "empty").mkdir()
    (pages / "index.html").write_text("home")
    (pages / "sub" / "index.html").write_text("sub")
    (pages / "sub" / "a b.txt").write_text("spaced")
    (pages / ".env").write_text("secret")
    (pages / ".git").mkdir()
    (pages / ".git" / "config").write_text("secret")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "pages-too").mkdir()
    (tmp_path / "pages-too" / "index.html").write_text("secret")
    return pages


def answer(folder: Path, path: str, **headers: str) -> Response:
    """What is answered to a path, decoded already."""
    return Folder(folder.resolve()).answer(path, head(path, **headers))


def body(response: Response) -> bytes:
    """All of it."""
    whole = b"".join(response.body)
    assert len(whole) == response.size
    return whole


def refused(folder: Path, path: str) -> None:
    """It is as if there were nothing."""
    with pytest.raises(HttpError, match="there is no") as caught:
        answer(folder, path)
    assert caught.value.status is HTTPStatus.NOT_FOUND
    assert str(folder.parent) not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/", b"home"),
        ("/index.html", b"home"),
        ("/sub/", b"sub"),
        ("//sub//", b"sub"),
        ("/sub/a b.txt", b"spaced"),
    ],
)
def test_what_is_there(folder: Path, path: str, content: bytes) -> None:
    """A file, or a folder's page, comes whole."""
    assert body(answer(folder, path)) == content


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/..",
        "/./index.html",
        "/sub/./index.html",
        "/../pages-too/",
        "/.env",
        "/.git/config",
        "/.git/",
        "/...",
        "/..\\secret.txt",
        "/sub\\index.html",
        "/\\\\server\\share",
        "/C:/secret.txt",
        "/C:secret.txt",
        "/index.html::$DATA",
        "/index.html:stream",
        "/index.html.",
        "/index.html ",
        "/index.html. .",
        "/sub./index.html",
        "/con",
        "/NUL.txt",
        "/aux .html",
        "/COM1",
        "/lpt9.log",
        "/com¹",
        "/conout$",
        "/index.htm?",
        "/ind*.html",
        "/<index>",
        "/a|b",
        "/nothing",
        "/nothing/",
        "/index.html/",
        "/index.html/x",
        "/empty/",
        "/" + "x" * 300,
        "/" + "x/" * 3000,
        "/index.html\0.png",
    ],
)
def test_what_is_not_there(folder: Path, path: str) -> None:
    """Ways out, what is hidden, what only some systems would find: nothing is here."""
    refused(folder, path)


@needs_links
def test_links_lead_nowhere_else(folder: Path, tmp_path: Path) -> None:
    """A link inside of the folder is followed; one out of it, to what is hidden, or to
    itself, is not."""
    (folder / "inside").symlink_to(folder / "sub")
    (folder / "outside").symlink_to(tmp_path)
    (folder / "file.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "sibling").symlink_to(tmp_path / "pages-too")
    (folder / "shown").symlink_to(folder / ".git")
    (folder / "loop").symlink_to(folder / "loop")

    assert body(answer(folder, "/inside/")) == b"sub"
    for path in (
        *("/outside/secret.txt", "/outside/", "/file.txt", "/sibling/"),
        *("/sibling/index.html", "/shown/config", "/loop", "/loop/"),
    ):
        refused(folder, path)


@needs_links
@pytest.mark.parametrize("path", ["/sub/index.html", "/sub/", "/sub/deep/page.html"])
def test_a_link_that_comes_too_late_leads_nowhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Who may write into the folder cannot put a link in the place of a folder between
    the look at a file and its opening."""
    (folder / "sub" / "deep" / "page.html").write_text("deep")
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "index.html").write_text("secret")
    (outside / "deep" / "page.html").write_text("secret")
    opens = os.open

    def swap(file: Any, flags: int, **more: Any) -> int:
        monkeypatch.undo()
        (folder / "sub").rename(folder / "moved")
        (folder / "sub").symlink_to(outside)
        return opens(file, flags, **more)

    monkeypatch.setattr(os, "open", swap)
    monkeypatch.setattr(os, "supports_dir_fd", {*os.supports_dir_fd, swap})
    refused(folder, path)


@needs_links
def test_a_page_that_is_a_link_out_is_none(folder: Path, tmp_path: Path) -> None:
    """The page of a folder is looked at like any other file."""
    (folder / "empty" / "index.html").symlink_to(tmp_path / "secret.txt")
    refused(folder, "/empty/")


@needs_pipes
@pytest.mark.timeout(5)
def test_what_is_no_file_is_not_opened(folder: Path) -> None:
    """A pipe would wait for who writes to it; a device may do anything."""
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "empty" / "index.html")
    refused(folder, "/pipe")
    refused(folder, "/empty/")


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/sub", "/sub/"),
        ("/sub/deep", "/sub/deep/"),
        ("//sub", "/sub/"),
        ("/sub/über", "/sub/%C3%BCber/"),
        ("/a b", "/a%20b/"),
        ("/a%0d%0aX", "/a%250d%250aX/"),
        ("//evil.example", "/evil.example/"),
        ("/@evil.example", "/%40evil.example/"),
    ],
)
def test_a_folder_ends_with_a_slash(folder: Path, path: str, where: str) -> None:
    """It is asked for again with one, on this server, whatever its name is."""
    (folder / path.strip("/")).mkdir(exist_ok=True)
    response = answer(folder, path)
    assert response.status is HTTPStatus.PERMANENT_REDIRECT
    assert response.headers == {"Location": where}
    assert response.head.count(b"\r\n") == 6


def test_a_tag_saves_the_body(folder: Path) -> None:
    """Who has this version hears that; who has another, or none, gets it."""
    first = answer(folder, "/")
    tag = first.headers["ETag"]
    first.close()
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        saved = answer(folder, "/", if_none_match=known)
        assert (saved.status, body(saved)) == (HTTPStatus.NOT_MODIFIED, b"")
        assert b"Content-Length" not in saved.head
        assert saved.headers["ETag"] == tag
    for other in ("", '"x"', tag[:-1], tag.strip('"')):
        assert body(answer(folder, "/", if_none_match=other)) == b"home"
    (folder / "index.html").write_text("new home")
    assert body(answer(folder, "/", if_none_match=tag)) == b"new home"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.JS", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.wasm", "application/wasm"),
        ("a.tar.gz", "application/octet-stream"),
        ("readme", "application/octet-stream"),
        ("a.html.exe", "application/octet-stream"),
    ],
)
def test_a_file_is_what_its_name_says(folder: Path, name: str, kind: str) -> None:
    """And no browser is to guess."""
    (folder / name).write_text("x")
    response = answer(folder, f"/{name}")
    assert response.headers["Content-Type"] == kind
    assert b"X-Content-Type-Options: nosniff" in response.head
    assert body(response) == b"x"


def test_a_file_comes_in_pieces(folder: Path) -> None:
    """No more of it is in memory than one of them."""
    size = 10 * 1024 * 1024 + 1
    with (folder / "large.bin").open("wb") as file:
        file.truncate(size)
    response = answer(folder, "/large.bin")
    sizes = [len(piece) for piece in response.body]
    assert sum(sizes) == response.size == size
    assert max(sizes) == 64 * 1024


def test_a_file_that_shrinks_ends_early(folder: Path) -> None:
    """Less comes than was promised, and nothing else; who asked sees that."""
    path = folder / "shrinking.bin"
    path.write_bytes(b"x" * 200_000)
    response = answer(folder, "/shrinking.bin")
    pieces = iter(response.body)
    first = next(pieces)
    os.truncate(path, len(first) + 10)
    assert [len(piece) for piece in pieces] == [10]
    assert response.size == 200_000


def test_a_file_that_grows_is_cut(folder: Path) -> None:
    """No more comes than was promised: it would begin the next answer."""
    path = folder / "growing.bin"
    path.write_bytes(b"x" * 100_000)
    response = answer(folder, "/growing.bin")
    pieces = iter(response.body)
    first = next(pieces)
    with path.open("ab") as file:
        file.write(b"y" * 100_000)
    assert len(first) + sum(map(len, pieces)) == 100_000


def test_what_is_not_read_is_closed(folder: Path) -> None:
    """Nothing stays open of an answer that nobody takes; a warning would fail this."""
    response = answer(folder, "/")
    response.close()
    assert list(response.body) == []


def test_our_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of other servers may import them, if they may ask at all; no cache mixes
    the answers up."""
    monkeypatch.setattr(files, "_STATIC", tmp_path)
    (tmp_path / "hisock.js").write_text("export {}")

    plain = own_file("hisock.js", head())
    assert "Access-Control-Allow-Origin" not in plain.headers
    assert plain.headers["Vary"] == "Origin"
    assert plain.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert body(plain) == b"export {}"
    other = own_file("hisock.js", head(origin="https://example.org"))
    assert other.headers["Access-Control-Allow-Origin"] == "https://example.org"
    tag = other.headers["ETag"]
    other.close()
    again = own_file("hisock.js", head(origin="https://a.org", if_none_match=tag))
    assert again.status is HTTPStatus.NOT_MODIFIED
    assert again.headers["Access-Control-Allow-Origin"] == "https://a.org"
    with pytest.raises(HttpError, match=r"without hisock\.d\.ts"):
        own_file("hisock.d.ts", head())


def test_no_descriptor_is_lost(folder: Path) -> None:
    """Whatever is answered, and from several threads."""
    fds = Path("/dev/fd")
    if not fds.is_dir():
        pytest.skip("the system does not show open descriptors")
    before = len(os.listdir(fds))

    def ask() -> None:
        for _ in range(20):
            assert body(answer(folder, "/")) == b"home"
            refused(folder, "/empty/")
            answer(folder, "/", if_none_match="*")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(os.listdir(fds)) == before
