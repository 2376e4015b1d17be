// Counts the words of texts, for whoever asks, and tells what it has counted.
//
//     node words.js SOCKET

"use strict";

const { Bus } = require("./bus.js");

async function main() {
  const bus = await Bus.connect(process.argv[2], { name: "words" });
  await bus.handle("words.count", async (text) => {
    if (typeof text !== "string") throw new TypeError("words.count takes a text");
    const count = text.split(/\s+/).filter(Boolean).length;
    await bus.publish("words.counted", { text, count });
    return count;
  });
  await bus.handle("words.each", async function* (text) {
    yield* text.split(/\s+/).filter(Boolean);
  });
  await bus.closed;
}

main().catch((error) => {
  console.error(`words.js: ${error.message}`);
  process.exit(1);
});
