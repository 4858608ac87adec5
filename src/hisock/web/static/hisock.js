/** @module The client of hisock; `hisock.d.ts` describes it. */

const BOUND = 4 * 1024 * 1024; // bytes that may wait, unwritten and unacknowledged
const BUFFERED = 256 * 1024; // bytes in the socket, dropped no more
const LARGEST = 16 * 1024 * 1024;
const INBOX = 1024;
const INBOX_SIZE = 1024 * 1024;
const OPEN_CALLS = 1024;
const WINDOW = 64; // items that the producer of a stream may be ahead of its reader
const DEEPEST = 512;
const ACK_FRAMES = 64;
const ACK_SIZE = 64 * 1024;
const ACK_DELAY = 200;
const PATIENCE = 20_000;
const FIRST_RETRY = 250;

/** Goodbyes by their code; from 16 on the client may come back. */
const BYES = (
  "closed kicked replaced unauthorized name_taken protocol too_large version evicted " +
  "- - - - - - - going_away busy slow_consumer overflow silent rate"
).split(" ");
const CLOSE_CODES = { 1000: 0, 1002: 5, 1009: 6 };

const EVENTS = ["*", "client_connect", "client_disconnect", "force_disconnect"];
const WHEN_SLOW = ["wait", "disconnect", "raise", "drop_oldest", "drop_newest", "latest"];

/** Every error of hisock; `code` is the same word as in Python. */
export class HiSockError extends Error {
  constructor(message, code = "error", more = {}) {
    super(message);
    this.name = new.target.name;
    Object.assign(this, { code, ...more });
  }
}

/** Thrown in a handler, it refuses a call. */
export class CommandError extends HiSockError {
  constructor(code, message = "", data = null) {
    super(message || code, code, { data });
  }
}

/** A call or stream failed on the server. */
export class RemoteError extends CommandError {}

/** Nobody knows whether `unacked` has arrived. */
export class SessionLost extends HiSockError {
  constructor(message, reason = "closed", unacked = [], missed = null) {
    super(message, "session_lost", { reason, unacked, missed });
  }
}

const broken = (text, code = "remote") =>
  new HiSockError(`the server broke the protocol: ${text}`, code, { isTheirs: true });
const invalid = (text, code = "invalid_option") => new HiSockError(text, code);
const isText = (value) => typeof value === "string";
const isCount = (value) => Number.isInteger(value) && value >= 0;
const isThenable = (value) => typeof value?.then === "function";

// --- MessagePack

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** From 0xca on: a DataView's word, bytes. */
const NUMBERS = [
  ["Float32", 4], ["Float64", 8], ["Uint8", 1], ["Uint16", 2], ["Uint32", 4],
  ["BigUint64", 8], ["Int8", 1], ["Int16", 2], ["Int32", 4], ["BigInt64", 8],
];

export function pack(value) {
  let bytes = new Uint8Array(256);
  let view = new DataView(bytes.buffer);
  let size = 0;

  const refuse = (text) => new HiSockError(`cannot send ${text}`, "not_sendable");
  const room = (more) => {
    size += more;
    if (size > bytes.length) {
      const grown = new Uint8Array(2 * size);
      grown.set(bytes);
      bytes = grown;
      view = new DataView(bytes.buffer);
    }
    return size - more;
  };
  const byte = (value) => {
    const at = room(1);
    bytes[at] = value;
  };
  const number = (tag, value, kind = tag) => {
    const [method, width] = NUMBERS[kind - 0xca];
    byte(tag);
    const at = room(width);
    view[`set${method}`](at, width === 8 && kind > 0xcb ? BigInt(value) : value);
  };
  const head = (count, short, most, tag8, tag16) => {
    if (count < most) byte(short + count);
    else if (tag8 && count < 0x100) number(tag8, count, 0xcc);
    else if (count < 0x10000) number(tag16, count, 0xcd);
    else number(tag16 + 1, count, 0xce);
  };
  const raw = (data, ...tags) => {
    head(data.length, ...tags);
    const at = room(data.length);
    bytes.set(data, at);
  };
  const integer = (n) => {
    if (n >= -0x20 && n < 0x80) return byte(Number(n));
    const bits = [8, 16, 32].findIndex((bits) => (n < 0 ? n >= -(2 ** (bits - 1)) : n < 2 ** bits));
    return number((n < 0 ? 0xd0 : 0xcc) + (bits < 0 ? 3 : bits), bits < 0 ? n : Number(n));
  };
  const text = (value) => {
    if (value.isWellFormed?.() === false) throw refuse("text that is not Unicode");
    raw(encoder.encode(value), 0xa0, 32, 0xd9, 0xda);
  };
  const binary = (data) => raw(data, 0, 0, 0xc4, 0xc5);
  const date = (time) => {
    if (Number.isNaN(time)) throw refuse("an invalid Date");
    const seconds = Math.floor(time / 1000);
    number(0xc7, 12, 0xcc);
    number(0xff, (time - seconds * 1000) * 1e6, 0xce);
    const at = room(8);
    view.setBigInt64(at, BigInt(seconds));
  };
  const list = (values, deep, short = 0x90, tag = 0xdc, count = values.length) => {
    head(count, short, 16, 0, tag);
    for (const each of values) write(each, deep);
  };
  const object = (value, deep) => {
    const map = (entries) => list(entries.flat(), deep, 0x80, 0xde, entries.length);
    if (deep > DEEPEST) throw refuse("what is too deep, or contains itself");
    if (Array.isArray(value)) list(value, deep);
    else if (value instanceof ArrayBuffer) binary(new Uint8Array(value));
    else if (value instanceof Uint8Array) binary(value);
    else if (value instanceof Date) date(value.getTime());
    else if (value instanceof Map) map([...value]);
    else if (isThenable(value)) throw refuse("a Promise; await it first");
    else if (value[Symbol.iterator]) list([...value], deep);
    else map(Object.entries(value).filter(([, each]) => each !== undefined));
  };
  const write = (value, deep) => {
    const kind = typeof value;
    if (isText(value)) text(value);
    else if (value === null || kind === "undefined") byte(0xc0);
    else if (kind === "boolean") byte(value ? 0xc3 : 0xc2);
    else if (kind === "object") object(value, deep + 1);
    else if (Number.isSafeInteger(value)) integer(value);
    else if (kind === "number") number(0xcb, value);
    else if (kind !== "bigint") throw refuse(`a ${kind}`);
    else if (value >= -(2n ** 63n) && value < 2n ** 64n) integer(value);
    else throw refuse("more than 64 bits");
  };

  write(value, 0);
  return bytes.slice(0, size);
}

