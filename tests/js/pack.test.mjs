// MessagePack: round trips, and that nothing but an error comes of arbitrary bytes.

import assert from "node:assert/strict";
import { test } from "node:test";

import { HiSockError, pack, unpack } from "../../src/hisock/web/static/hisock.js";

/** Numbers that are the same in each run (mulberry32). */
function chance(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const hex = (text) => Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));

function* values(random, deep = 0) {
  const below = (n) => Math.floor(random() * n);
  const one = () => values(random, deep + 1).next().value;
  for (;;) {
    const kind = below(deep < 4 ? 10 : 7);
    if (kind === 0) yield [null, true, false][below(3)];
    else if (kind === 1) yield Math.round((random() - 0.5) * 2 ** below(54)) + 0; // never -0
    else if (kind === 2) yield ((-1n) ** BigInt(below(2))) * ((1n << 60n) + BigInt(below(2 ** 32)));
    else if (kind === 3) yield random() * 10 ** below(300) + 0.5;
    else if (kind === 4) yield "aé€😀\0".repeat(below(60));
    else if (kind === 5) yield new Uint8Array(below(300)).fill(below(256));
    else if (kind === 6) yield new Date(0 + Math.round((random() - 0.5) * 2 ** 45));
    else if (kind === 7) yield Array.from({ length: below(20) }, one);
    else if (kind === 8) yield Object.fromEntries(Array.from({ length: below(20) }, (_, n) => [`k${n}`, one()]));
    else yield new Map(Array.from({ length: 1 + below(5) }, (_, n) => [n, one()]));
  }
}

test("what was packed is unpacked the same", () => {
  const source = values(chance(1));
  for (let n = 0; n < 3000; n += 1) {
    const value = source.next().value;
    assert.deepEqual(unpack(pack(value)), value);
  }
});

test("integers have the shortest form there is", () => {
  const sizes = [[0, 1], [127, 1], [128, 2], [255, 2], [256, 3], [65535, 3], [65536, 5], [2 ** 32 - 1, 5],
    [2 ** 32, 9], [-32, 1], [-33, 2], [-128, 2], [-129, 3], [-32768, 3], [-32769, 5], [-(2 ** 31), 5],
    [-(2 ** 31) - 1, 9], [5n, 1], [300n, 3], [0.5, 9]];
  for (const [value, size] of sizes) assert.equal(pack(value).length, size, String(value));
});

test("all forms of MessagePack are read", () => {
  const forms = [
    ["ca3f000000", 0.5], ["c403010203", Uint8Array.of(1, 2, 3)], ["c5000101", Uint8Array.of(1)],
    ["c60000000101", Uint8Array.of(1)], ["d90161", "a"], ["da000161", "a"], ["db0000000161", "a"],
    ["dc000101", [1]], ["dd0000000101", [1]], ["de0001a16101", { a: 1 }], ["df00000001a16101", { a: 1 }],
    ["d6ff00000001", new Date(1000)], ["d7ff0000000400000001", new Date(2 ** 34 > 0 ? 1000 : 0)],
    ["d7ff7735940300000000", new Date(3 * 2 ** 32 * 1000 + 500)],
    ["c70cff00000000ffffffffffffffff", new Date(-1000)], ["cf0000000000000001", 1], ["d3ffffffffffffffff", -1],
    ["cfffffffffffffffff", 2n ** 64n - 1n], ["8101c0", new Map([[1, null]])],
  ];
  for (const [bytes, value] of forms) assert.deepEqual(unpack(hex(bytes)), value, bytes);
});

test("what is broken is refused before anything is set aside for it", () => {
  const wrong = ["", "c1", "d9", "a161".slice(0, 2), "dd7fffffff", "df7fffffff", "dbffffffff61", "c6ffffffff",
    "c7", "d40100", "d5ff0000", "d6ff0000", "d7ffffffffff00000000", "c70cff00000000ffff", "a1ff", "0000",
    "c70cff000000007fffffffffffffff", "91".repeat(5000) + "c0", "81".repeat(3000)];
  for (const bytes of wrong) {
    const data = bytes ? hex(bytes) : new Uint8Array();
    assert.throws(() => unpack(data), HiSockError, bytes.slice(0, 40));
  }
});

test("nothing is set aside for what is only claimed", () => {
  const size = 1024 * 1024;
  const data = new Uint8Array(size).fill(0xc0);
  const view = new DataView(data.buffer);
  // Arrays in arrays, each of which claims all that is left: 8 GB.
  for (let at = 0; at < 5000; at += 5) {
    data[at] = 0xdd;
    view.setUint32(at + 1, size - at - 5);
  }
  const before = process.resourceUsage().maxRSS;
  assert.throws(() => unpack(data), { code: "remote" });
  assert.ok(process.resourceUsage().maxRSS - before < 100 * 1024);
});

test("arbitrary and damaged bytes raise nothing but a protocol error", () => {
  const random = chance(2);
  const source = values(random);
  for (let n = 0; n < 6000; n += 1) {
    let data = Uint8Array.from({ length: Math.floor(random() * 40) }, () => random() * 256);
    if (n % 2) {
      data = pack(source.next().value);
      if (data.length) data[Math.floor(random() * data.length)] = random() * 256;
    }
    try {
      unpack(data);
    } catch (error) {
      assert.ok(error instanceof HiSockError && error.code === "remote", error.stack);
    }
  }
});

test("keys of Object.prototype are keys like any", () => {
  const value = unpack(pack(JSON.parse('{"__proto__": {"polluted": 1}, "constructor": 2, "toString": 3}')));
  assert.deepEqual(Object.keys(value), ["__proto__", "constructor", "toString"]);
  assert.equal({}.polluted, undefined);
  assert.equal(Object.getPrototypeOf(value), Object.prototype);
});

test("a getter may pack something itself", () => {
  const value = { before: "x", get inner() { return pack([1, 2, 3]); }, after: "y" };
  assert.deepEqual(unpack(pack(value)), { before: "x", inner: pack([1, 2, 3]), after: "y" });
});
