// What hisock.js promises, against a real server.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { CommandError, HiSockError, RemoteError, SessionLost, connect } from "../../src/hisock/web/static/hisock.js";
import { atEnd, hurry, later, next, startProxy, startServer } from "./world.mjs";

let shared;
before(async () => (shared = await startServer()));
after(() => shared.stop());

/** A client of the one server that most tests share. */
async function meet(t, options = {}) {
  const client = await connect(shared.url, options);
  atEnd(t, () => client.close());
  return { server: shared, client };
}

test("names, groups and the wire are what was asked for", async (t) => {
  const { client } = await meet(t, { name: "ann", group: "g" });
  assert.deepEqual(await client.call("who"), ["ann", "g", "websocket"]);
  client.changeName("bob");
  client.changeGroup(null);
  assert.deepEqual(await client.call("who"), ["bob", null, "websocket"]);
  assert.deepEqual([client.name, client.group, client.isConnected], ["bob", null, true]);
});

test("a handler registered after connect() gets what the server said at once", async (t) => {
  const { client } = await meet(t, { name: "ann" });
  await client.call("echo", 1); // by now it is in the inbox
  const joined = later();
  client.on("joined", joined.resolve);
  assert.equal(await joined.promise, "ann");
});

test("content keeps its type, both ways", async (t) => {
  const { client } = await meet(t);
  const values = [
    null, true, false, 0, 1, -1, 127, 128, 255, 256, 65535, 65536, 2 ** 32, 2 ** 53 - 1,
    -32, -33, -128, -129, -32768, -32769, -(2 ** 31), -(2 ** 31) - 1, -(2 ** 53) + 1,
    2n ** 63n, 2n ** 64n - 1n, -(2n ** 63n), 0.5, -1e300, Infinity, "", "né€😀\ufeff", "x".repeat(70000),
    new Uint8Array(), new Uint8Array(300).fill(7), [], [1, [2]], Array(70000).fill(1), {}, { a: { b: null } },
    new Map([[1, "a"], [-(2n ** 60n), 2]]), new Date(0), new Date(-1), new Date(2 ** 34 * 1000 + 5),
    new Date(1700000000123), Object.fromEntries(Array.from({ length: 20 }, (_, n) => [`k${n}`, n])),
  ];
  for (const value of values) assert.deepEqual(await client.call("echo", value), value);
  assert.ok(Number.isNaN(await client.call("echo", NaN)));
  assert.deepEqual(await client.call("echo", new Set([1, 2])), [1, 2]);
  assert.deepEqual(await client.call("echo", { a: undefined, b: 1 }), { b: 1 });
  assert.equal(await client.call("type", new Date()), "datetime");
  assert.equal(await client.call("type", new Uint8Array(1).buffer), "bytes");
  assert.equal(await client.call("type", 2n ** 60n), "int");
  assert.equal(await client.call("type", undefined), "NoneType");
  const evil = await client.call("echo", JSON.parse('{"__proto__": {"x": 1}}'));
  assert.deepEqual([Object.keys(evil), evil.x], [["__proto__"], undefined]);
});

test("what cannot be sent is refused at once, and costs nothing", async (t) => {
  const { client } = await meet(t);
  const circle = [];
  circle.push(circle);
  for (const wrong of [() => {}, Symbol(), circle, 2n ** 64n, Promise.resolve(), new Date(NaN), "\ud800"]) {
    assert.throws(() => client.send("note", wrong), { code: "not_sendable" });
    await assert.rejects(client.call("echo", wrong), { code: "not_sendable" });
  }
  for (const wrong of ["", "$USRCLOSE$", null]) {
    assert.throws(() => client.send(wrong), { code: "reserved_command" });
  }
  assert.throws(() => client.send("a", new Uint8Array(2 ** 24)), { code: "message_too_large" });
  assert.throws(() => client.send("a", 1, { whenSlow: "never" }), { code: "invalid_option" });
  assert.throws(() => client.send("a", 1, { key: 1, whenSlow: "wait" }), { code: "invalid_option" });
  assert.throws(() => client.changeName("\n"), { code: "invalid_name" });
  await assert.rejects(client.call("echo", 1, { timeout: "soon" }), { code: "invalid_option" });
  await assert.rejects(client.recv("back", { timeout: -1 }), { code: "invalid_option" });
  client.send("back", 1);
  assert.equal(await client.recv("back"), 1); // and not taken by the one that failed
  assert.equal(await client.call("echo", 1), 1);
});