export function unpack(data) {
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let place = 0;

  const need = (count) => {
    if (count > bytes.length - place) throw RangeError();
    return count;
  };
  const take = (count) => (place += need(count)) - count;
  const number = (tag) => {
    const [method, width] = NUMBERS[tag - 0xca];
    const value = view[`get${method}`](take(width));
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  };
  const list = (count, deep, item = () => read(deep + 1)) => {
    const values = []; // a count is only a claim
    for (need(count); count; count -= 1) values.push(item());
    return values;
  };
  const map = (count, deep) => {
    const entries = list(count, deep, () => list(2, deep));
    if (!entries.every(([key]) => isText(key))) return new Map(entries);
    return Object.fromEntries(entries); // "__proto__" is a key like any
  };
  const extension = (count) => {
    const isTime = number(0xd0) === -1 && [4, 8, 12].includes(count);
    let nanoseconds = count > 4 ? number(0xce) : 0;
    let seconds = isTime ? Number(number(count > 8 ? 0xd3 : 0xce)) : NaN;
    if (count === 8) {
      seconds += (nanoseconds & 3) * 2 ** 32;
      nanoseconds >>>= 2;
    }
    const date = new Date(seconds * 1000 + Math.floor(nanoseconds / 1e6));
    if (nanoseconds >= 1e9) throw RangeError();
    date.toISOString(); // throws if it cannot be
    return date;
  };
  const text = (count) => decoder.decode(bytes.subarray(take(count), place));
  const read = (deep) => {
    const tag = number(0xcc);
    if (deep > 2 * DEEPEST || tag === 0xc1) throw RangeError();
    if (tag < 0x80) return tag;
    if (tag < 0x90) return map(tag & 15, deep);
    if (tag < 0xa0) return list(tag & 15, deep);
    if (tag < 0xc0) return text(tag & 31);
    if (tag === 0xc0) return null;
    if (tag < 0xc4) return tag === 0xc3;
    if (tag < 0xc7) return bytes.slice(take(number(tag + 8)), place);
    if (tag < 0xca) return extension(number(tag + 5));
    if (tag < 0xd4) return number(tag);
    if (tag < 0xd9) return extension(1 << (tag - 0xd4));
    if (tag < 0xdc) return text(number(tag - 13));
    if (tag < 0xde) return list(number(tag - 15), deep);
    return tag < 0xe0 ? map(number(tag - 17), deep) : tag - 0x100;
  };

  try {
    const value = read(0);
    if (place === bytes.length) return value;
  } catch {}
  throw broken("no MessagePack");
}

// --- frames

const FITS = {
  a: () => true,
  s: isText,
  z: Number.isInteger,
  n: isCount,
  i: (value) => isCount(value) && value > 0,
  o: (value) => value?.constructor === Object,
  l: Array.isArray,
};
/** What servers send; behind "?" it may be missing, capitals may be null. */
const FRAMES = {
  1: "Sa?N", 2: "isa?nNN", 3: "ia", 4: "iss?a", 5: "ia", 6: "i", 7: "ii", 8: "i", 9: "S",
  10: "S", 12: "o", 13: "o", 14: "i?S", 15: "ll", 32: "n", 33: "z", 34: "z", 35: "?zsN", 37: "o",
};

function readFrame(data) {
  if (isText(data)) throw broken("wrong frame");
  if (data.byteLength > LARGEST) throw broken("too large", "too_large");
  const frame = unpack(data);
  const shape = FITS.l(frame) && isCount(frame[0]) && FRAMES[frame[0]];
  if (!shape) throw broken("wrong frame");
  const needed = shape.split("?")[0].length;
  [...shape.replace("?", "")].forEach((element, index) => {
    const value = frame[index + 1];
    const isNull = value === null && element < "a";
    const fits = value === undefined ? index >= needed : FITS[element.toLowerCase()](value);
    if (!isNull && !fits) throw broken("wrong frame");
  });
  return frame;
}

const clock = () => Math.floor(performance.now());

