// The file itself: small, alone, and described.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

import * as hisock from "../../src/hisock/web/static/hisock.js";
import { MODULE } from "./world.mjs";

const source = readFileSync(MODULE, "utf8");
const types = readFileSync(new URL("hisock.d.ts", MODULE), "utf8");

test("it is smaller than 12 KiB, gzipped and not minified", () => {
  assert.ok(gzipSync(source, { level: 9 }).length < 12 * 1024);
});

test("it imports nothing", () => {
  assert.doesNotMatch(source, /^\s*import\b|\bimport\(|\brequire\(/m);
});

test("its types name all that it exports, and nothing else", () => {
  const values = types.matchAll(/^export (?:declare )?(?:function|class|const) (\w+)/gm);
  assert.deepEqual([...values].map(([, name]) => name).sort(), Object.keys(hisock).sort());
});

test("its types name all that a client has, and nothing else", async () => {
  class Socket {
    close() {}
    send(data) {
      const [kind, hello] = hisock.unpack(data);
      if (kind === 36) this.onmessage({ data: hisock.pack([37, { proto: 2, sid: "", name: hello.name }]) });
      else this.onclose({ code: 1000, reason: "" });
    }
    constructor() {
      queueMicrotask(() => this.onopen());
    }
  }
  const client = await hisock.connect("ws://there", { WebSocket: Socket });
  const has = Object.getOwnPropertyNames(Object.getPrototypeOf(client)).filter((name) => name !== "constructor");
  assert.deepEqual(Object.keys(client), []);
  const [body] = types.match(/^export interface Client \{[^]*?^\}/m);
  const named = [...body.matchAll(/^ {2}(?:readonly )?(\w+)[<(:]/gm)].map(([, name]) => name);
  assert.deepEqual([...new Set(named)].sort(), has.sort());
  await client.close();
});