test("a call gets what the handler returns, or why not", async (t) => {
  const { client } = await meet(t);
  const answers = await Promise.all(Array.from({ length: 300 }, (_, n) => client.call("echo", n)));
  assert.deepEqual(answers, Array.from({ length: 300 }, (_, n) => n));
  const error = await client.call("fail", 3).catch((raised) => raised);
  assert.ok(error instanceof RemoteError && error instanceof HiSockError);
  assert.deepEqual([error.code, error.message, error.data], ["no_luck", "not today", { tries: 3 }]);
  await assert.rejects(client.call("eco", 3), { code: "unknown_command" });
  await assert.rejects(client.call("late", 1, { timeout: 0.02 }), { code: "request_timeout" });
});

test("a stream comes with credit, and ends there when it is left here", async (t) => {
  const { client } = await meet(t);
  const items = [];
  for await (const n of client.stream("count", 500)) items.push(n);
  assert.deepEqual(items, Array.from({ length: 500 }, (_, n) => n));
  assert.equal(await client.call("stopped"), true);
  for await (const n of client.stream("count", 10 ** 9)) if (n === 100) break;
  assert.equal(await client.call("stopped"), true);
  const silent = client.stream("silent");
  assert.deepEqual(await silent.next(), { value: 1, done: false });
  const waiting = silent.next();
  await silent.return();
  assert.deepEqual(await waiting, { value: undefined, done: true });
  assert.equal(await client.call("stopped"), true);
  const slow = client.stream("silent", null, { timeout: 0.02 });
  await slow.next();
  await assert.rejects(slow.next(), { code: "request_timeout" });
  assert.equal(await client.call("stopped"), true);
  await assert.rejects(client.stream("echo").next(), { code: "no_stream" });
  const full = client.stream("count", 64); // exactly what there is credit for
  await client.call("echo");
  const all = [];
  for await (const n of full) all.push(n);
  assert.equal(all.length, 64);
  assert.equal(await client.call("stopped"), true);
  await assert.rejects(client.call("count", 1), { code: "only_stream" });
});

test("handlers answer calls and streams of the server", async (t) => {
  const { client } = await meet(t);
  client.onError(() => {});
  client.on("double", async (n) => 2 * n);
  client.on("refuse", () => {
    throw new CommandError("busy", "not now", [1]);
  });
  client.on("break", () => {
    throw new Error("a secret");
  });
  client.on("strange", () => {
    throw new CommandError(5, "\u0041", () => {});
  });
  client.on("hopeless", () => {
    throw new CommandError("x", "\ud800");
  });
  let isClosed = false;
  client.on("numbers", async function* (upto) {
    try {
      for (let n = 0; n < upto; n += 1) yield n;
    } finally {
      isClosed = true;
    }
  });
  client.on("list", () => [1, 2]);
  const ask = (command, value) => client.call("ask back", [command, value]);
  assert.equal(await ask("double", 4), 8);
  await assert.rejects(ask("refuse"), { code: "busy", message: "not now", data: [1] });
  await assert.rejects(ask("break"), { code: "handler_failed" });
  await assert.rejects(ask("numbers", 1), { code: "only_stream" });
  await assert.rejects(ask("unknown"), { code: "unknown_command" });
  await assert.rejects(ask("strange"), { code: "5", message: "A", data: null });
  await assert.rejects(ask("hopeless"), { code: "handler_failed" });
  assert.equal((await client.call("read back", ["numbers", 200, 0])).length, 200);
  isClosed = false;
  assert.equal((await client.call("read back", ["numbers", 1e9, 3])).length, 3);
  while (!isClosed) await client.call("echo");
  assert.deepEqual(await client.call("read back", ["list", null, 0]), [1, 2]);
  await assert.rejects(client.call("read back", ["double", 1, 0]), { code: "no_stream" });
});

test("a call within a call is answered, though a handler waits for it", async (t) => {
  const { client } = await meet(t);
  client.on("down", async (n, context) => (n ? context.call("ask back", ["down", n - 1]) : "ground"));
  const outer = later();
  client.on("start", async (_, context) => outer.resolve(await context.call("ask back", ["down", 3])));
  client.send("back"); // so that something else waits, too
  client.send("echo");
  assert.equal(await client.call("ask back", ["down", 5]), "ground");
});

test("handlers run one after the other, also those that take their time", async (t) => {
  const { client } = await meet(t);
  const log = [];
  const done = later();
  client.on("back", async (n) => {
    log.push(`begin ${n}`);
    await client.call("echo"); // answers overtake what waits
    log.push(`end ${n}`);
    if (n === 2) done.resolve();
  });
  client.on("flood", (n) => log.push(`flood ${n}`));
  for (const n of [0, 1]) client.send("back", n);
  client.send("flood", 1);
  await client.call("echo");
  client.send("back", 2);
  await done.promise;
  assert.deepEqual(log, ["begin 0", "end 0", "begin 1", "end 1", "flood 0", "begin 2", "end 2"]);
});