function defer() {
  const deferred = {};
  deferred.promise = new Promise((resolve, reject) => Object.assign(deferred, { resolve, reject }));
  deferred.promise.catch(() => {}); // nobody has to wait for it
  return deferred;
}

async function waitFor(promise, seconds, what, giveUp) {
  if (seconds === null) return promise;
  const late = defer();
  const timer = setTimeout(() => {
    giveUp?.();
    late.reject(new HiSockError(`${what} did not come within ${seconds} s`, "request_timeout"));
  }, check(seconds) * 1000);
  return Promise.race([promise, late.promise]).finally(() => clearTimeout(timer));
}

function check(seconds) {
  if (seconds >= 0 && seconds < 1e6) return seconds;
  throw invalid("a time is 0 or more seconds");
}

function checkName(name) {
  const isPlain = isText(name) && !/[\0-\x1f\x7f-\x9f]/.test(name);
  if (name === null || (isPlain && encoder.encode(name).length < 256)) return name;
  throw invalid("a name is text, or null", "invalid_name");
}

function checkCommand(command) {
  if (isText(command) && command && !/\$.+\$/.test(command)) return command;
  throw invalid("a command is text, not empty or like $this$", "reserved_command");
}

function addressOf(url) {
  try {
    const href = new URL(url, globalThis.location?.href).href.replace(/^http/, "ws");
    if (/^wss?:/.test(href)) return href.split("#")[0];
  } catch {}
  throw invalid("an address is like ws://host:port", "invalid_address");
}

