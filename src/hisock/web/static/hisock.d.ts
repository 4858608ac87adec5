/**
 * The types of `hisock.js`. All times are in seconds.
 *
 * Python's `bytes` is `Uint8Array`, integers beyond 2^53 are `bigint`, `datetime` is
 * `Date` (in whole milliseconds), and a `dict` with keys that are not text is a `Map`.
 */

/** Every error of hisock; `code` is the same word as in Python. */
export class HiSockError extends Error {
  constructor(message: string, code?: string, more?: object);
  readonly code: string;
  /** Of a handler's error: what it threw. Of `disconnected`: why. */
  readonly cause?: any;
  /** Of a handler's error: whose handler. */
  readonly command?: string;
}

/** Throw one in a handler to refuse a call: its caller gets the same three. */
export class CommandError extends HiSockError {
  constructor(code: string, message?: string, data?: unknown);
  readonly data: any;
}

/** A call or stream came to nothing on the server. */
export class RemoteError extends CommandError {}

/** The session ended: nobody knows whether what was not acknowledged has arrived. */
export class SessionLost extends HiSockError {
  constructor(message: string, reason?: string, unacked?: Message[], missed?: number | null);
  /** `expired overflow server_restarted other_node evicted unauthorized unknown closed`. */
  readonly reason: string;
  /** The messages and calls that may not have arrived, the oldest first. */
  readonly unacked: Message[];
  /** How many frames of the server are lost; `null` if nobody knows. */
  readonly missed: number | null;
}

export interface Message {
  /** `null` for raw content. */
  command: string | null;
  content: any;
}

/** Somebody else. */
export interface ClientInfo {
  ip: any;
  name: string | null;
  group: string | null;
}

/** Messages that were dropped, as their sender allowed. */
export interface Gap {
  count: number;
  group: string | null;
}

export interface ConnectOptions {
  /** What others call this client. */
  name?: string | null;
  /** The group it is in. */
  group?: string | null;
  /** What it proves with who it is, or a function that is asked at each connect. */
  token?: string | null | (() => string | null | Promise<string | null>);
  /** Seconds that the session lasts after a cut; 30 unless given, 0 for none. */
  resumeWindow?: number;
  /** Seconds of silence after which the link is cut; 20 unless given, 0 for never. */
  deadAfter?: number;
  /** Where there is no global one. */
  WebSocket?: any;
}

export interface SendOptions {
  /** Means `whenSlow: "latest"`: of each command and key only the newest waits. */
  key?: unknown;
  /** Seconds after which nobody wants it any more. */
  ttl?: number;
  /**
   * What to do while 4 MiB wait to be sent: `"wait"` (what `send` returns does so),
   * `"raise"` (`would_block`), or drop the oldest or newest of such messages, or the
   * older ones of the same command and key.
   */
  whenSlow?: "wait" | "disconnect" | "raise" | "drop_oldest" | "drop_newest" | "latest";
}

export interface TimeoutOptions {
  /** Seconds; `null` for as long as it takes. */
  timeout?: number | null;
}

/** `call` and `stream` of the client, on behalf of the call that a handler answers. */
export interface Context {
  /** The server answers these though it waits itself for what is answered here. */
  call<T = any>(command: string, content?: unknown, options?: TimeoutOptions): Promise<T>;
  stream<T = any>(
    command: string,
    content?: unknown,
    options?: TimeoutOptions,
  ): AsyncGenerator<T, void, void>;
}

export interface Client {
  /** What this client is called, as far as it knows. */
  readonly name: string | null;
  /** The group it is in, as far as it knows. */
  readonly group: string | null;
  /** Whether there is a link just now. */
  readonly isConnected: boolean;

  /**
   * Have a command handled.
   *
   * What the handler returns, or its promise resolves to, answers a call; an (async)
   * generator, or anything else to go through, answers a stream. The next message waits
   * until it has finished. It also gets what waits in the inbox for it.
   *
   * `"*"` takes what no other handler does. The last three are events.
   *
   * @returns Takes the handler away again. Another `on` replaces it.
   */
  on(command: "*", handler: (command: string, content: any, context: Context) => unknown): () => void;
  on(command: "client_connect" | "client_disconnect", handler: (who: ClientInfo) => unknown): () => void;
  on(command: "force_disconnect", handler: (error: HiSockError) => unknown): () => void;
  on(command: string, handler: (content: any, context: Context) => unknown): () => void;

  /** Be told that the link is cut, and why; it is tried again by itself. */
  onDrop(handler: (reason: string) => unknown): () => void;
  /** Be told that it is back, and that nothing was lost. */
  onResume(handler: () => unknown): () => void;
  /** Be told what a lost session costs, before anything of the next; else a warning is. */
  onSessionLost(handler: (error: SessionLost) => unknown): () => void;
  /** Be told that messages for this client were dropped. */
  onGap(handler: (gap: Gap) => unknown): () => void;
  /** Be told what handlers threw, and of refused names; else the console is. */
  onError(handler: (error: HiSockError) => unknown): () => void;

  /**
   * Send a message, in order with all others, now or when the link is back.
   *
   * @returns Resolves when there is room for more; nobody has to wait for that.
   * @throws HiSockError At once: `not_sendable`, `message_too_large`,
   *   `reserved_command`, `would_block` (8 MiB wait), or `disconnected`.
   */
  send(command: string, content?: unknown, options?: SendOptions): Promise<void>;

  /**
   * Call the server's handler. The time-out is 30 s unless given; a call that nobody
   * waits for any more does not run later.
   *
   * @returns What it returns. Rejects with `RemoteError`, `SessionLost`, or
   *   `request_timeout`.
   */
  call<T = any>(command: string, content?: unknown, options?: TimeoutOptions): Promise<T>;

  /**
   * Begin a stream of the server's, to go through with `for await`; leaving that ends it
   * there, too. The time-out is for each item; there is none unless given.
   */
  stream<T = any>(
    command: string,
    content?: unknown,
    options?: TimeoutOptions,
  ): AsyncGenerator<T, void, void>;

  /** Wait for the next message of a command without a handler. */
  recv<T = any>(command: string, options?: TimeoutOptions): Promise<T>;
  /** Wait for the next message without a handler. */
  recvAny(options?: TimeoutOptions): Promise<Message>;

  /** Be called something else, or nothing; a refusal goes to `onError`. */
  changeName(name: string | null): void;
  /** Be in another group, or in none; a refusal goes to `onError`. */
  changeGroup(group: string | null): void;

  /**
   * Say goodbye. What waits for handlers is discarded.
   *
   * @returns Resolves when the server has heard all, or after 1 s.
   */
  close(): Promise<void>;
}

/**
 * Connect to a server of hisock.
 *
 * @param url `ws://…`, `wss://…`, or relative to the page; its own server unless given.
 * @returns Rejects with `server_not_running` if nobody answers, else with the code of
 *   the refusal. Later the client comes back by itself after every cut.
 */
export function connect(url?: string, options?: ConnectOptions): Promise<Client>;

/** Write a value as MessagePack. */
export function pack(value: unknown): Uint8Array;
/** Read a value that is MessagePack; throws a `HiSockError` if it is not. */
export function unpack(data: Uint8Array | ArrayBuffer): any;
