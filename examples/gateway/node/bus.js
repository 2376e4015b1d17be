// A client of `shmbus gateway --socket PATH`: lines of JSON over a Unix socket, nothing else.
//
//     const bus = await Bus.connect("/run/user/1000/bus.sock", { name: "ui" });
//     bus.subscribe("buffer.*.changed", (event) => console.log(event.payload));
//     bus.handle("words.count", async (text) => text.split(" ").length);
//     console.log(await bus.request("calc.add", [1, 2]));

"use strict";

const net = require("node:net");
const readline = require("node:readline");

/** What the bus refused, or a request that failed: `class` and `facts` as in the reference. */
class BusError extends Error {
  constructor(error) {
    super(error.message);
    Object.assign(this, { name: error.class, facts: error.facts });
  }
}

class Bus {
  #socket;
  #ids = 0;
  #asked = new Map(); // id -> { resolve, reject }
  #callbacks = new Map(); // pattern -> function
  #handlers = new Map(); // pattern -> function
  #inHand = new Map(); // message -> AbortController

  /** `closed` is a promise: it is kept when the connection has ended. */
  static async connect(path, { name = null, window = 64 } = {}) {
    const bus = new Bus();
    bus.#socket = net.createConnection(path);
    bus.closed = new Promise((resolve) => bus.#socket.once("close", resolve));
    await new Promise((resolve, reject) => {
      bus.#socket.once("connect", resolve);
      bus.#socket.once("error", reject);
    });
    bus.#socket.on("error", () => {}); // "close" comes after it
    readline.createInterface({ input: bus.#socket }).on("line", (line) => bus.#read(line));
    bus.closed.then(() => {
      const error = { class: "Disconnected", message: "the gateway has ended", facts: {} };
      for (const { reject } of bus.#asked.values()) reject(new BusError(error));
    });
    bus.attached = await bus.#ask("attach", { name, window });
    return bus;
  }

  publish(type, payload = null, options = {}) {
    return this.#ask("publish", { type, payload, ...options });
  }

  send(type, payload = null, options = {}) {
    return this.#ask("send", { type, payload, ...options });
  }

  async request(type, payload = null, options = {}) {
    return (await this.#ask("request", { type, payload, ...options })).payload;
  }

  /** Call `callback(line)` with each event, in order. */
  subscribe(pattern, callback, options = {}) {
    this.#callbacks.set(pattern, callback);
    return this.#ask("subscribe", { pattern, ...options });
  }

  /** Answer with what `callback(payload, line, signal)` returns, or with what it throws.
   * `signal` is aborted where nobody waits for the answer any more. An asynchronous iterable is
   * the answer in parts. */
  handle(pattern, callback, options = {}) {
    this.#handlers.set(pattern, callback);
    return this.#ask("handle", { pattern, ...options });
  }

  close() {
    this.#socket.end();
    return this.closed;
  }

  #say(line) {
    this.#socket.write(JSON.stringify(line) + "\n");
  }

  #ask(op, rest) {
    const id = ++this.#ids;
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject });
      this.#say({ op, id, ...rest });
    });
  }

  #read(text) {
    const line = JSON.parse(text);
    if ("message" in line) {
      this.#answer(line);
    } else if ("id" in line) {
      const asked = this.#asked.get(line.id);
      this.#asked.delete(line.id);
      if (line.error) asked.reject(new BusError(line.error));
      else asked.resolve(line);
    } else if ("withdrawn" in line) {
      this.#inHand.get(line.withdrawn)?.abort();
    } else if (line.error) {
      console.error(line.error.message); // of a line without id, or of the bus
    } else {
      this.#callbacks.get(line.pattern)?.(line);
    }
  }

  async #answer(line) {
    const { message } = line;
    const withdrawn = new AbortController();
    this.#inHand.set(message, withdrawn);
    let answer;
    try {
      const handler = this.#handlers.get(line.pattern);
      let value = await handler(line.payload, line, withdrawn.signal);
      if (value?.[Symbol.asyncIterator]) {
        for await (const payload of value) await this.#ask("part", { message, payload });
        value = null;
      }
      const reply = { op: "reply", message, payload: value ?? null };
      answer = line.kind === "request" ? reply : { op: "done", message };
    } catch (error) {
      const { name, message: text } = error;
      answer = { op: "error", message, name, text };
      if (line.kind !== "request") answer = { op: "nack", message, reason: text };
    }
    this.#inHand.delete(message);
    if (!withdrawn.signal.aborted) this.#say(answer);
  }
}

module.exports = { Bus, BusError };