function draw(bytes) {
  const drawn = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(drawn, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function refusal(code, text) {
  const word = BYES[code] ?? "refused";
  return new HiSockError(text || `the server says: ${word}`, word);
}

const remote = (command, [, , code, text, data]) =>
  new RemoteError(code, text || `the handler of ${command} failed`, data);

/** Connect; rejects if that is refused, or nobody answers. */
export async function connect(url = "/", options = {}) {
  const first = defer();
  new Client(addressOf(url), options, first);
  return first.promise;
}

class Client {
  #url;
  #options;
  #who;
  #renames = { name: 0, group: 0 };
  #handlers = new Map();
  #events = new Map();

  // The link. `#first` is what connect() awaits.
  #first;
  #socket = null;
  #isOpen = false;
  #ended = null;
  #closing = null;
  #hungUp = null;
  #backoff = FIRST_RETRY;
  #timers = {};
  #began = clock();
  #heard = 0;
  #pinged = Infinity;
  #offset = 0;

  // The session.
  #session = null;
  #lostFor = "";
  #received = 0;
  #told = 0;
  #owed = 0;

  // What is sent: `#unacked` has numbers, from `#acked` + 1 on; `#waiting` has none.
  #waiting = [];
  #waitingSize = 0;
  #unacked = [];
  #unackedSize = 0;
  #acked = 0;
  #room = null;

  // Calls and streams: ours, and the server's.
  #asked = new Map();
  #nextId = 1;
  #answering = new Map();
  #lastId = 0;

  // What came: `#queue` is for handlers, `#inbox` for recv().
  #queue = [];
  #queueSize = 0;
  #place = 0;
  #isPumping = true;
  #inbox = new Set();
  #inboxSize = 0;
  #receivers = new Set();
  #hasWarned = false;

  constructor(url, options, first) {
    const { WebSocket = globalThis.WebSocket, name = null, group = null } = options;
    const { token = null, resumeWindow = 30, deadAfter = 20 } = options;
    if (!WebSocket) throw invalid("pass a { WebSocket }");
    this.#url = url;
    this.#options = { WebSocket, token, window: check(resumeWindow), deadAfter: check(deadAfter) };
    this.#who = { name: checkName(name), group: checkName(group) };
    this.#first = first;
    globalThis.addEventListener?.("online", this.#online);
    this.#try();
  }

  // --- what programs see

  /** What this client is called. */
  get name() {
    return this.#who.name;
  }

  /** The group it is in. */
  get group() {
    return this.#who.group;
  }

  /** Whether there is a link. */
  get isConnected() {
    return this.#isOpen;
  }

  /** Handle a command: `handler(content, context)`. */
  on(command, handler) {
    const isEvent = EVENTS.includes(command);
    const table = isEvent ? this.#events : this.#handlers;
    const remove = this.#register(table, isEvent ? command : checkCommand(command), handler);
    if (isEvent && command.startsWith("client_") && !this.#ended) this.#post([11, true]);
    this.#handOver();
    return remove;
  }

  /** Called with a reason when the link is cut. */
  onDrop(handler) {
    return this.#onEvent("drop", handler);
  }

  /** Called when it is back. */
  onResume(handler) {
    return this.#onEvent("resume", handler);
  }

  /** Called with a `SessionLost`, before all else. */
  onSessionLost(handler) {
    return this.#onEvent("lost", handler);
  }

  /** Called with a count of dropped messages. */
  onGap(handler) {
    return this.#onEvent("gap", handler);
  }

  /** Called with what handlers threw, and refused names. */
  onError(handler) {
    return this.#onEvent("error", handler);
  }

  /** Send a message; resolves when there is room for more. */
  send(command, content = new Uint8Array(), { key, ttl, whenSlow } = {}) {
    const policy = whenSlow ?? (key === undefined ? "wait" : "latest");
    const isWrong = key !== undefined && policy !== "latest";
    if (isWrong || !WHEN_SLOW.includes(policy)) throw invalid(`whenSlow cannot be ${policy}`);
    const canDrop = WHEN_SLOW.indexOf(policy) > 2;
    const frame = [1, checkCommand(command), content];
    if (ttl !== undefined) frame.push(clock() + Math.ceil(check(ttl) * 1000));
    const size = this.#waitingSize + this.#unackedSize;
    if (!canDrop && size >= (policy === "raise" ? BOUND : 2 * BOUND)) {
      throw new HiSockError(`${size} bytes wait already`, "would_block");
    }
    this.#post(frame, { policy, command, key });
    return canDrop ? Promise.resolve() : this.#roomForMore();
  }

  /** Call the server's handler. */
  call(...call) {
    return this.#call(null, ...call);
  }

  /** Begin a stream of the server's, for `for await`. */
  stream(...call) {
    return this.#stream(null, ...call);
  }

  /** Wait for the next message of a command without a handler. */
  async recv(command, options) {
    return (await this.#receive(checkCommand(command), options)).content;
  }

  /** Wait for the next message without a handler. */
  async recvAny(options) {
    const { command, content } = await this.#receive(undefined, options);
    return { command, content };
  }

  /** Be called something else, or nothing (`null`). */
  changeName(name) {
    this.#rename("name", 9, name);
  }

  /** Be in another group, or in none (`null`). */
  changeGroup(group) {
    this.#rename("group", 10, group);
  }

  /** Say goodbye; resolves when that is heard. */
  close() {
    return (this.#closing ??= this.#close());
  }

  // --- the link

  #after(delay, timer, act) {
    this.#timers[timer] ??= setTimeout(() => {
      this.#timers[timer] = undefined;
      act();
    }, delay);
  }

  #cancel(timer) {
    clearTimeout(this.#timers[timer]);
    this.#timers[timer] = undefined;
  }

  async #try() {
    const { token, WebSocket } = this.#options;
    const place = (this.#socket = { close() {} });
    let socket, proof;
    try {
      proof = typeof token === "function" ? await token() : token;
      if (this.#socket !== place) return; // closed meanwhile
      if (proof !== null && !isText(proof)) throw invalid("a token is text, or null");
      socket = this.#socket = new WebSocket(this.#url);
    } catch (error) {
      if (this.#first) this.#end(error);
      else if (this.#socket === place) this.#drop(error.message);
      return;
    }
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#hello(socket);
    socket.onmessage = ({ data }) => this.#feed(socket, data, proof);
    socket.onclose = ({ code, reason }) => this.#lost(socket, code, reason);
    socket.onerror = () => this.#lost(socket);
    this.#heard = clock();
    this.#pinged = Infinity;
    this.#watch();
  }

  #online = () => {
    if (this.#timers.retry === undefined) return;
    this.#cancel("retry");
    this.#try();
  };

  #hello(socket) {
    if (socket !== this.#socket) return;
    const { window } = this.#options;
    if (this.#first) this.#first.hasOpened = true;
    if (!this.#session && window) this.#begin();
    const session = this.#session && { ...this.#session, got: this.#received, window, beats: true };
    this.#tell([36, { ...this.#who, proto: 2, now: clock(), ...session }]);
  }

  #begin() {
    this.#session = { sid: draw(16), token: draw(32), next: draw(32), epoch: null };
    this.#received = this.#told = this.#owed = 0;
  }

  #feed(socket, data, proof) {
    if (socket !== this.#socket) return;
    this.#heard = clock();
    this.#pinged = Infinity;
    try {
      const frame = readFrame(data);
      if (this.#isOpen) this.#take(frame, data.byteLength);
      else if (!this.#hungUp) this.#greet(frame, proof);
      else if (frame[0] === 32) this.#acknowledged(frame[1]);
    } catch (error) {
      if (!error.isTheirs) throw error;
      if (this.#hungUp) return;
      const code = error.code === "too_large" ? 6 : 5;
      this.#hangUp(4000 + code, code, error.message);
      this.#end(error);
    }
  }

  #greet([kind, fields, text, retry], proof) {
    if (kind === 35) return this.#goodbye(fields, text, retry);
    if (kind !== 37) throw broken("wrong frame");
    if (fields.proto !== 2) throw broken("wrong version");
    return fields.auth === true ? this.#tell([38, proof]) : this.#welcome(fields);
  }

  #welcome({ sid, epoch, got = 0, resumed, reason, missed, now = 0, name = null, group = null }) {
    const session = (this.#session = sid ? this.#session : null);
    // Without an epoch we have heard nothing of it.
    const goesOn = resumed === true && Boolean(session?.epoch);
    const texts = [sid, epoch, reason, name, group];
    const fits = [got, now].every((each) => isCount(each ?? 0)) && texts.every((each) => isText(each ?? ""));
    const isSent = fits && got >= this.#acked && got <= this.#acked + this.#unacked.length;
    if (!fits || (sid && sid !== session?.sid) || (goesOn && !isSent)) throw broken("wrong welcome");
    this.#offset = clock() - now;
    this.#backoff = FIRST_RETRY;
    if (goesOn) this.#acknowledged(got);
    else {
      this.#received = this.#owed = 0;
      this.#who = { name, group };
      if (!this.#first) this.#startOver(this.#lostFor || reason || "unknown", missed ?? null);
    }
    this.#lostFor = "";
    this.#isOpen = true;
    if (session) {
      session.epoch = epoch;
      session.token = session.next;
      session.next = draw(32);
      this.#acknowledge(); // confirms the welcome: only now the token of before is void
    }
    for (const bytes of this.#unacked) this.#socket.send(bytes);
    this.#flush();
    this.#cancel("watch");
    this.#watch();
    if (goesOn) this.#emit("resume");
    if (!this.#first) return;
    this.#first.resolve(this);
    this.#first = null;
    // Who awaits that goes on first.
    setTimeout(() => {
      this.#isPumping = false;
      this.#pump();
    });
  }

  #startOver(reason, missed) {
    this.#failCalls(this.#lose(reason, missed));
    this.#lookForRoom();
    this.#renames = { name: 0, group: 0 };
    if (EVENTS.slice(1, 3).some((event) => this.#events.has(event))) this.#post([11, true]);
  }

  #lose(reason, missed) {
    const frames = [...this.#unacked, ...this.#waiting.map(({ bytes }) => bytes)];
    this.#unacked = [];
    this.#waiting = [];
    this.#acked = this.#unackedSize = this.#waitingSize = 0;
    const unacked = frames
      .map((bytes) => (bytes.length ? unpack(bytes) : [14]))
      .filter(([kind]) => kind <= 2)
      .map(([kind, ...fields]) => ({ command: fields[kind - 1], content: fields[kind] }));
    const error = new SessionLost(`the session is over: ${reason}`, reason, unacked, missed);
    if (missed !== undefined || unacked.length) this.#emit("lost", error);
    return error;
  }

  #goodbye(code = 0, text = "", retry = null) {
    const error = refusal(code, text);
    if (retry === null || this.#first) {
      this.#hangUp(1000, 0, "");
      return this.#end(error);
    }
    if (code === 3 && this.#session && !this.#isOpen) {
      this.#lostFor ||= "unauthorized";
      this.#begin(); // what was sent is reported with the next welcome
    }
    return this.#drop(error.message, retry);
  }

  #lost(socket, code, reason) {
    if (socket !== this.#socket) return;
    const bye = CLOSE_CODES[code] ?? code - 4000;
    if (this.#hungUp) this.#hungUp.resolve();
    else if (bye >= 0 && bye < 16) this.#goodbye(bye, reason);
    else this.#drop(reason || "the connection is cut");
  }

  #drop(reason, least = null) {
    const wasOpen = this.#isOpen;
    this.#detach();
    const isLate = clock() - this.#began > PATIENCE;
    if (this.#first && (isLate || !this.#first.hasOpened)) {
      return this.#end(new HiSockError(`nobody answers at ${this.#url}`, "server_not_running"));
    }
    if (wasOpen && !this.#session) this.#failCalls(new SessionLost(reason));
    if (wasOpen) this.#emit("drop", reason);
    const chance = Math.random();
    const delay = least === null ? chance * this.#backoff : least * (1 + chance);
    this.#backoff = Math.min(20_000, 2 * this.#backoff);
    this.#after(delay, "retry", () => this.#try());
  }

  #detach() {
    const socket = this.#socket;
    this.#socket = null; // first: close() may tell of an error at once
    this.#isOpen = false;
    socket?.close();
    for (const timer in this.#timers) this.#cancel(timer);
  }

  #hangUp(closeCode, code, text) {
    if (this.#isOpen && this.#session) this.#acknowledge();
    this.#tell([35, code, text, null]);
    if (closeCode) this.#socket.close(closeCode, text);
  }

  #end(cause) {
    this.#stop(cause);
    this.#detach();
    this.#lose("closed");
    this.#emit("force_disconnect", this.#ended);
    this.#first?.reject(cause);
    this.#first = null;
  }

  #stop(cause) {
    this.#ended = new HiSockError(`disconnected: ${cause.message}`, "disconnected", { cause });
    globalThis.removeEventListener?.("online", this.#online);
    this.#failCalls(new SessionLost(`no answer came: ${cause.message}`));
    for (const receiver of this.#receivers) receiver.reject(this.#ended);
    this.#room?.reject(this.#ended);
  }

  async #close() {
    if (this.#ended) return;
    this.#queue = [];
    this.#place = this.#queueSize = 0;
    this.#stop(refusal(0, "closed by this program"));
    const socket = this.#socket;
    if (this.#isOpen) {
      this.#flush(true);
      this.#hungUp = defer();
      this.#hangUp(0, 0, "");
      this.#isOpen = false;
      this.#cancel("watch");
      this.#after(1000, "linger", this.#hungUp.resolve);
      await this.#hungUp.promise;
    }
    if (socket?.readyState < 2) socket.close(1000); // else its session would live on
    this.#detach();
    this.#lose("closed");
  }

  /** Ping, and give up, after half of `deadAfter`. */
  #watch() {
    const half = (this.#isOpen ? this.#options.deadAfter * 1000 : PATIENCE) / 2;
    if (!half) return;
    const quiet = clock() - this.#heard;
    // Timers sleep: only an unanswered ping proves silence.
    const isGone = this.#isOpen ? clock() - this.#pinged >= half : quiet >= PATIENCE;
    if (isGone) return this.#drop("nothing came for too long");
    if (this.#isOpen && quiet >= half && this.#pinged === Infinity) {
      this.#pinged = clock();
      this.#tell([33, 0]);
    }
    this.#after(quiet < half ? half - quiet : half, "watch", () => this.#watch());
  }

  // --- what goes

  #tell(frame) {
    this.#socket.send(pack(frame));
  }

  #post(frame, { policy, command, key } = {}) {
    if (this.#ended) throw this.#ended;
    const bytes = pack(frame);
    if (bytes.length > LARGEST) {
      throw invalid(`a message has at most ${LARGEST} bytes`, "message_too_large");
    }
    const waiting = this.#waiting;
    if (policy === "drop_newest" && this.#isFull) return this.#putGap(waiting.length);
    if (policy === "latest") {
      const isOld = (each) => each.policy === policy && each.command === command && each.key === key;
      this.#takeOut(waiting.findIndex(isOld));
    }
    const entry = { bytes, policy, command, key };
    waiting.push(entry);
    this.#waitingSize += bytes.length;
    this.#flush();
    while (policy === "drop_oldest" && this.#isFull) {
      const at = waiting.findIndex((each) => each.policy === policy);
      if (at < 0 || waiting[at] === entry) break;
      this.#takeOut(at);
      this.#putGap(at);
    }
  }

  get #isFull() {
    return this.#waitingSize + this.#unackedSize >= BOUND;
  }

  #takeOut(at) {
    if (at >= 0) this.#waitingSize -= this.#waiting.splice(at, 1)[0].bytes.length;
  }

  #putGap(at) {
    const before = this.#waiting[at - 1];
    if (before?.gap) before.gap += 1;
    else this.#waiting.splice(at, 0, { gap: 1, bytes: [] });
  }

  #flush(whole = false) {
    if (!this.#isOpen) return;
    const waiting = this.#waiting;
    let count = 0;
    while (count < waiting.length) {
      const isBusy = this.#socket.bufferedAmount >= BUFFERED || this.#unackedSize >= BOUND;
      if (isBusy && !whole) break;
      const { gap, bytes: packed } = waiting[count++];
      const bytes = gap ? pack([14, gap]) : packed;
      this.#waitingSize -= packed.length;
      if (this.#session) {
        this.#unacked.push(bytes);
        this.#unackedSize += bytes.length;
      }
      this.#socket.send(bytes);
    }
    waiting.splice(0, count);
    this.#lookForRoom();
    if (waiting.length || this.#room) this.#after(10, "poll", () => this.#flush());
  }

  #roomForMore() {
    if (this.#isFull) this.#room ??= defer();
    return this.#room?.promise ?? Promise.resolve();
  }

  #lookForRoom() {
    if (this.#isFull) return;
    this.#room?.resolve();
    this.#room = null;
  }

  #acknowledged(number) {
    const count = number - this.#acked;
    if (count <= 0) return;
    if (count > this.#unacked.length) throw broken("wrong acknowledgement");
    for (const bytes of this.#unacked.splice(0, count)) this.#unackedSize -= bytes.length;
    this.#acked = number;
    this.#flush();
  }

  #rename(key, kind, name) {
    checkName(name);
    this.#post([kind, name]);
    this.#who[key] = name;
    this.#renames[key] += 1;
  }

  // --- what comes

  #take(frame, size) {
    const [kind, first, second, third] = frame;
    if (kind < 32 && this.#session) this.#owe(size);
    switch (kind) {
      case 1:
        return this.#message({ command: first, content: second, deadline: this.#deadline(third), size });
      case 2:
        return this.#request(frame, size);
      case 3: case 4: case 5: case 6:
        return this.#asked.get(first)?.take(frame);
      case 7: case 8:
        return this.#steer(this.#answering.get(first), second);
      case 9: case 10:
        return this.#enqueue(() => this.#holds(kind === 9 ? "name" : "group", first));
      case 12:
        return this.#emit("client_connect", first);
      case 13:
        return this.#emit("client_disconnect", first);
      case 14:
        return this.#emit("gap", { count: first, group: second ?? null });
      case 32:
        return this.#acknowledged(first);
      case 33:
        return this.#tell([34, first]);
      case 35:
        return this.#goodbye(first, second, third);
      case 37:
        throw broken("wrong welcome");
    }
  }

  #owe(size) {
    this.#received += 1;
    this.#owed += size;
    this.#acknowledgeIf(this.#received - this.#told >= ACK_FRAMES || this.#owed >= ACK_SIZE);
  }

  /** Not while handlers are behind: so the server learns of it. */
  #acknowledgeIf(isDue) {
    if (isDue && this.#queueSize < INBOX_SIZE) this.#acknowledge();
    else this.#after(ACK_DELAY, "ack", () => this.#acknowledgeIf(true));
  }

  #acknowledge() {
    this.#cancel("ack");
    this.#told = this.#received;
    this.#owed = 0;
    this.#tell([32, this.#received]);
  }

  #holds(key, holds) {
    this.#renames[key] -= 1;
    if (this.#renames[key] > 0 || this.#who[key] === holds) return;
    this.#who[key] = holds;
    this.#report(new HiSockError(`the ${key} stays ${holds}`, `re${key}_refused`));
  }

  #deadline(ttl) {
    return typeof ttl === "number" ? ttl + this.#offset + 1 : Infinity;
  }

  #message(mail) {
    if (this.#handlerOf(mail.command)) this.#enqueue(() => this.#deliver(mail), mail.size);
    else this.#keep(mail);
  }

  #handlerOf(command) {
    const everything = this.#events.get("*");
    const others = (...content) => everything(command, ...content);
    return this.#handlers.get(command) ?? (everything && command !== null ? others : undefined);
  }

  #deliver(mail) {
    const { command, content, deadline } = mail;
    const handler = this.#handlerOf(command);
    if (!handler) return this.#keep(mail); // taken away meanwhile
    if (deadline >= clock()) return this.#run(command, () => handler(content, this.#context(null)));
  }

  #context(within) {
    return {
      call: (...call) => this.#call(within, ...call),
      stream: (...call) => this.#stream(within, ...call),
    };
  }

  #keep(mail) {
    const { command, size, deadline } = mail;
    if (deadline < clock()) return;
    for (const receiver of this.#receivers) {
      if ((receiver.command ?? command) === command) {
        this.#receivers.delete(receiver);
        receiver.resolve(mail);
        return;
      }
    }
    this.#inbox.add(mail);
    this.#inboxSize += size;
    for (const old of this.#inbox) {
      if (this.#inbox.size <= INBOX && this.#inboxSize <= INBOX_SIZE) break;
      this.#takeFromInbox(old);
      if (!this.#hasWarned) console.warn(`hisock: nobody receives ${old.command}`);
      this.#hasWarned = true;
    }
  }

  #takeFromInbox(mail) {
    this.#inbox.delete(mail);
    this.#inboxSize -= mail.size;
  }

  async #receive(command, { timeout = null } = {}) {
    for (const mail of this.#inbox) {
      if ((command ?? mail.command) === mail.command) {
        this.#takeFromInbox(mail);
        if (mail.deadline >= clock()) return mail;
      }
    }
    if (this.#ended) throw this.#ended;
    if (timeout !== null) check(timeout);
    const receiver = { command, ...defer() };
    this.#receivers.add(receiver);
    const giveUp = () => this.#receivers.delete(receiver);
    return waitFor(receiver.promise, timeout, command ?? "a message", giveUp);
  }

  /** What waits in the inbox came before all that is queued. */
  #handOver() {
    const mails = [...this.#inbox].filter(({ command }) => this.#handlerOf(command));
    for (const mail of mails) this.#takeFromInbox(mail);
    const jobs = mails.map((mail) => ({ run: () => this.#deliver(mail), size: 0 }));
    this.#queue.splice(this.#place, 0, ...jobs);
    queueMicrotask(() => this.#pump());
  }

  // --- handlers, one after the other

  #enqueue(run, size = 0) {
    this.#queue.push({ run, size });
    this.#queueSize += size;
    this.#pump();
  }

  async #pump() {
    if (this.#isPumping || !this.#queue.length) return;
    this.#isPumping = true;
    while (this.#place < this.#queue.length) {
      const { run, size } = this.#queue[this.#place];
      this.#queue[this.#place++] = undefined;
      this.#queueSize -= size;
      const running = run();
      if (isThenable(running)) await running;
    }
    this.#queue = [];
    this.#place = 0;
    this.#isPumping = false;
  }

  #run(command, call) {
    const failed = (cause) => this.#failed(command, cause);
    try {
      const result = call();
      return isThenable(result) ? result.then(undefined, failed) : undefined;
    } catch (error) {
      return failed(error);
    }
  }

  #failed(command, cause) {
    const text = `the handler of ${command} failed: ${cause?.message ?? cause}`;
    const error = new HiSockError(text, "handler", { cause, command });
    if (command === "error") console.error("hisock:", error);
    else this.#report(error);
  }

  #report(error) {
    const handler = this.#events.get("error");
    if (handler) this.#run("error", () => handler(error));
    else console.error("hisock:", error);
  }

  #register(table, key, handler) {
    if (typeof handler !== "function") throw invalid("a handler is a function");
    table.set(key, handler);
    return () => {
      if (table.get(key) === handler) table.delete(key);
    };
  }

  #onEvent(event, handler) {
    return this.#register(this.#events, event, handler);
  }

  #emit(event, argument) {
    this.#enqueue(() => {
      const handler = this.#events.get(event);
      if (handler) return this.#run(event, () => handler(argument));
      if (event === "lost") console.warn("hisock:", argument);
    });
  }

  // --- calls and streams of ours

  #ask(asked, command, content, credit, timeout, within) {
    if (this.#asked.size >= OPEN_CALLS) {
      throw new HiSockError("too many calls are open", "overloaded");
    }
    const id = this.#nextId;
    const ttl = timeout === null ? null : clock() + Math.ceil(check(timeout) * 1000);
    this.#post([2, id, checkCommand(command), content, credit, ttl, within]);
    this.#nextId += 2;
    this.#asked.set(id, asked);
    return id;
  }

  #giveUp(id) {
    if (this.#asked.delete(id)) this.#post([8, id]);
  }

  async #call(within, command, content = null, { timeout = 30 } = {}) {
    const { promise, resolve, reject } = defer();
    const take = (frame) => {
      if (frame[0] > 4) throw broken("wrong answer");
      this.#asked.delete(id);
      if (frame[0] === 4) reject(remote(command, frame));
      else resolve(frame[2]);
    };
    const id = this.#ask({ take, fail: reject }, command, content, 0, timeout, within);
    return waitFor(promise, timeout, `the answer to ${command}`, () => this.#giveUp(id));
  }

  #stream(within, command, content = null, { timeout = null } = {}) {
    const stream = { items: [], news: defer(), isDone: false, failure: null };
    stream.fail = (failure) => {
      Object.assign(stream, { isDone: true, failure });
      stream.news.resolve();
    };
    stream.take = (frame) => {
      stream.news.resolve();
      if (frame[0] === 5) stream.items.push(frame[2]);
      if (frame[0] === 3 || stream.items.length > WINDOW) throw broken("wrong answer");
      if (frame[0] === 5) return;
      this.#asked.delete(id);
      stream.fail(frame[0] === 4 ? remote(command, frame) : null);
    };
    const id = this.#ask(stream, command, content, WINDOW, null, within);
    const items = this.#items(id, stream, timeout, command);
    const stop = items.return.bind(items);
    items.return = (value) => {
      this.#giveUp(id);
      stream.items = [];
      stream.fail(null); // ends a wait
      return stop(value);
    };
    return items;
  }

  async *#items(id, stream, timeout, command) {
    let owed = 0;
    try {
      for (;;) {
        while (stream.items.length) {
          owed += 1;
          if (owed >= WINDOW / 2 && !stream.isDone) {
            this.#post([7, id, owed]);
            owed = 0;
          }
          yield stream.items.shift();
        }
        if (stream.failure) throw stream.failure;
        if (stream.isDone) return;
        stream.news = defer();
        await waitFor(stream.news.promise, timeout, `an item of ${command}`);
      }
    } finally {
      this.#giveUp(id);
    }
  }

  #failCalls(error) {
    for (const each of this.#asked.values()) each.fail(error);
    this.#asked.clear();
    for (const each of this.#answering.values()) this.#endOf(each);
    this.#lastId = 0;
  }

  // --- calls and streams of the server's

  #request([, id, command, content, credit = 0, ttl, within], size) {
    if (id % 2 || id <= this.#lastId) throw broken("wrong id");
    this.#lastId = id;
    const deadline = this.#deadline(ttl);
    const answering = { id, command, content, credit, deadline, isStream: credit > 0, wake() {} };
    const isNested = (answering.isNested = this.#asked.has(within));
    const others = [...this.#answering.values()].filter((each) => each.isNested || !isNested);
    if (others.length >= (isNested ? 16 : OPEN_CALLS)) {
      this.#post([4, id, "overloaded", "too many calls are open"]);
      return;
    }
    this.#answering.set(id, answering);
    // At once, if a handler here may wait for it.
    if (isNested) this.#answer(answering);
    else this.#enqueue(() => this.#answer(answering), size);
  }

  async #answer(answering) {
    const { id, command, content, isStream } = answering;
    if (answering.deadline < clock()) this.#endOf(answering);
    if (answering.isOver) return; // or cancelled before its turn
    try {
      const handler = this.#handlerOf(command);
      if (!handler) throw new CommandError("unknown_command", `no handler for ${command}`);
      const result = await handler(content, this.#context(id));
      const iterator = result?.[Symbol.asyncIterator] ?? result?.[Symbol.iterator];
      const items = isStream && iterator?.call(result);
      const isAnswer = isStream ? items : typeof result?.next !== "function";
      if (!isAnswer) throw new CommandError(isStream ? "no_stream" : "only_stream");
      if (isStream) this.#produce(answering, items);
      else this.#finish(answering, [3, id, result]);
    } catch (error) {
      this.#fail(answering, error);
    }
  }

  async #produce(answering, items) {
    try {
      while (!answering.isOver) {
        if (!answering.credit) await new Promise((resolve) => (answering.wake = resolve));
        else {
          await this.#roomForMore();
          const { value, done } = await items.next();
          if (done) return this.#finish(answering, [6, answering.id]);
          if (!answering.isOver) this.#post([5, answering.id, value]);
          answering.credit -= 1;
        }
      }
    } catch (error) {
      this.#fail(answering, error);
    }
    return this.#run(answering.command, () => items.return?.());
  }

  #finish(answering, frame) {
    if (answering.isOver) return;
    this.#post(frame); // which may refuse it
    this.#endOf(answering);
  }

  #endOf(answering) {
    answering.isOver = true;
    answering.wake();
    this.#answering.delete(answering.id);
  }

  #fail(answering, error) {
    const { id, command } = answering;
    const isOnPurpose = error instanceof CommandError;
    const isTold = isOnPurpose || ["not_sendable", "message_too_large"].includes(error?.code);
    const failure = isTold ? [4, id, String(error.code), error.message] : [4, id, "handler_failed", ""];
    if (!isOnPurpose && error !== this.#ended) this.#failed(command, error);
    for (const frame of [[...failure, error?.data], failure, [4, id, "handler_failed", ""]]) {
      try {
        return this.#finish(answering, frame);
      } catch {} // it cannot be sent
    }
  }

  #steer(answering, credit) {
    if (!answering) return; // our last word is on its way
    if (credit === undefined) this.#endOf(answering);
    else answering.credit += credit;
    answering.wake();
  }
}
