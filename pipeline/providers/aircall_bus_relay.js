/* The relay of the Aircall Bus: carries the dialer's events from the agent's page to Callfold's collector.
 *
 *   const relay = CallfoldRelay.start({agentId: 41123, token: "…", busOrigin: "https://…"});
 *
 * A plain script without dependencies, and one global. Its rules:
 *
 * 1. An event is numbered, timed and put into the browser's storage in the same turn in which it is seen.
 * 2. It leaves the storage when the collector has answered 202, and not before. So an event may be posted twice, and
 *    is the same event then: agent, session and number say which it is.
 * 3. Events are posted one at a time, oldest first, those of earlier page loads and of other tabs among them.
 *    Only what is sent while the page closes goes out all at once.
 * 4. Nothing is dropped in silence. What cannot be kept or sent is told on the console and to the page.
 * 5. The token is in memory only: never stored, never logged.
 */
(function (global) {
  "use strict";

  const WEBHOOK = "/webhooks/aircall_bus";
  const NAME = "callfold-relay";
  // What may outlive its page: 64 KiB on the way at once, says the Fetch standard, and in Chromium so many requests.
  const OUTLIVING_BYTES = 63 * 1024;
  const OUTLIVING_POSTS = 100;
  const LONGEST_RETRY_AFTER_MS = 10 * 60 * 1000;
  const KEEP_REFUSED_MS = 7 * 24 * 60 * 60 * 1000;
  const TOKEN = /^[\x21-\x7e]+$/;
  const NO_TOKEN = -1;
  // Of the other refusals (4xx) none goes away by itself.
  const PASSING = [407, 408, 421, 425, 429];
  // What the bus says of calls and of the agent's availability; what else it says (log-ins, say) stays in the page.
  const RELAYED = /^(DIALER\..+|USER\.AVAILABILITY_CHANGED)$/;
  // While the page is loaded: whose script this is, which is where the events go unless the page says otherwise.
  const SCRIPT_URL = (global.document && document.currentScript && document.currentScript.src) || "";

  const DEFAULTS = {
    minRetryMs: 1000, // the wait after a first failure; it doubles with each further one
    maxRetryMs: 60000, // the longest wait, and how often to look for what another tab has left
    timeoutMs: 15000, // for one post
    maxStorageBytes: 4 * 1024 * 1024, // browsers give a site about ten million; the page may need some
    maxMemoryBytes: 16 * 1024 * 1024, // for what the storage does not take
  };

  /** The full address of the webhook, from the collector's address or from that of this script. */
  function webhookUrl(given) {
    const base = given || SCRIPT_URL.replace(/\/relay\/aircall_bus\.js([?#].*)?$/, "");
    // A name alone would be taken for a path of the page's own site.
    if (!/^(https?:)?\//.test(base) || (!given && base === SCRIPT_URL)) {
      throw new TypeError("CallfoldRelay: url must be the collector's address, such as https://collector.example.com");
    }
    const url = new URL(base, global.location.href);
    url.hash = url.search = "";
    const path = url.pathname.replace(/\/+$/, "");
    url.pathname = path.endsWith(WEBHOOK) ? path : path + WEBHOOK;
    return url.href;
  }

  function newSessionId() {
    // Not `randomUUID`, which only secure pages have.
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
  }

  /** The browser's storage; null where it is denied. */
  function openStorage() {
    try {
      const storage = global.localStorage;
      storage.getItem(NAME);
      return storage;
    } catch (denied) {
      return null;
    }
  }

  /** Whole milliseconds of a `Retry-After`, which is seconds or a date; 0 without one. */
  function retryAfterMs(value) {
    if (!value) return 0;
    const ms = /^\s*\d+\s*$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
    return Math.min(Math.max(ms || 0, 0), LONGEST_RETRY_AFTER_MS);
  }

  /**
   * What waits to be posted, by keys that sort in the order of posting. An event is one item of the storage, so that
   * tabs cannot overwrite one another's; what the storage does not take waits in memory.
   */
  class Queue {
    constructor(prefix, options, tell) {
      this.prefix = prefix;
      this.options = options;
      this.tell = tell;
      this.storage = openStorage();
      this.memory = new Map();
      this.memoryBytes = 0;
      this.storedBytes = 0;
      this.keys();
    }

    static bytes(key, body) {
      return 2 * (key.length + body.length);
    }

    /** False if there is room nowhere. */
    add(key, body) {
      if (this.store(key, body)) return true;
      const bytes = Queue.bytes(key, body);
      if (this.memoryBytes + bytes > this.options.maxMemoryBytes) return false;
      this.memory.set(key, body);
      this.memoryBytes += bytes;
      return true;
    }

    store(key, body) {
      const bytes = Queue.bytes(key, body);
      let why = this.storage ? "is full" : "is denied";
      if (this.storage && this.storedBytes + bytes <= this.options.maxStorageBytes) {
        try {
          this.storage.setItem(key, body);
          this.storedBytes += bytes;
          if (this.memory.size === 0) this.tell("storage", null);
          return true;
        } catch (refused) {
          why = refused.name === "QuotaExceededError" ? "is full" : "is denied";
        }
      }
      this.tell("storage", `the browser's storage ${why}: events wait in memory, and a reload loses them`);
      return false;
    }

    /** Moves what waits in memory into the storage, oldest first, as far as there is room. */
    settle() {
      if (this.memory.size === 0) return;
      for (const key of [...this.memory.keys()].sort()) {
        const body = this.memory.get(key);
        if (!this.store(key, body)) return;
        this.forget(key);
      }
      this.tell("storage", null);
    }

    forget(key) {
      if (!this.memory.has(key)) return;
      this.memoryBytes -= Queue.bytes(key, this.memory.get(key));
      this.memory.delete(key);
    }

    get(key) {
      if (this.memory.has(key)) return this.memory.get(key);
      try {
        return this.storage ? this.storage.getItem(key) : null;
      } catch (denied) {
        return null;
      }
    }

    remove(key) {
      const body = this.get(key);
      this.forget(key);
      if (body !== null && this.storage) {
        try {
          this.storage.removeItem(key);
          this.storedBytes -= Queue.bytes(key, body);
        } catch (denied) {
          return;
        }
      }
    }

    /** All keys, oldest first; counts anew how much is stored, as other tabs store too. */
    keys() {
      const found = new Set(this.memory.keys());
      let storedBytes = 0;
      try {
        for (const key of this.storage ? Object.keys(this.storage) : []) {
          if (!key.startsWith(this.prefix)) continue;
          storedBytes += Queue.bytes(key, this.storage.getItem(key) || "");
          found.add(key);
        }
      } catch (denied) {
        this.storage = null;
      }
      this.storedBytes = storedBytes;
      return [...found].sort();
    }
  }

  class Relay {
    constructor(options) {
      this.options = options;
      this.url = webhookUrl(options.url);
      this.sessionId = newSessionId();
      this.seq = 0;
      this.orderMs = 0;
      this.problems = {};
      this.failures = 0;
      this.refused = new Set();
      this.outliving = new Map();
      this.isRunning = false;
      this.again = false;
      this.woken = false;
      this.lastRun = null;
      this.lastToken = null;
      this.timer = null;
      this.backingOff = false;
      this.stopped = false;
      this.closing = false;
      this.queue = new Queue(`${NAME}:${this.url}:`, options, (kind, message) => this.tell(kind, message));
      this.listeners = [
        [global, "online", () => this.comeOnline()],
        [global, "pageshow", () => this.reopen()],
        [global, "pagehide", () => this.close()],
        [document, "visibilitychange", () => document.visibilityState === "hidden" && this.wake()],
      ];
      if (options.busOrigin) this.listeners.push([global, "message", (message) => this.hear(message)]);
      for (const [target, name, listener] of this.listeners) target.addEventListener(name, listener);
      this.wake();
    }

    /** Takes one event of the bus. False, and told, if it is none or if there is room for it nowhere. */
    send(event) {
      const body = this.envelope(event);
      if (body === null) {
        console.error("CallfoldRelay: not an event of the bus (an object with a `type`); it was not taken");
        return false;
      }
      // The key must sort by `seq` even when the clock is set back.
      this.orderMs = Math.max(this.orderMs, Date.now());
      const place = [String(this.orderMs).padStart(14, "0"), this.sessionId, String(this.seq).padStart(9, "0")];
      if (!this.queue.add(this.queue.prefix + place.join(":"), body)) {
        this.refuse(body, null, "neither the browser's storage nor memory has room for it", true);
        return false;
      }
      if (this.stopped) return true;
      if (this.closing) this.close();
      else if (!this.backingOff) this.run();
      return true;
    }

    envelope(event) {
      if (event === null || typeof event !== "object" || typeof event.type !== "string" || !event.type) return null;
      const { agentId } = this.options;
      const told = { agent_id: agentId, session_id: this.sessionId, seq: this.seq + 1, sent_at: null, event };
      try {
        told.sent_at = new Date().toISOString();
        const body = JSON.stringify(told);
        this.seq += 1;
        return body;
      } catch (cyclic) {
        return null;
      }
    }

    hear(message) {
      if (message.origin !== this.options.busOrigin) return;
      let event = message.data;
      if (typeof event === "string") {
        try {
          event = JSON.parse(event);
        } catch (other) {
          return;
        }
      }
      if (event && typeof event === "object" && RELAYED.test(event.type)) this.send(event);
    }

    /** Events that wait to be posted; those that were refused are not among them. */
    pending() {
      return this.waiting().length;
    }

    /** Tries at once; the promise is for how many still wait then. */
    async flush() {
      if (!this.stopped) await this.wake();
      return this.pending();
    }

    /** No more posts from here. What waits in the storage is for the next start. */
    stop() {
      this.stopped = true;
      clearTimeout(this.timer);
      for (const [target, name, listener] of this.listeners) target.removeEventListener(name, listener);
      return this.pending();
    }

    waiting() {
      return this.queue.keys().filter((key) => !this.refused.has(key));
    }

    wake() {
      this.backingOff = false;
      this.woken = true;
      return this.run();
    }

    comeOnline() {
      // The first attempts may still be too early, and what failed before says nothing any more.
      this.failures = 0;
      this.wake();
    }

    /** One drain at a time; a call while one is under way makes it look once more. */
    run() {
      this.again = true;
      if (!this.isRunning) {
        this.isRunning = true;
        this.lastRun = this.drain();
      }
      return this.lastRun;
    }

    async drain() {
      clearTimeout(this.timer);
      let waitMs = null;
      try {
        // Who was woken during a post that failed tries again: the post may have begun too early.
        while ((this.woken || (this.again && waitMs === null)) && !this.stopped && !this.closing) {
          this.again = this.woken = false;
          waitMs = await this.alone(() => this.pass());
        }
      } finally {
        this.isRunning = false;
      }
      if (this.stopped || this.closing) return;
      this.backingOff = waitMs !== null;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.wake(), this.backingOff ? waitMs : this.options.maxRetryMs);
    }

    /**
     * Only one tab posts at a time; it may post again what another has just taken off, as storage is a moment behind.
     * Where there are no locks, tabs may post any event twice. Never out of order: what comes first is a first post.
     */
    async alone(action) {
      let begun = false;
      try {
        return await navigator.locks.request(this.queue.prefix, () => {
          begun = true;
          return action();
        });
      } catch (problem) {
        if (begun) throw problem;
        return action();
      }
    }

    /** Posts what waits, in order. How long to wait after a failure, in milliseconds; null if there was none. */
    async pass() {
      this.queue.settle();
      for (const key of this.waiting()) {
        if (this.stopped || this.closing) return null;
        const body = this.queue.get(key);
        if (body === null || this.outliving.has(key)) continue; // another tab has sent it, or this page as it closed
        const answer = await this.post(key, body);
        if (!this.settled(key, body, answer)) return this.backoffMs(answer.retryMs);
      }
      return null;
    }

    /** One post: its status, 0 without an answer; and how long the collector wants to be left alone. */
    async post(key, body, mustOutlive = false) {
      const giveUp = new AbortController();
      const timer = setTimeout(() => giveUp.abort(), this.options.timeoutMs);
      try {
        const token = this.token(giveUp.signal);
        // A page that closes has no later, so a token that is there is not waited for.
        const headers = headersOf(typeof token === "string" ? token : await token);
        if (headers === null) return { status: NO_TOKEN, retryMs: 0 };
        const keepalive = this.mayOutlive(key, body);
        if (mustOutlive && !keepalive) return { status: 0, retryMs: 0 };
        const answer = await fetch(this.url, {
          method: "POST",
          headers,
          body,
          keepalive,
          mode: "cors",
          credentials: "omit",
          cache: "no-store",
          redirect: "error",
          referrerPolicy: "no-referrer",
          signal: giveUp.signal,
        });
        answer.text().catch(() => {}); // read, so that the connection is free again
        return { status: answer.status, retryMs: retryAfterMs(answer.headers.get("Retry-After")) };
      } catch (problem) {
        // Not its message, which may hold what was in the headers.
        return { status: 0, retryMs: 0 };
      } finally {
        clearTimeout(timer);
        this.outliving.delete(key);
      }
    }

    /** The token, or a promise of it if the page has to fetch it; empty if it has none. */
    token(signal) {
      if (typeof this.options.token !== "function") return this.options.token;
      if (this.closing && this.lastToken !== null) return this.lastToken;
      const asked = new Promise((resolve, reject) => {
        signal.addEventListener("abort", reject);
        resolve(this.options.token());
      });
      return asked.then(
        (token) => (this.lastToken = token),
        () => "",
      );
    }

    /** Whether a post still fits into what may be on its way when the page goes; takes the room if so. */
    mayOutlive(key, body) {
      const bytes = new TextEncoder().encode(body).length;
      const taken = [...this.outliving.values()].reduce((sum, each) => sum + each, 0);
      if (taken + bytes > OUTLIVING_BYTES || this.outliving.size >= OUTLIVING_POSTS) return false;
      this.outliving.set(key, bytes);
      return true;
    }

    /** Whether an event needs no further post, by the answer to it. */
    settled(key, body, { status }) {
      if (status === 202) {
        this.queue.remove(key);
        this.failures = 0;
        this.tell("credentials", null);
        this.tell("unreachable", null);
        return true;
      }
      if (status === NO_TOKEN) {
        this.tell("credentials", "the page has no token, or none that fits into a header: events wait");
        return false;
      }
      if (status === 401 || status === 403) {
        this.tell("credentials", `the collector does not accept the token (${status}): events wait`);
        return false;
      }
      if (status >= 400 && status < 500 && !PASSING.includes(status)) {
        const isOld = Date.now() - Number(key.slice(this.queue.prefix.length).split(":")[0]) > KEEP_REFUSED_MS;
        if (isOld) this.queue.remove(key);
        else this.refused.add(key);
        this.refuse(body, status, `the collector refuses it for good (${status})`, isOld);
        return true;
      }
      const why = status === 0 ? "cannot be reached" : `answered ${status}`;
      this.tell("unreachable", `the collector ${why}: events wait`);
      return false;
    }

    backoffMs(retryAfter) {
      const { minRetryMs, maxRetryMs } = this.options;
      const longest = Math.min(maxRetryMs, minRetryMs * 2 ** Math.min(this.failures, 30));
      this.failures += 1;
      // From half of it to all of it, so that pages that failed together do not come back together.
      return Math.max(retryAfter, longest * (0.5 + Math.random() / 2));
    }

    /**
     * The page goes: what waits is sent at once, as far as it may outlive the page. What no answer comes for stays in
     * the storage. What is only in memory goes first.
     */
    close() {
      this.closing = true;
      clearTimeout(this.timer);
      const inMemory = [...this.queue.memory.keys()].sort().filter((key) => !this.refused.has(key));
      for (const key of new Set([...inMemory, ...this.waiting()])) {
        const body = this.outliving.has(key) ? null : this.queue.get(key);
        if (body === null) continue;
        this.post(key, body, true).then((answer) => {
          if (answer.status === 202) this.queue.remove(key);
          else if (!this.closing && !this.backingOff) this.run();
        });
      }
    }

    /** The page comes back from the browser's cache. */
    reopen() {
      this.closing = false;
      if (!this.stopped) this.wake();
    }

    /** Tells the page and the console of a problem once, and of its end once. */
    tell(kind, message) {
      if ((this.problems[kind] || null) === message) return;
      this.problems[kind] = message;
      // Events that wait in the storage are safe; what the other problems touch needs somebody.
      if (message !== null) console[kind === "unreachable" ? "warn" : "error"](`CallfoldRelay: ${message}`);
      this.callBack("onProblem", { kind, message });
    }

    refuse(body, status, why, isLost) {
      const rest = isLost ? "it is lost" : "it is kept, and tried again when the page is loaded anew";
      console.error(`CallfoldRelay: an event was set aside, ${why}; ${rest}`);
      this.callBack("onRefused", { status, isLost, envelope: JSON.parse(body) });
    }

    callBack(name, argument) {
      try {
        if (this.options[name]) this.options[name](argument);
      } catch (problem) {
        console.error(`CallfoldRelay: ${name} threw`, problem);
      }
    }
  }

  /** Null if the token is none that a header can hold. */
  function headersOf(token) {
    if (!TOKEN.test(String(token || ""))) return null;
    return { "Content-Type": "application/json", Authorization: `Bearer ${token}` };
  }

  function checked(given) {
    const told = Object.entries(given || {}).filter(([, value]) => value !== undefined);
    const options = { ...DEFAULTS, ...Object.fromEntries(told) };
    const { agentId, token } = options;
    if (!/^\S+$/.test(String(agentId === undefined || agentId === null ? "" : agentId))) {
      throw new TypeError("CallfoldRelay: agentId must be the agent's id in Aircall");
    }
    if (typeof token !== "function" && !TOKEN.test(String(token || ""))) {
      throw new TypeError("CallfoldRelay: token must be the collector's token, or a function that returns it");
    }
    for (const name of Object.keys(DEFAULTS)) {
      if (!(options[name] > 0)) throw new TypeError(`CallfoldRelay: ${name} must be a number above 0`);
    }
    return options;
  }

  global.CallfoldRelay = {
    /** Begins to relay; throws a TypeError if an option is missing or wrong. */
    start(options) {
      const relay = new Relay(checked(options));
      return {
        sessionId: relay.sessionId,
        send: (event) => relay.send(event),
        flush: () => relay.flush(),
        stop: () => relay.stop(),
        pending: () => relay.pending(),
      };
    },
  };
})(globalThis);
