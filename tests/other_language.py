"""A whole client in plain Python: nothing of hisock, and a MessagePack of its own."""

import socket
from struct import calcsize, pack, unpack

WRITE = {
    type(None): lambda v: b"\xc0",
    bool: lambda v: b"\xc3" if v else b"\xc2",
    int: lambda v: pack(">Bq", 0xD3, v),
    float: lambda v: pack(">Bd", 0xCB, v),
    bytes: lambda v: pack(">BI", 0xC6, len(v)) + v,
    str: lambda v: b"\xdb" + write(v.encode())[1:],
    list: lambda v: pack(">BI", 0xDD, len(v)) + write(*v),
    dict: lambda v: pack(">BI", 0xDF, len(v)) + write(*sum(v.items(), ())),
}
FIXED = {n & 255: n for n in range(-32, 128)} | {0xC0: None, 0xC2: False, 0xC3: True}
FORMS = {0xC4 + i: f">{c}" for i, c in enumerate("BHI---fdBHIQbhiq-----BHIHIHI")}
sock = socket.create_connection(("127.0.0.1", 6969))
take = sock.makefile("rb").read  # waits for all the bytes it is asked for


def write(*values: object) -> bytes:
    return b"".join(WRITE[type(v)](v) for v in values)  # type: ignore[no-untyped-call] # lambdas


def read() -> object:
    tag = take(1)[0]
    if tag in FIXED:
        return FIXED[tag]
    size = tag & (15 if tag < 0xA0 else 31)
    if form := FORMS.get(tag):
        (size,) = unpack(form, take(calcsize(form)))
    if 0xCA <= tag <= 0xD3:  # it was no size, but the number
        return size
    if tag < 0x90 or tag > 0xDD:
        return {read(): read() for _ in range(size)}
    if tag < 0xA0 or tag > 0xDB:
        return [read() for _ in range(size)]
    return take(size) if 0xC4 <= tag <= 0xC6 else take(size).decode()


def tell(*frame: object) -> None:
    sock.sendall(pack(">I", len(body := write([*frame]))) + body)


def ask(number: int, command: str, content: object, credit: int = 0) -> list[object]:
    tell(2, number, command, content, credit)
    items: list[object] = []
    while take(4):
        match read():
            case [3 | 6, n, *reply] if n == number:  # the Reply, or a stream's End
                return items + reply
            case [5, n, item] if n == number:
                items.append(item)
                tell(7, number, 1)
            case [4, n, code, text, *_] if n == number:
                raise RuntimeError(f"{code}: {text}")
            case [2, n, "answer", question, *_]:  # the server calls us
                tell(3, n, f"{question} Yes.")
            case [1, name, said, *_]:
                print(name, said)
    raise ConnectionError("the server ended the connection")


sock.sendall(b'53  $CLTHELLO$ {"name": "ann", "group": null, "proto": 2}9   $DH_NUMS$')
assert take(int(take(4))).startswith(b"$WELCOME$ ")
sock.sendall(b"9   $COMPACT$")
tell(1, "note", {"at": [3, -4, 0.5], "raw": b"\x00\xff", "ready": True, "by": None})
print(ask(1, "add", [1, 2.5]), ask(3, "ask", "Well?"), ask(5, "count", 99, 64)[-1])
tell(35, 0, "done")
sock.shutdown(socket.SHUT_WR)
take()  # until the server has ended its side, too
