"""Certificates in files, as ``tls=`` takes them, of authorities that tests make up."""

from __future__ import annotations

__all__ = ("Authorities", "fingerprint_of")

import base64
import datetime
import hashlib
import ssl
from pathlib import Path
from typing import Any

import trustme

#: By what names clients of tests call a server.
HERE = ("127.0.0.1", "localhost")


def fingerprint_of(pem: str) -> str:
    """The fingerprint of the first certificate in a file, as ``ssh`` would write it."""
    text = Path(pem).read_text().partition(ssl.PEM_FOOTER)[0] + ssl.PEM_FOOTER
    text = ssl.PEM_HEADER + text.partition(ssl.PEM_HEADER)[2]
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


class Authorities:
    """Two authorities, and what they have signed.

    Args:
        folder: Where the files are.

    Attributes:
        ca: The file of the one that clients trust.
        stranger: The file of the other.
        server: Certificate and key of a server here.
        other: The same of another server here.
        foreign: The same, signed by the stranger.
        expired: The same, but not valid any more.
        elsewhere: The same for a host that is not here.
        client: The same for a client.
        second_client: The same for another client.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        known, strange = trustme.CA(), trustme.CA()
        self.ca = self._write("ca.pem", known.cert_pem.bytes())
        self.stranger = self._write("stranger.pem", strange.cert_pem.bytes())
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        self.server = self._issue("server", known, *HERE)
        self.other = self._issue("other", known, *HERE)
        self.foreign = self._issue("foreign", strange, *HERE)
        self.expired = self._issue("expired", known, *HERE, not_after=yesterday)
        self.elsewhere = self._issue("elsewhere", known, "example.org")
        self.client = self._issue("client", known, "ann@example.org")
        self.second_client = self._issue("ben", known, "ben@example.org")
        self.foreign_client = self._issue("eve", strange, "eve@example.org")

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def _issue(
        self, name: str, authority: trustme.CA, *names: str, **more: Any
    ) -> dict[str, str]:
        leaf = authority.issue_cert(*names, **more)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return {
            "cert": self._write(f"{name}.pem", chain),
            "key": self._write(f"{name}.key", leaf.private_key_pem.bytes()),
        }

    def server_context(self) -> ssl.SSLContext:
        """What a user may make for a server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server["cert"], self.server["key"])
        return context

    def client_context(self) -> ssl.SSLContext:
        """What a user may make for a client."""
        return ssl.create_default_context(cafile=self.ca)