test("what has no handler waits for recv, in order, and '*' takes all others", async (t) => {
  const { client } = await meet(t, { name: "ann" });
  assert.equal(await client.recv("joined"), "ann");
  const waiting = client.recv("back");
  client.send("back", 1);
  assert.equal(await waiting, 1);
  client.send("back", 2);
  client.send("flood", 1);
  assert.equal(await client.recv("flood"), 0);
  assert.deepEqual(await client.recvAny(), { command: "back", content: 2 });
  await assert.rejects(client.recv("back", { timeout: 0.01 }), { code: "request_timeout" });
  client.send("back", 3);
  await client.call("echo");
  const all = [];
  const remove = client.on("*", (command, content) => all.push([command, content]));
  client.send("back", 4);
  await client.call("echo");
  assert.deepEqual(all, [["back", 3], ["back", 4]]);
  remove();
  client.send("back", 5);
  assert.equal(await client.recv("back"), 5);
});

test("what a handler throws goes to onError, and costs nothing else", async (t) => {
  const { client } = await meet(t);
  const errors = [];
  const seen = later();
  client.onError((error) => errors.push([error.code, error.command, error.cause.message]));
  client.on("back", (n) => {
    if (n === 1) throw new Error("one");
    if (n === 2) return Promise.reject(new Error("two"));
    return seen.resolve();
  });
  for (const n of [1, 2, 3]) client.send("back", n);
  await seen.promise;
  assert.deepEqual(errors, [["handler", "back", "one"], ["handler", "back", "two"]]);
});

test("joins and leaves of others are told to who asks for them", async (t) => {
  const { server, client } = await meet(t, { name: "ann" });
  const came = later();
  const left = later();
  client.on("client_connect", ({ name, group }) => came.resolve([name, group]));
  client.on("client_disconnect", ({ name }) => left.resolve(name));
  await client.call("echo");
  const other = await connect(server.url, { name: "bob", group: "g" });
  assert.deepEqual(await came.promise, ["bob", "g"]);
  await other.close();
  assert.equal(await left.promise, "bob");
});

test("exactly once and in order, both ways, through cuts", async (t) => {
  const server = await startServer(t);
  const proxy = await startProxy(t, server.port);
  const client = await connect(proxy.url);
  atEnd(t, () => client.close());
  let resumes = 0;
  client.onResume(() => (resumes += 1));
  const lost = [];
  client.onSessionLost((error) => lost.push(error));
  const came = [];
  const all = later();
  const total = 3000;
  client.on("back", (n) => {
    came.push(n);
    if (came.length === total) all.resolve();
  });
  for (let n = 0; n < total; n += 1) {
    client.send("note", n);
    client.send("back", n);
    if (n % 300 === 299) {
      proxy.cut();
      await new Promise(setImmediate);
    }
  }
  await all.promise;
  assert.deepEqual(came, Array.from({ length: total }, (_, n) => n));
  assert.deepEqual(await client.call("notes"), came);
  assert.deepEqual(lost, []);
  assert.ok(resumes > 0);
});

for (const direction of ["up", "down"]) {
  test(`a cut at any byte ${direction} loses nothing, handshakes and welcomes included`, async (t) => {
    const server = await startServer(t);
    const proxy = await startProxy(t, server.port);
    proxy.direction = direction;
    const client = await connect(proxy.url, { name: "ann" });
    atEnd(t, () => client.close());
    const lost = [];
    client.onSessionLost((error) => lost.push(error.message));
    // Each connection lives a few bytes longer than the one before.
    proxy.cutAfter = (n) => (n < 42 ? 60 + 21 * n : null);
    proxy.cut();
    for (let n = 0; n < 100; n += 1) client.send("note", n);
    hurry(t);
    assert.deepEqual(await client.call("notes"), Array.from({ length: 100 }, (_, n) => n));
    assert.deepEqual(lost, []);
    assert.ok(proxy.cuts > 5, `${proxy.cuts} cuts`);
    assert.deepEqual(await client.call("names"), ["ann"]);
  });
}

test("a call and a stream go on through a cut", async (t) => {
  const server = await startServer(t);
  const proxy = await startProxy(t, server.port);
  const client = await connect(proxy.url);
  atEnd(t, () => client.close());
  const answer = client.call("ask back", ["slow", 1]);
  const begun = later();
  const end = later();
  client.on("slow", () => {
    begun.resolve();
    return end.promise;
  });
  await begun.promise;
  const dropped = next(client, "onDrop");
  const resumed = next(client, "onResume");
  proxy.cut();
  await Promise.race([dropped, resumed]); // events wait for the handler
  end.resolve("done");
  assert.equal(await answer, "done");
  let items = 0;
  for await (const n of client.stream("count", 300)) {
    assert.equal(n, items);
    items += 1;
    if (n === 50) proxy.cut();
  }
  assert.equal(items, 300);
});
