"""Files as responses: our own, which are in the package, and a folder of the user's.

What it must never do is to name a file outside of that folder.
"""

from __future__ import annotations

__all__ = ("Folder", "own_file")

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Final
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


class Folder:
    """The user's own pages.

    Args:
        folder: Where they are.

    Raises:
        NotADirectoryError: There is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        if not self._folder.is_dir():
            raise NotADirectoryError(f"there is no folder {folder}")

    def answer(self, path: str, head: Head) -> Response:
        """The file that a path names; a folder's is its ``index.html``.

        Raises:
            HttpError: There is none, or none that is to be seen: names that begin with
                a dot, and what a link leads to outside of the folder, are not.
        """
        absent = HttpError(HTTPStatus.NOT_FOUND, f"there is no {path[:100]!a} here")
        names = [name for name in path.split("/") if name]
        if any(name.startswith(".") or set(name) & set('\\:*?"<>|') for name in names):
            raise absent
        try:
            file = self._folder.joinpath(*names).resolve()
            if not file.is_relative_to(self._folder):
                raise absent
            if file.is_dir():
                if not path.endswith("/"):  # else the page's relative links would break
                    where = {"Location": quote("/" + "/".join(names) + "/")}
                    return Response(HTTPStatus.PERMANENT_REDIRECT, where)
                file /= "index.html"
            return _file(file, head)
        except (OSError, ValueError) as error:
            raise absent from error


def own_file(name: str, head: Head) -> Response:
    """One of our own files."""
    return _file(_STATIC / name, head)


def _file(file: Path, head: Head) -> Response:
    """
    Raises:
        OSError: It cannot be read.
    """
    opened = file.open("rb")
    try:
        stat = file.stat()
        tag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if head.headers.get("if-none-match") == tag:
            opened.close()
            return Response(HTTPStatus.NOT_MODIFIED, headers)
        kind = _TYPES.get(file.suffix.lower(), "application/octet-stream")
        headers |= {"Content-Type": kind}
        body = _pieces(opened, stat.st_size)
        return Response(HTTPStatus.OK, headers, body, stat.st_size)
    except BaseException:
        opened.close()
        raise


def _pieces(opened: BinaryIO, left: int) -> Iterator[bytes]:
    """What a file holds, and no more than was promised, should it grow meanwhile."""
    with opened:
        while left and (piece := opened.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece
