"""Certificates in files: the user's, the server's own of ``tls="auto"``, and the pins
of servers that a client has met.

It must never touch a connection: ``tls`` says what a certificate that is wrong means.
Nobody without ``tls=`` imports it.
"""

from __future__ import annotations

__all__ = (
    "Files",
    "Source",
    "check_pin",
    "data_folder",
    "explain",
    "fingerprint",
    "keep_pin",
    "look_up_pin",
    "own_certificate",
    "read_client",
    "read_fingerprint",
    "read_server",
)

import base64
import contextlib
import hashlib
import os
import re
import secrets
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from hisock.engine.dial import spell_address
from hisock.engine.log import logger
from hisock.errors import CertificateChanged, HiSockError, InvalidOption

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: What OpenSSL has against a certificate (X509_V_ERR_…), and what to do about it.
_FLAWS: Final = {
    9: "is not valid yet; look at the clocks of both machines",
    10: "has expired; renew it",
    18: "is signed by itself only; to trust it anyway, {fingerprint}",
    **dict.fromkeys((19, 20, 21), "comes from an authority not trusted here; {ca}"),
    26: "is not made for this side of a connection (its extended key usage)",
    62: "is for another host name; connect by one that it has, or {hostname}",
    64: "is for another address; connect by a name that it has, or {hostname}",
}
_CURES: Final = {
    "ca": 'give its file as tls={"ca": ...}',
    "fingerprint": 'give tls={"fingerprint": ...}, or tls="auto"',
    "hostname": 'give that one as tls={"hostname": ...}',
}
#: What the other side has against us (RFC 8446 §6.2), by a part of OpenSSL's name.
_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": 'wants a certificate; give tls={"cert": ..., "key": ...}',
    "UNKNOWN_CA": "does not trust the authority of the certificate of this side",
    "CERTIFICATE_UNKNOWN": "does not accept the certificate of this side",
    "BAD_CERTIFICATE": "does not accept the certificate of this side",
    "UNSUPPORTED_CERTIFICATE": "has no use for the kind of certificate of this side",
    "CERTIFICATE_EXPIRED": "says that the certificate of this side has expired",
    "PROTOCOL_VERSION": "speaks no version of TLS that this side does",
    "NO_APPLICATION_PROTOCOL": "speaks TLS, but not hisock inside it",
    "HANDSHAKE_FAILURE": "found nothing in common, or wants a certificate",
}

#: Seconds between two looks at the files of a server's certificate.
_RELOAD: Final = 1.0
_SERVER: Final = 'a server has tls= "auto", {"cert": file, "key": file} or SSLContext'
_SERVER_OPTIONS: Final = ("cert", "key", "ca", "password")
_CLIENT: Final = 'a client has tls= True, "auto", {"ca": file, ...} or SSLContext'
_CLIENT_OPTIONS: Final = ("ca", "fingerprint", "cert", "key", "password", "hostname")

#: The key and the certificate of this user's servers, in one file: two files could be
#: read while another process has replaced only one of them.
_OWN: Final = "server.pem"
_PINS: Final = "known_servers"
#: Lines of ``known_servers``; beyond that the oldest are forgotten.
_MOST_PINS: Final = 10_000
_PREFIX: Final = "SHA256:"
_DAYS: Final = 3650

_log = logger("hisock.server")


@dataclass(frozen=True, slots=True)
class Files:
    """Where a certificate and its key are, and who may vouch for the other side."""

    certificate: str | None = None
    key: str | None = None
    authority: str | None = None
    password: str | bytes | None = None

    def load_into(self, context: ssl.SSLContext) -> None:
        """Let a context use them.

        Raises:
            InvalidOption: A file is missing or not what it should be.
        """
        path: str | None = None
        try:
            for path in self._paths():
                open(path, "rb").close()
            if self.certificate is not None:
                self._load_chain(context, self.certificate)
            if self.authority is not None:
                path = self.authority
                context.load_verify_locations(path)
        except OSError as error:  # ssl's own is one
            raise InvalidOption(
                f"tls: cannot read a certificate in PEM from {path}: "
                f"{error.strerror or error}"
            ) from error

    def _load_chain(self, context: ssl.SSLContext, certificate: str) -> None:
        password = self._ask if self.password is None else self.password
        try:
            context.load_cert_chain(certificate, self.key, password)
        except ssl.SSLError as error:
            raise InvalidOption(
                f"tls: {certificate} and {self.key or 'the key in it'} are no "
                f"certificate in PEM and its key ({error.reason or error}); is one of "
                "another pair, or the password wrong?"
            ) from error

    def _ask(self) -> str:
        # OpenSSL would ask at the terminal, and wait there.
        path = self.key or self.certificate
        raise InvalidOption(f'tls: the key in {path} is encrypted; add "password"')

    def _paths(self) -> list[str]:
        paths = (self.certificate, self.key, self.authority)
        return [path for path in paths if path is not None]

    def stamp(self) -> tuple[object, ...]:
        """What differs after a file was changed or replaced."""
        return tuple(map(_stamp, self._paths()))

    def fingerprint(self) -> str:
        """Of the certificate that is shown; the file has been loaded before."""
        assert self.certificate is not None
        with open(self.certificate, encoding="ascii", errors="replace") as file:
            text = file.read()
        end = text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
        pem = text[text.index(ssl.PEM_HEADER) : end]
        return fingerprint(ssl.PEM_cert_to_DER_cert(pem))


