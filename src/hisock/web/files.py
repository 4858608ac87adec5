"""Files as responses: our own, which are in the package, and a folder of the user's.

What it must never do is to name a file outside of that folder.
"""

from __future__ import annotations

__all__ = ("Folder", "own_file")

import os
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from io import FileIO
from pathlib import Path
from stat import S_ISREG
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import quote

from hisock.wire.http import Head, HttpError, Response

_PIECE: Final = 64 * 1024
_STATIC: Final = Path(__file__).with_name("static")
# Not the system's table: on Windows a program may have changed it, and a module is only
# run as what it is.
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".gif": "image/gif",
    ".htm": "text/html; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".ogg": "audio/ogg",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}
#: What no name of a file has on some system, where it means a drive, a folder, a
#: stream in a file or a pattern.
_STRANGE: Final = frozenset('\\:*?"<>|')
#: Names of devices on Windows, whatever stands behind a dot.
_DEVICES: Final = frozenset(
    {
        *("con", "prn", "aux", "nul", "conin$", "conout$", "clock$"),
        *(f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³"),
    }
)
#: Opening a pipe would wait for who writes to it; nobody is to swap a file for a link.
_FLAGS: Final[int] = os.O_RDONLY | sum(
    getattr(os, flag, 0)
    for flag in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_NOCTTY", "O_BINARY")
)
#: Folders are opened only to find what is in them, which needs no right to list it.
_THROUGH: Final[int] = os.O_RDONLY | sum(
    getattr(os, flag, 0) for flag in ("O_PATH", "O_DIRECTORY", "O_CLOEXEC")
)
_NO_LINK: Final[int] = getattr(os, "O_NOFOLLOW", 0)


class Folder:
    """The user's own pages.

    Args:
        folder: Where they are, resolved.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def answer(self, path: str, head: Head) -> Response:
        """The file that a path names; a folder's is its ``index.html``.

        Raises:
            HttpError: There is none, or none that is to be seen: names that begin with
                a dot, or mean something else on some system, and what a link leads to
                outside of the folder, are not.
        """
        absent = HttpError(HTTPStatus.NOT_FOUND, f"there is no {path[:100]!a} here")
        names = [name for name in path.split("/") if name]
        if not all(map(_is_plain, names)):
            raise absent
        is_folder = path.endswith("/")
        try:
            file = self._find(names)
            if file.is_dir() and not is_folder:  # the page's relative links would break
                where = {"Location": quote("/" + "/".join(names) + "/")}
                return Response(HTTPStatus.PERMANENT_REDIRECT, where)
            if is_folder:
                file = self._find([*names, "index.html"])
            return _file(self._folder, file, head)
        except (OSError, ValueError) as error:
            raise absent from error

    def _find(self, names: list[str]) -> Path:
        """Where a file really is.

        Raises:
            FileNotFoundError: Not in the folder, or it is hidden there.
            OSError: It is not to be found.
        """
        real = os.path.realpath(self._folder.joinpath(*names), strict=True)
        inside = Path(real).relative_to(self._folder)
        # Of Windows, a name may be a shorter one for another that is hidden.
        if not all(map(_is_plain, inside.parts)):
            raise FileNotFoundError(real)
        return Path(real)


def _is_plain(name: str) -> bool:
    """Whether this is a name of a file, and of the same one, on every system."""
    return not (
        name.startswith(".")
        or name.endswith((".", " "))
        or _STRANGE & set(name)
        or name.partition(".")[0].rstrip(" ").lower() in _DEVICES
    )


def own_file(name: str, head: Head) -> Response:
    """One of our own files, which pages of other servers may import, too.

    Raises:
        HttpError: It is not there.
    """
    shared = {"Vary": "Origin"}
    # Whose pages may not was refused before.
    if (origin := head.headers.get("origin")) is not None:
        shared["Access-Control-Allow-Origin"] = origin
    try:
        return _file(_STATIC, _STATIC / name, head, shared)
    except OSError as error:
        text = f"this hisock was installed without {name}"
        raise HttpError(HTTPStatus.NOT_FOUND, text) from error


def _open(folder: Path, file: Path) -> int:
    """Open a file, from folder to folder: who may write there may have put a link in
    the place of one since the file was found.

    Raises:
        OSError: It is not there, or behind a link.
    """
    if os.open not in os.supports_dir_fd:
        return os.open(file, _FLAGS)
    *above, name = file.relative_to(folder).parts
    at = os.open(folder, _THROUGH)
    try:
        for each in above:
            below = os.open(each, _THROUGH | _NO_LINK, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name, _FLAGS, dir_fd=at)
    finally:
        os.close(at)


def _file(
    folder: Path,
    file: Path,
    head: Head,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """
    Raises:
        OSError: It cannot be read.
    """
    # Even to open some devices does something.
    if not S_ISREG(file.lstat().st_mode):
        raise FileNotFoundError(file)
    opened = FileIO(_open(folder, file))
    try:
        stat = os.fstat(opened.fileno())
        if not S_ISREG(stat.st_mode):
            raise FileNotFoundError(file)
        tag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache", **more}
        if _has(head, tag):
            opened.close()
            return Response(HTTPStatus.NOT_MODIFIED, headers)
        kind = _TYPES.get(file.suffix.lower(), "application/octet-stream")
        headers |= {"Content-Type": kind}
        body = _Pieces(opened, stat.st_size)
        return Response(HTTPStatus.OK, headers, body, stat.st_size, body.close)
    except BaseException:
        opened.close()
        raise


def _has(head: Head, tag: str) -> bool:
    """Whether who asks has this version already (RFC 9110 §13.1.2)."""
    known = head.headers.get("if-none-match", "").split(",")
    # A proxy that packs what it passes on makes the tag a weak one.
    return any(each.strip().removeprefix("W/") in (tag, "*") for each in known)


class _Pieces:
    """What a file holds, and no more than was promised, should it grow meanwhile."""

    def __init__(self, opened: FileIO, size: int) -> None:
        self._opened = opened
        self._left = size

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        piece = b""
        if self._left:
            with suppress(OSError):  # of the disk; who asked sees that it is too short
                piece = self._opened.read(min(self._left, _PIECE)) or b""
        if not piece:  # at the end, or it has shrunk
            self.close()
            raise StopIteration
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Let go of the file."""
        self._left = 0
        self._opened.close()
