// The handshake, the session and broken servers, byte for byte, on sockets in a script.

import assert from "node:assert/strict";
import { test } from "node:test";

import { connect, pack, unpack } from "../../src/hisock/web/static/hisock.js";
import { atEnd, hurry, later } from "./world.mjs";

/** Sockets whose other end is the test. */
function stage(t) {
  const sockets = [];
  const waiting = [];
  class Socket {
    readyState = 0;
    bufferedAmount = 0;
    said = [];
    #wanted = [];

    constructor(url) {
      this.url = url;
      sockets.push(this);
      waiting.shift()?.(this);
    }

    send(data) {
      const frame = unpack(data);
      const wanted = this.#wanted.shift();
      if (wanted) wanted(frame);
      else this.said.push(frame);
    }

    close(code, reason) {
      if (this.readyState < 2) Object.assign(this, { readyState: 3, code, reason });
    }

    open() {
      this.readyState = 1;
      this.onopen();
    }

    /** What it says next. */
    hear() {
      if (this.said.length) return Promise.resolve(this.said.shift());
      return new Promise((resolve) => this.#wanted.push(resolve));
    }

    say(...frame) {
      this.onmessage({ data: pack(frame).buffer });
    }

    cut(code = 1006, reason = "") {
      this.readyState = 3;
      this.onclose({ code, reason });
    }

    /** Answer its hello; what that was. */
    async welcome(fields = {}) {
      this.open();
      const [kind, hello] = await this.hear();
      assert.equal(kind, 36);
      const all = { proto: 2, sid: hello.sid, epoch: "e1", got: 0, resumed: false, now: 1000, name: hello.name, group: hello.group };
      this.say(37, { ...all, ...fields });
      return hello;
    }
  }
  const used = [];
  const take = async () => {
    const fresh = sockets.find((each) => !used.includes(each));
    const socket = fresh ?? (await new Promise((resolve) => waiting.push(resolve)));
    used.push(socket);
    return socket;
  };
  const join = async (options = {}) => {
    const connecting = connect("ws://there", { WebSocket: Socket, ...options });
    const socket = await take();
    const hello = await socket.welcome();
    const client = await connecting;
    assert.deepEqual(await socket.hear(), [32, 0]); // confirms the welcome
    atEnd(t, () => {
      const closing = client.close();
      sockets.at(-1).onclose?.({ code: 1000, reason: "" });
      return closing;
    });
    return { client, socket, hello };
  };
  hurry(t);
  t.mock.method(console, "warn", () => {});
  return { Socket, take, join, sockets };
}

test("the hello is what docs/wire.md says", async (t) => {
  const { join } = stage(t);
  const { hello } = await join({ name: "ann", group: "g", resumeWindow: 7 });
  const { sid, token, next, now, ...rest } = hello;
  assert.match(sid, /^[0-9a-f]{32}$/);
  for (const secret of [token, next]) assert.match(secret, /^[0-9a-f]{64}$/);
  assert.ok(Number.isInteger(now) && now >= 0);
  assert.deepEqual(rest, { name: "ann", group: "g", proto: 2, epoch: null, got: 0, window: 7, beats: true });
});

test("without a window there is no session", async (t) => {
  const { Socket, take } = stage(t);
  const connecting = connect("http://there/path#part", { WebSocket: Socket, resumeWindow: 0 });
  const socket = await take();
  assert.equal(socket.url, "ws://there/path");
  const hello = await socket.welcome({ sid: "" });
  assert.deepEqual(Object.keys(hello).sort(), ["group", "name", "now", "proto"]);
  const client = await connecting;
  client.send("a", 1);
  assert.deepEqual(await socket.hear(), [1, "a", 1]); // and no Ack before it
  const lost = later();
  client.onSessionLost(lost.resolve);
  const call = client.call("b");
  socket.cut();
  await assert.rejects(call, { code: "session_lost" });
  client.send("later", 2);
  const second = await take();
  await second.welcome({ sid: "" });
  assert.deepEqual((await lost.promise).unacked, [{ command: "later", content: 2 }]);
  const closing = client.close();
  second.cut(1000);
  await closing;
});

test("the token changes with each welcome that was heard, and with no other", async (t) => {
  const { take, join } = stage(t);
  const { socket, hello } = await join();
  socket.cut();
  const second = await take();
  second.open();
  const [, again] = await second.hear();
  assert.deepEqual([again.sid, again.token, again.epoch], [hello.sid, hello.next, "e1"]);
  second.cut(); // before its welcome: nothing has changed
  const third = await take();
  const same = await third.welcome({ resumed: true });
  assert.deepEqual([same.token, same.next], [again.token, again.next]);
  third.cut(); // the confirmation may be lost: the next hello has the next token
  const fourth = await take();
  assert.equal((await fourth.welcome({ resumed: true })).token, again.next);
});

test("what was not acknowledged is sent again, once, in order, and never too much", async (t) => {
  const { take, join } = stage(t);
  const { client, socket } = await join();
  for (const n of [1, 2, 3]) client.send("a", n);
  socket.say(32, 1);
  socket.cut();
  client.send("a", 4);
  const second = await take();
  await second.welcome({ resumed: true, got: 2 });
  const said = [];
  for (let n = 0; n < 3; n += 1) said.push(await second.hear());
  assert.deepEqual(said, [[32, 0], [1, "a", 3], [1, "a", 4]]);
  assert.equal(client.isConnected, true);
});

test("a lost session is told before anything new, with what may be lost", async (t) => {
  const { take, join } = stage(t);
  const { client, socket } = await join({ name: "ann" });
  const log = [];
  const all = later();
  client.onDrop(() => log.push("drop"));
  client.onResume(() => log.push("resume"));
  client.onSessionLost(({ code, reason, unacked, missed }) => log.push([code, reason, unacked, missed]));
  client.on("new", () => all.resolve());
  client.on("client_connect", () => {});
  assert.deepEqual(await socket.hear(), [11, true]);
  client.send("a", 1);
  const call = client.call("b", 2);
  call.catch(() => {});
  socket.say(2, 2, "never", null); // answered, and so acknowledged below
  socket.cut();
  const second = await take();
  const hello = await second.welcome({ epoch: "e2", reason: "expired", missed: 5 });
  assert.equal(hello.got, 1);
  second.say(1, "new", null);
  await all.promise;
  await assert.rejects(call, { code: "session_lost", reason: "expired" });
  const unacked = [{ command: "a", content: 1 }, { command: "b", content: 2 }];
  assert.deepEqual(log, ["drop", ["session_lost", "expired", unacked, 5]]);
  assert.deepEqual([await second.hear(), await second.hear()], [[32, 0], [11, true]]);
  second.say(2, 2, "unknown", null); // ids begin anew
  assert.equal((await second.hear())[2], "unknown_command");
});

test("a welcome that was lost cannot hide that a session was", async (t) => {
  const { take, join } = stage(t);
  const { client, socket, hello } = await join();
  client.send("a", 1);
  socket.say(32, 1);
  client.send("a", 2);
  const lost = later();
  client.onSessionLost(lost.resolve);
  socket.cut();
  const second = await take();
  second.open();
  await second.hear();
  second.say(35, 3, "not yours", 0); // unauthorized: it draws a session of its own
  const third = await take();
  third.open();
  const [, fresh] = await third.hear();
  assert.notEqual(fresh.sid, hello.sid);
  assert.deepEqual([fresh.got, fresh.epoch], [0, null]);
  third.cut(); // its welcome does not arrive
  const fourth = await take();
  await fourth.welcome({ resumed: true, epoch: "e2" });
  const { reason, unacked } = await lost.promise;
  assert.deepEqual([reason, unacked], ["unauthorized", [{ command: "a", content: 2 }]]);
});

test("acknowledgements go out for 64 frames, for 64 KiB, or soon", async (t) => {
  const { client, socket } = await (stage(t).join)();
  client.on("a", () => {});
  for (let n = 0; n < 64; n += 1) socket.say(1, "a", n);
  assert.deepEqual(await socket.hear(), [32, 64]);
  socket.say(1, "a", new Uint8Array(65536));
  assert.deepEqual(await socket.hear(), [32, 65]);
  socket.say(1, "a", 1);
  assert.deepEqual(await socket.hear(), [32, 66]);
});

test("a message is not handled after its time, nor one that waited for that long", async (t) => {
  const { client, socket } = await (stage(t).join)();
  const came = [];
  client.on("a", (n) => came.push(n));
  socket.say(1, "a", 1, 500); // the server's clock was at 1000 when it said welcome
  socket.say(1, "a", 2, 60_000);
  const held = later();
  client.on("hold", () => held.promise);
  socket.say(1, "hold", null);
  socket.say(1, "a", 3, 1000 + Math.ceil(performance.now()) % 1 + 40);
  socket.say(1, "b", 4, 500);
  setTimeout(held.resolve, 80);
  await held.promise;
  client.on("last", () => came.push("last"));
  socket.say(1, "last", null);
  await new Promise(setImmediate);
  assert.deepEqual(came, [2, "last"]);
  await assert.rejects(client.recv("b", { timeout: 0.01 }), { code: "request_timeout" });
});

test("ttl and time-outs leave as deadlines on our own clock", async (t) => {
  const { client, socket } = await (stage(t).join)();
  const before = performance.now();
  client.send("a", 1, { ttl: 5 });
  const [, , , deadline] = await socket.hear();
  assert.ok(deadline >= before + 4999 && deadline < before + 6000, `${deadline - before}`);
  client.call("b", 2, { timeout: null }).catch(() => {});
  assert.deepEqual(await socket.hear(), [2, 1, "b", 2, 0, null, null]);
});

test("silence is asked after, and then cut", async (t) => {
  const { take, join } = stage(t);
  const { client, socket } = await join({ deadAfter: 0.06 });
  const dropped = later();
  client.onDrop(dropped.resolve);
  assert.equal((await socket.hear())[0], 33);
  socket.say(34, 1); // somebody is there
  assert.equal((await socket.hear())[0], 33);
  await dropped.promise;
  await (await take()).welcome({ resumed: true });
  socket.say(33, 7); // too late, of a link that is gone
});

test("a ping is answered at once, though handlers are busy", async (t) => {
  const { client, socket } = await (stage(t).join)();
  const held = later();
  client.on("hold", () => held.promise);
  socket.say(1, "hold", null);
  socket.say(33, 7);
  assert.deepEqual(await socket.hear(), [34, 7]);
  held.resolve();
});

test("what breaks the protocol ends the client with code 4005, and a goodbye", async (t) => {
  const wrong = [
    [99], ["x"], {}, [1, 2, 3], [1], [3, 0, 1], [5, "x", 1], [7, 1, 0], [11, true], [36, {}], [37, {}], [32, 1],
    [32, -1], [12, [1]], [1, "a", 1, "soon"], [2, 1, "odd", null], [2, 2, "a", null, -1], [35, "x"],
    { 0: 32, 1: 0 }, { 0: 1, 1: "a", 2: 1 }, Uint8Array.of(32, 0),
  ];
  for (const frame of wrong) {
    const { client, socket } = await (stage(t).join)();
    const ended = later();
    client.on("force_disconnect", ended.resolve);
    socket.onmessage({ data: pack(frame).buffer });
    const error = await ended.promise;
    assert.equal(error.cause.code, "remote", JSON.stringify(frame));
    const said = [await socket.hear(), await socket.hear()];
    assert.deepEqual([said[0][0], said[1].slice(0, 2), socket.code], [32, [35, 5], 4005]);
    assert.throws(() => client.send("a"), { code: "disconnected" });
    await assert.rejects(client.call("a"), { code: "disconnected" });
    await assert.rejects(client.recv("a"), { code: "disconnected" });
  }
  for (const data of ["text", new ArrayBuffer(0), Uint8Array.of(0xc1).buffer]) {
    const { client, socket } = await (stage(t).join)();
    const ended = later();
    client.on("force_disconnect", ended.resolve);
    socket.onmessage({ data });
    assert.equal((await ended.promise).cause.code, "remote");
  }
  const { client, socket } = await (stage(t).join)();
  const ended = later();
  client.on("force_disconnect", ended.resolve);
  socket.onmessage({ data: new ArrayBuffer(16 * 1024 * 1024 + 1) });
  assert.equal((await ended.promise).cause.code, "too_large");
  assert.equal(socket.code, 4006);
});

test("what comes before the welcome can only be a welcome, or a refusal", async (t) => {
  const { Socket, take } = stage(t);
  const tries = [
    [[1, "a", 1], "remote"], [[37, { proto: 3 }], "remote"], [[37, { proto: 2, sid: "f".repeat(32) }], "remote"],
    [[35, 4, "taken", null], "name_taken"], [[35, 17, "full", 1000], "busy"], [[35, 3, "", 0], "unauthorized"],
    [[35], "closed"], [[35, 99, "new", null], "refused"],
    ...["epoch", "reason", "name", "group", "got", "now"].map((key) => [[37, { proto: 2, [key]: { toString: 1 } }], "remote"]),
  ];
  for (const [frame, code] of tries) {
    const connecting = connect("ws://there", { WebSocket: Socket });
    const socket = await take();
    socket.open();
    await socket.hear();
    socket.say(...frame);
    await assert.rejects(connecting, { code }, JSON.stringify(frame));
    assert.equal(socket.readyState, 3);
  }
});

test("close codes say what a goodbye says", async (t) => {
  const codes = [[1000, "closed"], [1002, "protocol"], [1009, "too_large"], [4001, "kicked"], [4002, "replaced"]];
  for (const [code, word] of codes) {
    const { client, socket } = await (stage(t).join)();
    const ended = later();
    client.on("force_disconnect", ended.resolve);
    socket.cut(code);
    const error = await ended.promise;
    assert.deepEqual([error.code, error.cause.code], ["disconnected", word]);
  }
  for (const code of [1001, 1006, 1012, 4016, 4018]) {
    const { take, join } = stage(t);
    const { client, socket } = await join();
    const back = later();
    client.onResume(back.resolve);
    socket.cut(code);
    await (await take()).welcome({ resumed: true });
    await back.promise;
  }
});

test("a first connect does not wait for a server that is not there", async (t) => {
  const { Socket, take } = stage(t);
  const connecting = connect("ws://there", { WebSocket: Socket });
  (await take()).cut();
  await assert.rejects(connecting, { code: "server_not_running" });
});

test("a cut before the first welcome costs nothing but time", async (t) => {
  const { Socket, take } = stage(t);
  const connecting = connect("ws://there", { WebSocket: Socket });
  const socket = await take();
  socket.open();
  const [, hello] = await socket.hear();
  socket.cut();
  const second = await take();
  const again = await second.welcome({ resumed: true });
  assert.deepEqual([again.sid, again.token, again.next], [hello.sid, hello.token, hello.next]);
  const client = await connecting;
  const closing = client.close();
  second.cut(1000);
  await closing;
});

test("a full buffer drops what may be dropped, and says so", async (t) => {
  const { client, socket } = await (stage(t).join)();
  const big = new Uint8Array(2 ** 20);
  socket.bufferedAmount = 2 ** 20; // the socket takes nothing
  for (const n of [1, 2, 3, 4]) client.send("big", big, { whenSlow: n < 3 ? "drop_oldest" : "wait" });
  client.send("small", 1, { whenSlow: "drop_newest" });
  client.send("small", 2, { whenSlow: "drop_newest" });
  client.send("small", 3, { whenSlow: "drop_oldest" });
  client.send("big", big);
  assert.throws(() => client.send("small", 4, { whenSlow: "raise" }), { code: "would_block" });
  for (const n of [1, 2, 3]) client.send("at", n, { key: "ann" });
  client.send("at", 4, { key: "bob" });
  let hasRoom = false;
  const room = client.send("small", 5).then(() => (hasRoom = true));
  for (let n = 0; n < 4; n += 1) client.send("big", big);
  assert.throws(() => client.send("small", 6), { code: "would_block" });
  assert.equal(hasRoom, false);
  socket.bufferedAmount = 0;
  const said = [];
  for (let n = 1; n <= 14; n += 1) {
    const [kind, command, content] = await socket.hear();
    said.push(kind === 14 ? ["gap", command] : command === "big" ? command : [command, content]);
    socket.say(32, n);
  }
  const middle = [["gap", 2], ["small", 3], "big", ["at", 3], ["at", 4], ["small", 5]];
  assert.deepEqual(said, [["gap", 1], "big", "big", "big", ...middle, "big", "big", "big", "big"]);
  await room;
});

test("4 MiB that are not acknowledged hold back the rest", async (t) => {
  const { client, socket } = await (stage(t).join)();
  const big = new Uint8Array(2 ** 20);
  let room;
  for (let n = 0; n < 6; n += 1) room = client.send("big", big);
  await new Promise(setImmediate);
  assert.equal(socket.said.length, 4);
  socket.say(32, 3);
  await room;
  assert.equal(socket.said.length, 6);
});

test("renames are counted until the server has answered the last", async (t) => {
  const { client, socket } = await (stage(t).join)({ name: "ann" });
  const errors = [];
  client.onError((error) => errors.push(error.code));
  client.changeName("bob");
  client.changeName("cid");
  socket.say(9, "ann");
  assert.equal(client.name, "cid");
  socket.say(9, "cid");
  await client.recv("none", { timeout: 0.001 }).catch(() => {});
  assert.deepEqual([client.name, errors], ["cid", []]);
  client.changeGroup("g");
  socket.say(10, null);
  await client.recv("none", { timeout: 0.001 }).catch(() => {});
  assert.deepEqual([client.group, errors], [null, ["regroup_refused"]]);
});

test("too many open calls are refused on both sides", async (t) => {
  const { client, socket } = await (stage(t).join)();
  for (let n = 0; n < 1024; n += 1) client.call("a").catch(() => {});
  await assert.rejects(client.call("a"), { code: "overloaded" });
  socket.said.length = 0;
  client.on("hold", () => new Promise(() => {}));
  for (let n = 1; n <= 1025; n += 1) socket.say(2, 2 * n, "hold", null);
  const said = socket.said.filter(([kind]) => kind === 4);
  assert.deepEqual(said.map((frame) => frame.slice(0, 3)), [[4, 2050, "overloaded"]]);
});

test("a message that nobody wants makes room in the inbox", async (t) => {
  const { client, socket } = await (stage(t).join)();
  for (let n = 0; n < 1025; n += 1) socket.say(1, "a", n);
  assert.equal(await client.recv("a"), 1);
  assert.equal(console.warn.mock.callCount(), 1);
});

test("arguments that cannot be are refused", async (t) => {
  const { Socket } = stage(t);
  for (const [url, options, code] of [
    ["ftp://there", {}, "invalid_address"], ["/", {}, "invalid_address"], ["ws://", {}, "invalid_address"],
    ["ws://there", { name: 1 }, "invalid_name"], ["ws://there", { group: "\n" }, "invalid_name"],
    ["ws://there", { name: "\u00e9".repeat(128) }, "invalid_name"], // 256 bytes
    ["ws://there", { resumeWindow: -1 }, "invalid_option"], ["ws://there", { WebSocket: null }, "invalid_option"],
    ["ws://there", { token: 5 }, "invalid_option"],
  ]) {
    await assert.rejects(connect(url, { WebSocket: Socket, ...options }), { code }, url + code);
  }
  const failing = connect("ws://there", { WebSocket: Socket, token: () => Promise.reject(new Error("mine")) });
  await assert.rejects(failing, { message: "mine" });
});

test("the token is asked for at each connect, and leaves when the server asks", async (t) => {
  const { Socket, take } = stage(t);
  let asked = 0;
  const token = async () => `token ${(asked += 1)}`;
  const connecting = connect("ws://there", { WebSocket: Socket, token });
  const socket = await take();
  socket.open();
  const [, hello] = await socket.hear();
  socket.say(37, { proto: 2, auth: true });
  assert.deepEqual(await socket.hear(), [38, "token 1"]);
  socket.say(37, { proto: 2, sid: hello.sid, epoch: "e", name: "bob", group: null });
  const client = await connecting;
  assert.equal(client.name, "bob");
  const ended = later();
  client.on("force_disconnect", ended.resolve);
  socket.cut();
  const second = await take();
  second.open();
  await second.hear();
  second.say(37, { proto: 2, auth: true });
  assert.deepEqual(await second.hear(), [38, "token 2"]);
  second.say(35, 3, "no longer", null);
  assert.equal((await ended.promise).cause.code, "unauthorized");
});

test("a socket that tells of an error while it is closed is let go of", async (t) => {
  const { Socket, take } = stage(t);
  class Eager extends Socket {
    close() {
      this.onerror(); // as that of Node 22 does before it is open
    }
  }
  const connecting = connect("ws://there", { WebSocket: Eager });
  (await take()).onerror();
  await assert.rejects(connecting, { code: "server_not_running" });
});

test("a close that takes its time is not taken for silence", async (t) => {
  const { join, sockets } = stage(t);
  const { client, socket } = await join({ deadAfter: 0.2 });
  const now = performance.now();
  t.mock.method(performance, "now", () => now + 30_000); // the computer has slept
  const closing = client.close();
  assert.deepEqual(await socket.hear(), [32, 0]);
  assert.deepEqual(await socket.hear(), [35, 0, "", null]);
  await closing; // though nobody answers

  assert.equal(client.isConnected, false);
  assert.equal(sockets.length, 1); // nobody came back
});