def _stamp(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _check_options(tls: dict[Any, Any], allowed: tuple[str, ...]) -> None:
    """Refuse what ``tls={...}`` cannot have."""
    for name in tls:
        if name not in allowed:
            raise InvalidOption(f"tls={{...}} has no {name!r:.40}, but {allowed}")


def _read_files(tls: dict[Any, Any]) -> Files:
    """The files that ``tls={...}`` names."""
    certificate, key, authority = (_read_path(tls, n) for n in ("cert", "key", "ca"))
    password = tls.get("password")
    if not isinstance(password, str | bytes | None):
        raise InvalidOption('tls: "password" is text')
    if certificate is None and not (key is None and password is None):
        raise InvalidOption('tls: "key" and "password" need a "cert"')
    return Files(certificate, key, authority, password)


def _read_path(tls: dict[Any, Any], name: str) -> str | None:
    path = tls.get(name)
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike):
        raise InvalidOption(f'tls: "{name}" is the path of a file, not {path!r:.40}')
    return os.fsdecode(path)


class Source:
    """The context of a server, loaded again when its files have changed.

    Attributes:
        fingerprint: Of the certificate; ``None`` with an ``SSLContext`` of the user's.
    """

    def __init__(
        self, given: ssl.SSLContext | Files, protocols: tuple[str, ...]
    ) -> None:
        self._protocols = protocols
        self._look_again = 0.0
        self.fingerprint: str | None = None
        self._files: Files | None = None
        if isinstance(given, Files):
            self._files, self._stamp = given, given.stamp()
            self._load(given)
        else:
            self._context = _prepare(given, protocols)

    def look(self, now: float) -> ssl.SSLContext:
        """The context for a connection that comes now."""
        if self._files is not None and now >= self._look_again:
            self._look_again = now + _RELOAD
            self._look_at(self._files)
        return self._context

    def _load(self, files: Files) -> None:
        context = _prepare(_server_ssl(files), self._protocols)
        self.fingerprint = files.fingerprint()
        self._context = context

    def _look_at(self, files: Files) -> None:
        stamp = files.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._load(files)
            _log.info("a new certificate is used: %s", self.fingerprint)
        except (HiSockError, OSError, ValueError) as error:
            _log.error("the new certificate is not used, the old one is: %s", error)


def read_server(tls: object, protocols: tuple[str, ...]) -> Source:
    """What a server's ``tls=`` means.

    Raises:
        InvalidOption: It means nothing, or a file is not what it should be.
    """
    match tls:
        case ssl.SSLContext():
            return Source(tls, protocols)
        case "auto":
            source = Source(Files(own_certificate()), protocols)
            _log.info("the certificate of tls='auto' is %s", source.fingerprint)
            return source
        case dict() if "cert" in tls:
            _check_options(tls, _SERVER_OPTIONS)
            return Source(_read_files(tls), protocols)
        case "default":
            raise InvalidOption(f'"default" of hisock 1.1 encrypted nothing; {_SERVER}')
    raise InvalidOption(f"{_SERVER}, not {tls!r:.80}")


def read_client(
    tls: object, host: str, protocols: tuple[str, ...]
) -> tuple[ssl.SSLContext, str | None, str | None]:
    """What a client's ``tls=`` means.

    Returns:
        The context; whom the certificate names; its fingerprint, or ``"auto"``.

    Raises:
        InvalidOption: It means nothing, or a file is not what it should be.
    """
    pin: str | None = None
    hostname: Any = host or None
    match tls:
        case ssl.SSLContext():
            context = tls
        case "auto":
            context, pin = _client_ssl(Files(), trusts=True), "auto"
        case True:
            context = _client_ssl(Files(), trusts=False)
        case dict() if tls:
            _check_options(tls, _CLIENT_OPTIONS)
            files = _read_files(tls)
            if "fingerprint" in tls:
                pin = read_fingerprint(tls["fingerprint"])
            trusts = pin is not None and files.authority is None
            context = _client_ssl(files, trusts=trusts)
            hostname = tls.get("hostname", hostname)
        case _:
            raise InvalidOption(f"{_CLIENT}, not {tls!r:.80}")
    _prepare(context, protocols, is_server=False, hostname=hostname)
    return context, hostname, pin


