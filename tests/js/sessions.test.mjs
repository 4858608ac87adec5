// Sessions, proof and endings, against a real server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { connect } from "../../src/hisock/web/static/hisock.js";
import { atEnd, hurry, later, next, startProxy, startServer } from "./world.mjs";

test("nobody there is an error, not a wait", async (t) => {
  const server = await startServer(t);
  await server.stop();
  await assert.rejects(connect(server.url), { code: "server_not_running" });
});

test("a server that restarted is found, and what that costs is told first", async (t) => {
  const server = await startServer(t);
  const proxy = await startProxy(t, server.port);
  hurry(t);
  const client = await connect(proxy.url, { name: "ann" });
  atEnd(t, () => client.close());
  const log = [];
  const lost = next(client, "onSessionLost");
  const joined = later();
  client.on("joined", (name) => {
    log.push(name);
    if (log.length === 2) joined.resolve();
  });
  client.changeName("bob");
  await client.call("echo");
  const second = await startServer(t);
  proxy.target = second.port;
  const waiting = client.call("late");
  await server.stop("SIGKILL");
  client.send("note", 1);
  await assert.rejects(waiting, { code: "session_lost" });
  const { reason, missed, unacked } = await lost;
  assert.deepEqual([reason, missed], ["server_restarted", null]);
  assert.deepEqual(unacked.at(-1), { command: "note", content: 1 });
  await joined.promise;
  assert.deepEqual(log, ["ann", "bob"]);
  assert.deepEqual(await client.call("notes"), []);
});

test("a session that is over for the server is lost", async (t) => {
  const server = await startServer(t, "--window", "0.01");
  const proxy = await startProxy(t, server.port);
  const client = await connect(proxy.url);
  atEnd(t, () => client.close());
  const lost = next(client, "onSessionLost");
  const dropped = next(client, "onDrop");
  proxy.refuses = true;
  proxy.cut();
  await dropped;
  const other = await connect(server.url, { name: "other" });
  while ((await other.call("names")).length > 1);
  await other.close();
  proxy.refuses = false;
  hurry(t);
  assert.equal((await lost).reason, "expired");
  assert.equal(await client.call("echo", 1), 1);
});

test("who proves who it is comes in, under the name that the server gives it", async (t) => {
  const server = await startServer(t, "--auth");
  for (const token of [undefined, "wrong"]) {
    await assert.rejects(connect(server.url, { token }), { code: "unauthorized" });
  }
  const proxy = await startProxy(t, server.port);
  let asked = 0;
  const token = async () => {
    asked += 1;
    return "user 1";
  };
  const client = await connect(proxy.url, { token, name: "me" });
  atEnd(t, () => client.close());
  assert.equal(client.name, "user 1!");
  const refused = next(client, "onError");
  client.changeName("admin");
  assert.equal((await refused).code, "rename_refused");
  assert.equal(client.name, "user 1!");
  const resumed = next(client, "onResume");
  proxy.cut();
  await resumed;
  assert.equal(asked, 2);
  assert.equal(await client.call("echo", 1), 1);
});

test("a name that is taken is refused, with the code that Python has", async (t) => {
  const server = await startServer(t, "--reject");
  const client = await connect(server.url, { name: "ann" });
  atEnd(t, () => client.close());
  await assert.rejects(connect(server.url, { name: "ann" }), { code: "name_taken" });
});

test("a kick ends the client, after what came before it", async (t) => {
  const server = await startServer(t);
  const client = await connect(server.url);
  const log = [];
  const ended = later();
  client.on("back", (n) => log.push(n));
  client.on("force_disconnect", (error) => {
    log.push(error.cause.code);
    ended.resolve(error);
  });
  client.send("back", 1);
  client.send("kick");
  const call = client.call("echo");
  await assert.rejects(call, { code: "session_lost" });
  const error = await ended.promise;
  assert.deepEqual([log, error.code, error.cause.message], [[1, "kicked"], "disconnected", "out"]);
  assert.throws(() => client.send("note"), { code: "disconnected" });
  await assert.rejects(client.recv("note"), { code: "disconnected" });
  assert.equal(client.isConnected, false);
  await client.close();
});

test("a goodbye that asks for another try is followed by one", async (t) => {
  const server = await startServer(t);
  const client = await connect(server.url);
  atEnd(t, () => client.close());
  hurry(t);
  const dropped = next(client, "onDrop");
  client.send("come back");
  assert.equal(await dropped, "later");
  assert.equal(await client.call("echo", 1), 1);
});

test("close() says goodbye at once, and what was sent before it arrives", async (t) => {
  const server = await startServer(t);
  const other = await connect(server.url, { name: "other" });
  atEnd(t, () => other.close());
  const client = await connect(server.url, { name: "ann" });
  const lost = [];
  client.onSessionLost((error) => lost.push(error));
  const left = later();
  other.on("client_disconnect", ({ name }) => left.resolve(name));
  for (let n = 0; n < 1000; n += 1) client.send("note", n);
  const call = client.call("late");
  const received = client.recv("nothing");
  const closing = client.close();
  assert.equal(client.close(), closing);
  await assert.rejects(call, { code: "session_lost" });
  await assert.rejects(received, { code: "disconnected" });
  await closing;
  assert.deepEqual(lost.flatMap(({ unacked }) => unacked).filter(({ command }) => command === "note"), []);
  assert.equal(await left.promise, "ann");
  assert.equal((await other.call("notes")).length, 1000);
  assert.throws(() => client.send("note"), { code: "disconnected" });
});

test("close() while the link is cut reports what stays", async (t) => {
  const server = await startServer(t);
  const proxy = await startProxy(t, server.port);
  const client = await connect(proxy.url);
  const dropped = next(client, "onDrop");
  const lost = next(client, "onSessionLost");
  proxy.refuses = true;
  proxy.cut();
  await dropped;
  client.send("note", 1);
  await client.close();
  const { reason, unacked } = await lost;
  assert.deepEqual([reason, unacked], ["closed", [{ command: "note", content: 1 }]]);
});

test("a link that is dead without saying so is cut and replaced", async (t) => {
  const server = await startServer(t);
  const proxy = await startProxy(t, server.port);
  const client = await connect(proxy.url, { deadAfter: 0.2 });
  atEnd(t, () => client.close());
  hurry(t);
  const resumed = next(client, "onResume");
  proxy.isHole = true;
  client.send("note", 1);
  await next(client, "onDrop");
  proxy.isHole = false;
  await resumed;
  assert.deepEqual(await client.call("notes"), [1]);
});

test("much content is held back, not lost, and a send tells when there is room", async (t) => {
  const server = await startServer(t);
  const client = await connect(server.url);
  atEnd(t, () => client.close());
  const part = new Uint8Array(2 ** 18);
  for (let n = 0; n < 40; n += 1) await client.send("note", part.fill(n));
  const notes = await client.call("notes");
  assert.deepEqual(notes.map((note) => note[0]), Array.from({ length: 40 }, (_, n) => n));
});
