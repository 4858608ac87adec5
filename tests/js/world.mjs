// A real server in a process of its own, and a proxy that cuts what passes.

import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const MODULE = new URL("../../src/hisock/web/static/hisock.js", import.meta.url);
const SERVER = fileURLToPath(new URL("server.py", import.meta.url));

// Node has no page that could tell that the network is back: this is it.
const page = new EventTarget();
globalThis.addEventListener = page.addEventListener.bind(page);
globalThis.removeEventListener = page.removeEventListener.bind(page);

const stacks = new WeakMap();

/** Have something done when the test ends, the newest first. */
export function atEnd(t, act) {
  if (!stacks.has(t)) {
    stacks.set(t, []);
    t.after(async () => {
      for (const each of stacks.get(t).reverse()) await each();
    });
  }
  stacks.get(t).push(act);
}

/** Tell that the network is back, again and again: nobody has to wait for a retry. */
export function hurry(t) {
  const timer = setInterval(() => page.dispatchEvent(new Event("online")), 2);
  atEnd(t, () => clearInterval(timer));
}

/** Start a server; it ends with the test, if there is one. */
export async function startServer(t, ...options) {
  const python = process.env.HISOCK_PYTHON ?? "python";
  const child = spawn(python, [SERVER, ...options], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(child, "exit");
  const stop = async (signal) => {
    if (signal) child.kill(signal);
    else child.stdin.end();
    await ended;
  };
  const isUp = () => child.exitCode === null && child.signalCode === null;
  if (t) atEnd(t, () => (isUp() ? stop("SIGKILL") : null));
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  return { port: Number(line), url: `ws://127.0.0.1:${line}`, stop };
}

/** Pass bytes to a port and back, until told to cut. */
export async function startProxy(t, port) {
  const pairs = new Set();
  const proxy = { target: port, cuts: 0, connections: 0, cutAfter: null, refuses: false };
  const server = net.createServer((near) => {
    if (proxy.refuses) return near.destroy();
    proxy.connections += 1;
    const far = net.connect(proxy.target, "127.0.0.1");
    const pair = { near, far };
    const end = () => {
      pairs.delete(pair);
      near.destroy();
      far.destroy();
    };
    pair.end = end;
    pairs.add(pair);
    const budget = proxy.cutAfter?.(proxy.connections) ?? null;
    let left = budget;
    const pass = (to, counts) => (data) => {
      if (proxy.isHole) return;
      if (left !== null && counts) {
        const part = data.subarray(0, left);
        left -= part.length;
        to.write(part);
        if (left) return;
        proxy.cuts += 1;
        // What was written is to arrive first: so the cut falls at that byte.
        to.end(end);
        return;
      }
      to.write(data);
    };
    near.on("data", pass(far, proxy.direction === "up"));
    far.on("data", pass(near, proxy.direction !== "up"));
    for (const side of [near, far]) side.on("error", end).on("close", end).setNoDelay();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  proxy.cut = () => {
    for (const pair of [...pairs]) pair.end();
  };
  atEnd(t, () => {
    proxy.cut();
    server.close();
  });
  proxy.url = `ws://127.0.0.1:${server.address().port}`;
  return proxy;
}

/** A promise, and what settles it. */
export function later() {
  const found = {};
  found.promise = new Promise((resolve) => (found.resolve = resolve));
  return found;
}

/** The next time that a client tells of an event: onDrop, onResume, ... */
export function next(client, event) {
  return new Promise((resolve) => client[event](resolve));
}