def _prepare(
    context: ssl.SSLContext,
    protocols: tuple[str, ...],
    *,
    is_server: bool = True,
    hostname: str | None = None,
) -> ssl.SSLContext:
    """Have a context speak hisock, and find out now whether it can."""
    if context.minimum_version is ssl.TLSVersion.MINIMUM_SUPPORTED:
        # Nobody chose that: some systems build Python so (Debian).
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    if context.minimum_version < ssl.TLSVersion.TLSv1_2:
        raise InvalidOption("tls: set minimum_version of the SSLContext to TLSv1_2")
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(protocols))
    if context.check_hostname and not (hostname or is_server):
        raise InvalidOption('tls: a unix socket has no host name; give "hostname"')
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), is_server, hostname)
    except (ValueError, TypeError, AttributeError, ssl.SSLError) as error:
        raise InvalidOption(f"tls: {hostname or context} cannot be: {error}") from error
    return context


def _server_ssl(files: Files) -> ssl.SSLContext:
    """What OpenSSL needs to be a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Our sessions resume in our own protocol, and every connection shows its
    # certificate: a ticket would stand for one that may have expired since.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    files.load_into(context)
    if files.authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _client_ssl(files: Files, *, trusts: bool) -> ssl.SSLContext:
    """What OpenSSL needs to be a client; without an authority in the files those of
    the system count, unless somebody else looks at the certificate of the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trusts:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif files.authority is None:
        context.load_default_certs()
    files.load_into(context)
    return context


def data_folder() -> str:
    """Where certificates and pins of this user are; ``HISOCK_HOME`` overrides it."""
    environ = os.environ
    if sys.platform == "win32":
        base = environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = environ.get("XDG_DATA_HOME") or "~/.local/share"
    own = environ.get("HISOCK_HOME") or os.path.join(base, "hisock")
    return os.path.expanduser(own)


def fingerprint(der: bytes) -> str:
    """The name of a certificate that nobody can forge, as ssh writes it."""
    digest = base64.b64encode(hashlib.sha256(der).digest())
    return _PREFIX + digest.decode().rstrip("=")


def read_fingerprint(text: object) -> str:
    """A fingerprint as ``fingerprint`` writes it, from base64 or hexadecimal digits.

    Raises:
        InvalidOption: It is none.
    """
    if isinstance(text, str):
        digest = _read_digest(re.sub("^sha256:", "", text.strip(), flags=re.I))
        if len(digest) == 32:
            return _PREFIX + base64.b64encode(digest).decode().rstrip("=")
    raise InvalidOption(
        f'"fingerprint" is SHA256: and 43 characters, or 64 digits, not {text!r:.80}'
    )


def _read_digest(body: str) -> bytes:
    digits = body.replace(":", "")
    with contextlib.suppress(ValueError):
        if len(digits) == 64:
            return bytes.fromhex(digits)
        return base64.b64decode(body.rstrip("=") + "=", validate=True)
    return b""


def own_certificate() -> str:
    """The file with the certificate and key of this user's servers; made if missing.

    Raises:
        InvalidOption: It is missing, and cannot be made or kept here.
    """
    path = os.path.join(data_folder(), _OWN)
    if os.path.exists(path):
        return path
    try:
        with _locked():
            if not os.path.exists(path):
                _write(path, _make_certificate())
                _log.info("made a certificate for tls='auto': %s", path)
    except OSError as error:
        raise InvalidOption(
            f'tls="auto" keeps a certificate at {path}, but {error.strerror or error}; '
            "set HISOCK_HOME to a folder that this program may write to"
        ) from error
    return path


