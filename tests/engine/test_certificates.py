"""Certificates in files, and the pins of servers that a client has met."""

from __future__ import annotations

import builtins
import contextlib
import datetime
import os
import socket
import ssl
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from hisock.engine import certificates
from hisock.engine.certificates import (
    check_pin,
    data_folder,
    explain,
    fingerprint,
    keep_pin,
    look_up_pin,
    own_certificate,
    read_fingerprint,
    read_server,
)
from hisock.engine.tls import client_context, server_context
from hisock.errors import CertificateChanged, InvalidOption

ADDRESS = ("localhost", 6969)
FIRST = "SHA256:" + "A" * 43
SECOND = "SHA256:" + "B" * 42 + "A"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test."""
    monkeypatch.setenv("HISOCK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run_together(program: str, count: int = 4) -> list[str]:
    """Run a program in several processes that begin at the same moment."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"number = {number}\ninput()\n{program}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return outputs


# --- where things are ------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "variables", "expected"),
    [
        ("linux", {}, "/home/ann/.local/share/hisock"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/hisock"),
        ("darwin", {}, "/home/ann/Library/Application Support/hisock"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/hisock"),
        ("win32", {}, "/home/ann/AppData/Local/hisock"),
        ("linux", {"HISOCK_HOME": "/own"}, "/own"),
        ("win32", {"HISOCK_HOME": "~/own"}, "/home/ann/own"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="the paths are written as there")
def test_each_system_has_its_folder(
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    variables: dict[str, str],
    expected: str,
) -> None:
    """Where programs of this user keep their data; ``HISOCK_HOME`` overrides it."""
    for name in ("HISOCK_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", system)

    assert data_folder() == expected


# --- a server's own certificate --------------------------------------------------


def _load(path: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


def test_a_certificate_of_our_own(home: Path) -> None:
    """A key on P-256, ten years, for this machine by every name it has for itself."""
    path = own_certificate()

    assert path == str(home / "server.pem")
    certificate = _load(path)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    now = datetime.datetime.now(datetime.UTC)
    years = certificate.not_valid_after_utc - now
    assert datetime.timedelta(days=3649) < years <= datetime.timedelta(days=3650)
    assert certificate.not_valid_before_utc < now
    names = certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value
    hosts = names.get_values_for_type(x509.DNSName)
    assert {"localhost", socket.gethostname()} <= set(hosts)
    found = {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
    assert found == {"127.0.0.1", "::1"}
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert list(usage.value) == [ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_only_this_user_may_read_it(home: Path) -> None:
    """The key is in it; the folder is for this user, too."""
    path = own_certificate()
    keep_pin(ADDRESS, FIRST)

    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(home / "known_servers").st_mode & 0o777 == 0o600
    assert os.stat(home).st_mode & 0o777 == 0o700


def test_it_is_made_once(caplog: pytest.LogCaptureFixture) -> None:
    """The second server has the same; the log names the fingerprint each time."""
    caplog.set_level("INFO", "hisock.server")

    first, second = read_server("auto", ()), read_server("auto", ())

    assert first.fingerprint == second.fingerprint
    lines = [record.getMessage() for record in caplog.records]
    assert sum("made a certificate" in line for line in lines) == 1
    assert sum(str(first.fingerprint) in line for line in lines) == 2


def test_the_fingerprint_is_that_of_the_certificate() -> None:
    """As other programs compute it."""
    source = read_server("auto", ())

    der = _load(own_certificate()).fingerprint(hashes.SHA256())
    assert read_fingerprint(der.hex()) == source.fingerprint
    assert read_fingerprint(der.hex(":").upper()) == source.fingerprint


def test_programs_that_start_at_once_have_the_same(home: Path) -> None:
    """Whoever is second takes what the first has made."""
    outputs = run_together(
        "from hisock.engine.certificates import read_server\n"
        "print(read_server('auto', ()).fingerprint)"
    )

    assert len(set(outputs)) == 1
    assert outputs[0].startswith("SHA256:")
    assert sorted(os.listdir(home)) == ["lock", "server.pem"]


def test_a_machine_with_an_odd_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no certificate can say is left out."""
    monkeypatch.setattr(socket, "gethostname", lambda: "Jürgens Rechner")

    names = _load(own_certificate()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )

    assert names.value.get_values_for_type(x509.DNSName) == ["localhost"]


def test_without_cryptography(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """The text says what to install; a certificate that is there needs nothing."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", refuse)
        with pytest.raises(InvalidOption, match=r'pip install "hisock\[tls\]"'):
            own_certificate()
    path = own_certificate()
    monkeypatch.setattr(builtins, "__import__", refuse)
    assert own_certificate() == path
    assert read_server("auto", ()).fingerprint


def test_a_folder_that_cannot_be_written_to(home: Path) -> None:
    """The text names the file and the way out, and no draft is left behind."""
    home.write_text("a file")

    with pytest.raises(InvalidOption, match="set HISOCK_HOME to a folder"):
        own_certificate()


def test_a_write_that_fails_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """The old file stays whole, and there is no draft beside it."""
    keep_pin(ADDRESS, FIRST)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        keep_pin(("other", 1), FIRST)

    assert sorted(os.listdir(home)) == ["known_servers", "lock"]
    assert look_up_pin(ADDRESS) == FIRST


def test_a_broken_file_of_our_own(home: Path) -> None:
    """It is named, and not overwritten: clients may have its pin."""
    home.mkdir()
    (home / "server.pem").write_text("half")

    with pytest.raises(InvalidOption, match=r"server\.pem"):
        read_server("auto", ())

    assert (home / "server.pem").read_text() == "half"


# --- fingerprints ----------------------------------------------------------------


def test_a_fingerprint_is_the_one_of_ssh() -> None:
    """SHA-256 in base64 without padding (echo -n | sha256sum has the same)."""
    expected = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"

    assert fingerprint(b"") == expected


@pytest.mark.parametrize(
    "text",
    [
        "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
        "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "SHA256:E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:"
        "27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55",
    ],
)
def test_fingerprints_as_others_write_them(text: str) -> None:
    """In base64 or hexadecimal digits, with or without what is around them."""
    assert read_fingerprint(text) == fingerprint(b"")


@pytest.mark.parametrize(
    "text",
    ["", "SHA256:", "SHA256:" + "A" * 42, "A" * 44, "g" * 64, "ä" * 43, "!" * 43, None],
)
def test_what_is_no_fingerprint(text: object) -> None:
    """It is refused, and the text says what one looks like."""
    with pytest.raises(InvalidOption, match="43 characters, or 64 digits"):
        read_fingerprint(text)


# --- pins ------------------------------------------------------------------------


def test_a_pin_is_kept(home: Path) -> None:
    """One line for each server, which people can read and edit."""
    assert look_up_pin(ADDRESS) is None
    assert keep_pin(ADDRESS, FIRST) == FIRST
    assert keep_pin(("::1", 80), SECOND) == SECOND

    assert look_up_pin(("LOCALHOST", 6969)) == FIRST
    assert look_up_pin(("::1", 80, 0, 0)) == SECOND
    assert look_up_pin(("localhost", 69)) is None
    assert (home / "known_servers").read_text() == (
        f"localhost:6969 {FIRST}\n[::1]:80 {SECOND}\n"
    )


def test_the_first_pin_stands(home: Path) -> None:
    """Who comes second, with whatever, learns what is kept and changes nothing."""
    keep_pin(ADDRESS, FIRST)
    before = (home / "known_servers").read_text()

    assert keep_pin(ADDRESS, SECOND) == FIRST

    assert (home / "known_servers").read_text() == before


def test_odd_addresses() -> None:
    """A path with spaces and line ends is one line, and forges no other."""
    odd = f"unix:/a b\nlocalhost:6969 {SECOND}"
    keep_pin(odd, FIRST)
    keep_pin(("xn\u2028y", 1), SECOND)

    assert look_up_pin(odd) == FIRST
    assert look_up_pin(ADDRESS) is None
    assert look_up_pin(("xn\u2028y", 1)) == SECOND


def test_a_file_that_people_edited(home: Path) -> None:
    """Remarks, empty lines and bytes of any kind are left as they are."""
    home.mkdir()
    text = b"# my servers\n\nlocalhost:6969  " + FIRST.encode() + b"\n\xff\xfe odd\n"
    (home / "known_servers").write_bytes(text.replace(b"  ", b" "))

    assert look_up_pin(ADDRESS) == FIRST
    keep_pin(("other", 1), SECOND)

    kept = (home / "known_servers").read_bytes()
    assert kept == text.replace(b"  ", b" ") + f"other:1 {SECOND}\n".encode()


def test_there_are_not_too_many(home: Path) -> None:
    """Of more than 10,000 lines the oldest are forgotten."""
    home.mkdir()
    lines = [f"host:{number} {FIRST}\n" for number in range(10_000)]
    (home / "known_servers").write_text("".join(lines))

    keep_pin(ADDRESS, SECOND)

    assert look_up_pin(("host", 0)) is None
    assert look_up_pin(("host", 1)) == FIRST
    assert look_up_pin(ADDRESS) == SECOND
    assert (home / "known_servers").read_text().count("\n") == 10_000


def test_processes_lose_no_line_of_each_other(home: Path) -> None:
    """Each line that anybody wrote is there in the end."""
    run_together(
        "from hisock.engine.certificates import keep_pin\n"
        f"for port in range(25): keep_pin((f'host{{number}}', port), {FIRST!r})"
    )

    lines = (home / "known_servers").read_text().splitlines()
    expected = {f"host{n}:{port} {FIRST}" for n in range(4) for port in range(25)}
    assert set(lines) == expected
    assert len(lines) == 100


def test_threads_lose_no_line_of_each_other(home: Path) -> None:
    """Nor do threads of one process."""

    def work(name: str) -> None:
        for port in range(25):
            keep_pin((name, port), FIRST)

    threads = [threading.Thread(target=work, args=(f"host{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert (home / "known_servers").read_text().count("\n") == 75


@pytest.mark.skipif(os.name != "posix", reason="it is about another kind of lock")
def test_a_file_system_without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pin is kept there, too."""
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)

    assert keep_pin(ADDRESS, FIRST) == FIRST
    assert look_up_pin(ADDRESS) == FIRST


def test_a_lock_of_a_process_that_died(home: Path) -> None:
    """Nobody waits for it: it went with its holder."""
    home.mkdir()
    program = (
        "import os\nfrom hisock.engine import certificates\n"
        "with certificates._locked(): os._exit(7)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == 7

    assert keep_pin(ADDRESS, FIRST) == FIRST


# --- what a client asks ----------------------------------------------------------


def test_any_certificate_will_do() -> None:
    """Where there is nothing to compare it with, nothing is kept."""
    assert check_pin(None, ADDRESS, b"der") is None
    assert look_up_pin(ADDRESS) is None


def test_a_fingerprint_that_the_user_gave() -> None:
    """It has to be that one; nothing is kept."""
    assert check_pin(fingerprint(b"der"), ADDRESS, b"der") is None

    error = check_pin(FIRST, ADDRESS, b"der")

    assert isinstance(error, CertificateChanged)
    assert (error.old, error.new, error.file) == (FIRST, fingerprint(b"der"), "")
    assert FIRST in str(error)
    assert look_up_pin(ADDRESS) is None


def test_the_fingerprint_of_the_first_time(home: Path) -> None:
    """It is kept the first time, and another is refused with the way to allow it."""
    keep_pin(("other", 1), FIRST)
    assert check_pin("auto", ADDRESS, b"der") is None
    assert check_pin("auto", ADDRESS, b"der") is None

    error = check_pin("auto", ADDRESS, b"another")

    assert isinstance(error, CertificateChanged)
    old, new = fingerprint(b"der"), fingerprint(b"another")
    assert (error.old, error.new) == (old, new)
    assert error.file == str(home / "known_servers")
    text = str(error)
    assert f"delete line 2 of {error.file}" in text
    assert old in text
    assert new in text


def test_another_process_met_it_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looked before the other wrote compares with what the other wrote."""
    keep_pin(ADDRESS, FIRST)
    monkeypatch.setattr(certificates, "look_up_pin", lambda address: None)

    error = check_pin("auto", ADDRESS, b"der")

    assert isinstance(error, CertificateChanged)
    assert error.old == FIRST


def test_a_pin_that_was_deleted_meanwhile(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """The text is still one."""
    monkeypatch.setattr(certificates, "look_up_pin", lambda address: FIRST)

    error = check_pin("auto", ADDRESS, b"der")

    assert isinstance(error, CertificateChanged)
    assert "delete its line of" in str(error)


# --- what the user writes --------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("default", "encrypted nothing"),
        ("yes", "a server has tls="),
        (True, "a server has tls="),
        (None, "a server has tls="),
        ({}, "a server has tls="),
        ({"key": "k"}, "a server has tls="),
        ({"cert": 5}, '"cert" is the path of a file'),
        ({"cert": "no.pem"}, "cannot read a certificate in PEM from no.pem"),
        ({"cert": "no.pem", "password": 5}, '"password" is text'),
        ({"cert": "no.pem", "keys": "k"}, "has no 'keys'"),
        ({"cert": "no.pem", "fingerprint": "k"}, "has no 'fingerprint'"),
    ],
)
def test_what_a_server_cannot_have(option: object, text: str) -> None:
    """It is refused at once, and the text says what is right."""
    with pytest.raises(InvalidOption) as caught:
        server_context(option)

    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("default", "a client has tls="),
        (1, "a client has tls="),
        ({}, "a client has tls="),
        ({"cart": "x"}, "has no 'cart'"),
        ({"key": "k"}, 'need a "cert"'),
        ({"ca": "no.pem"}, "cannot read a certificate in PEM from no.pem"),
        ({"fingerprint": "SHA256:short"}, '"fingerprint" is SHA256: and 43'),
        ({"hostname": 5}, "cannot be"),
        ({"hostname": "a..b"}, "cannot be"),
        ({"hostname": ""}, "has no host name"),
    ],
)
def test_what_a_client_cannot_have(option: object, text: str) -> None:
    """It is refused at once, and the text says what is right."""
    with pytest.raises(InvalidOption) as caught:
        client_context(option, "localhost")

    assert text in str(caught.value)


def test_a_unix_socket_has_no_host_name() -> None:
    """Who wants a name checked has to give one."""
    with pytest.raises(InvalidOption, match="no host name"):
        client_context(True, "")

    assert client_context("auto", "")
    assert client_context({"hostname": "example.org"}, "")


def make_files(folder: Path, name: str) -> dict[str, str]:
    """A certificate and its key in two files."""
    key, mark, certificate = certificates._make_certificate().partition(b"-----BEGIN C")
    paths = {"cert": folder / f"{name}.pem", "key": folder / f"{name}.key"}
    paths["key"].write_bytes(key)
    paths["cert"].write_bytes(mark + certificate)
    return {kind: str(path) for kind, path in paths.items()}


def test_files_that_are_right(tmp_path: Path) -> None:
    """Paths may be text or ``Path``; the key may be in the file of the certificate."""
    mine = make_files(tmp_path, "mine")
    both = tmp_path / "both.pem"
    both.write_bytes(certificates._make_certificate())

    assert server_context({**mine, "ca": Path(mine["cert"])}).fingerprint
    assert server_context({"cert": both}).fingerprint
    assert client_context({"ca": mine["cert"]}, "localhost")
    assert client_context({**mine, "fingerprint": FIRST}, "localhost")
    assert client_context(ssl.create_default_context(), "localhost")
    assert client_context("auto", "localhost")
    assert client_context(True, "localhost")


def test_a_server_with_an_authority_wants_certificates(tmp_path: Path) -> None:
    """None may be missing; without an authority nobody is asked for one."""
    mine = make_files(tmp_path, "mine")

    asks = read_server({**mine, "ca": mine["cert"]}, ("hisock/2",)).look(0.0)
    open_ = read_server(mine, ("hisock/2",)).look(0.0)

    assert asks.verify_mode is ssl.CERT_REQUIRED
    assert open_.verify_mode is ssl.CERT_NONE
    for context in (asks, open_):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.num_tickets == 0


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    """A key of another certificate, a file without any, an authority that is none."""
    mine, other = make_files(tmp_path, "mine"), make_files(tmp_path, "other")
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    for option, culprit in (
        ({"cert": mine["cert"], "key": other["key"]}, "other.key"),
        ({"cert": junk}, "junk.pem"),
        ({**mine, "ca": junk}, "junk.pem"),
        ({**mine, "ca": tmp_path}, str(tmp_path)),
    ):
        with pytest.raises(InvalidOption) as caught:
            server_context(option)
        assert culprit in str(caught.value)


def test_an_encrypted_key(tmp_path: Path) -> None:
    """It opens with its password; without one nobody is asked at the terminal."""
    mine = make_files(tmp_path, "mine")
    key = serialization.load_pem_private_key(Path(mine["key"]).read_bytes(), None)
    Path(mine["key"]).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open"),
        )
    )

    with pytest.raises(InvalidOption, match="is encrypted; add"):
        server_context(mine)
    with pytest.raises(InvalidOption, match="or the password wrong"):
        server_context({**mine, "password": "shut"})

    assert server_context({**mine, "password": "open"}).fingerprint


def test_a_context_for_the_other_side() -> None:
    """An ``SSLContext`` has to be for this side."""
    with pytest.raises(InvalidOption, match="cannot be"):
        client_context(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "localhost")
    with pytest.raises(InvalidOption, match="cannot be"):
        server_context(ssl.create_default_context())


def test_a_context_that_is_not_safe() -> None:
    """Versions that are broken are refused, and nobody renegotiates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options &= ~ssl.OP_NO_RENEGOTIATION
    assert server_context(context).fingerprint is None
    assert context.options & ssl.OP_NO_RENEGOTIATION

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and that is the point
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(InvalidOption, match="minimum_version"):
        server_context(context)


# --- a new certificate --------------------------------------------------------------


def test_files_are_looked_at_once_a_second(tmp_path: Path) -> None:
    """A new certificate is used from then on, and the files are not read in between."""
    mine = make_files(tmp_path, "mine")
    source = read_server(mine, ())
    first, context = source.fingerprint, source.look(100.0)

    make_files(tmp_path, "mine")

    assert source.look(100.9) is context
    assert source.fingerprint == first
    assert source.look(101.0) is not context
    assert source.fingerprint != first
    assert source.look(105.0) is source.look(110.0)


def test_a_broken_certificate_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The old one stays, one error is logged, and what comes then is used again."""
    mine = make_files(tmp_path, "mine")
    source = read_server(mine, ())
    first, context = source.fingerprint, source.look(100.0)

    Path(mine["cert"]).write_text("half a file")
    assert source.look(102.0) is source.look(104.0) is context

    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.name == "hisock.server"
    assert "mine.pem" in record.getMessage()
    Path(mine["cert"]).unlink()
    assert source.look(106.0) is context
    assert source.fingerprint == first
    make_files(tmp_path, "mine")
    assert source.look(108.0) is not context
    assert source.fingerprint != first


# --- what went wrong -------------------------------------------------------------


def _error(reason: str | None, text: str = "") -> ssl.SSLError:
    error = ssl.SSLError(1, text)
    with contextlib.suppress(AttributeError):
        error.reason = reason  # type: ignore[assignment]  # None where it has no name
    return error


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("NO_SHARED_CIPHER", "the server speaks no version or cipher"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "the server found nothing in common"),
        ("TLSV1_ALERT_UNKNOWN_CA", "the server does not trust the authority"),
        ("SSL/TLS_ALERT_UNKNOWN_CA", "the server does not trust the authority"),
        ("TLSV1_ALERT_INTERNAL_ERROR", "the server gave up (TLSV1_ALERT_INTERNAL"),
        ("BAD_LENGTH", "the server sent what is no valid TLS (BAD_LENGTH)"),
    ],
)
def test_errors_of_openssl(reason: str, expected: str) -> None:
    """Each has a text that names the side, and OpenSSL's own word."""
    text = explain(_error(reason), is_server=False)

    assert text.startswith(expected)
    assert reason in text or "cipher" in text


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (10, "the certificate of the client has expired; renew it (why)"),
        (62, 'or give that one as tls={"hostname": ...} (why)'),
        (99, "the certificate of the client is not valid (why)"),
    ],
)
def test_certificates_that_are_not_accepted(code: int, expected: str) -> None:
    """What is wrong, what to do about it, and OpenSSL's own words."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    error.verify_code, error.verify_message = code, "why"

    assert explain(error, is_server=True).endswith(expected)


def test_a_client_that_shows_none() -> None:
    """The server says so."""
    error = _error("PEER_DID_NOT_RETURN_A_CERTIFICATE")

    assert explain(error, is_server=True).startswith("the client has no certificate")


def test_an_error_that_has_no_name() -> None:
    """CPython does not know all of OpenSSL's."""
    error = _error(None, "[SSL] tlsv1 alert no application protocol (_ssl.c:1006)")

    text = explain(error, is_server=True)

    assert text.startswith("the client speaks TLS, but not hisock inside it")