def _make_certificate() -> bytes:
    """A new key and a certificate that it signed itself, as PEM."""
    try:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise InvalidOption(
            'tls="auto" needs the package cryptography to make a certificate: '
            'pip install "hisock[tls]"; or give tls={"cert": ..., "key": ...}'
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    certificate: bytes = (
        _describe(key.public_key()).sign(key, hashes.SHA256()).public_bytes(pem)
    )
    return (
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate
    )


def _describe(public_key: Any) -> Any:
    """What the certificate is to say: for this machine, for ten years."""
    import datetime
    import ipaddress

    from cryptography import x509

    common_name = x509.oid.NameOID.COMMON_NAME
    name = x509.Name([x509.NameAttribute(common_name, "hisock")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[Any] = [x509.DNSName("localhost")]
    # A machine may be called what no certificate can say.
    with contextlib.suppress(ValueError):
        names.append(x509.DNSName(socket.gethostname()))
    names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ("127.0.0.1", "::1")]
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    usage = x509.oid.ExtendedKeyUsageOID.SERVER_AUTH
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        # The other machine's clock may be slow.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(identifier, critical=False)
    )


def look_up_pin(address: object) -> str | None:
    """The fingerprint that the server at an address had the first time."""
    found = _find(_read_pins(), _spell(address))
    return found[1] if found else None


def keep_pin(address: object, print_: str) -> str:
    """Remember the fingerprint of the server at an address, unless there is one.

    Returns:
        What is remembered now: another process may have been first.
    """
    name = _spell(address)
    with _locked():
        lines = _read_pins()
        found = _find(lines, name)
        if found:
            return found[1]
        lines = [*lines, f"{name} {print_}"][-_MOST_PINS:]
        text = "".join(line + "\n" for line in lines)
        _write(_pins_path(), text.encode("utf-8", "surrogateescape"))
    return print_


def check_pin(
    pin: str | None, address: object, der: bytes
) -> CertificateChanged | None:
    """What is wrong with the certificate that a server shows, where it is to have a
    fingerprint, or with ``"auto"`` that of the first time: if this is it, keep it."""
    seen = fingerprint(der)
    if pin is None or pin == seen:
        return None
    if pin != "auto":
        text = f"the fingerprint of the server is {seen}, tls={{...}} says {pin}"
        return CertificateChanged(text, pin, seen)
    known = look_up_pin(address) or keep_pin(address, seen)
    return None if known == seen else _changed(address, known, seen)


def _changed(address: object, old: str, new: str) -> CertificateChanged:
    name, path = _spell(address), _pins_path()
    found = _find(_read_pins(), name)
    line = f"line {found[0]}" if found else "its line"
    return CertificateChanged(
        f"the certificate of {name} changed: its fingerprint was {old}, now it is "
        f"{new}. If that is meant, delete {line} of {path}; if not, somebody else "
        "answers there",
        old,
        new,
        path,
    )


def _spell(address: object) -> str:
    """An address as it stands in ``known_servers``: one line, letters without case."""
    if isinstance(address, tuple):
        address = spell_address((str(address[0]).lower(), address[1]))
    return str(address).encode("unicode_escape").decode()


def _pins_path() -> str:
    return os.path.join(data_folder(), _PINS)


def _read_pins() -> list[str]:
    try:
        with open(_pins_path(), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def _find(lines: list[str], name: str) -> tuple[int, str] | None:
    """The number of a server's line, and its fingerprint."""
    for number, line in enumerate(lines, 1):
        where, _, print_ = line.rstrip().rpartition(" ")
        if where == name:
            return number, print_
    return None


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Keep other processes from writing to the folder meanwhile.

    The system lets go of the lock when its holder ends, in whatever way, so that none
    is left behind.
    """
    folder = data_folder()
    os.makedirs(folder, mode=0o700, exist_ok=True)
    descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Some network file systems have no locks. There two processes may lose one of
        # two lines, but never half a line: files are replaced whole.
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: str, data: bytes) -> None:
    """Replace a file that only this user may read, whole or not at all."""
    draft = f"{path}.{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


def explain(error: ssl.SSLError, is_server: bool) -> str:
    """What went wrong between the two sides, and what to do about it."""
    peer = "client" if is_server else "server"
    # CPython has no name for some; then OpenSSL's words stand in the text.
    words = error.reason or str(error).removeprefix("[SSL] ").partition(" (")[0]
    reason = words.upper().replace(" ", "_")
    if isinstance(error, ssl.SSLCertVerificationError):
        flaw = _FLAWS.get(error.verify_code, "is not valid").format_map(_CURES)
        return f"the certificate of the {peer} {flaw} ({error.verify_message})"
    if "ALERT" in reason:
        said = [text for name, text in _ALERTS.items() if name in reason]
        return f"the {peer} {(said or ['gave up'])[0]} ({reason})"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the client has no certificate, and the server wants one"
    if reason in ("UNSUPPORTED_PROTOCOL", "NO_SHARED_CIPHER", "NO_PROTOCOLS_AVAILABLE"):
        return f"the {peer} speaks no version or cipher of TLS that this side does"
    return f"the {peer} sent what is no valid TLS ({reason})"
