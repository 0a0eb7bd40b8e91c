// Server-sent events that answer a POST. (The browser's own EventSource only sends GET.)

import { Failure, send } from "./api.js";

/**
 * Ask, and give the events as they come.
 * @param {string} url
 * @param {RequestInit} request its `signal` ends both the request and the server's work
 * @param {string} thing what is sent, in a word
 * @yields {{event: string, data: object}}
 */
export async function* events(url, request, thing) {
  const headers = { ...request.headers, Accept: "text/event-stream" };
  const response = await send(url, { ...request, headers }, thing);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure("The answer broke off", "The connection to the server was lost in the middle.");
    }
    if (piece.done) return;
    const blocks = (waiting + piece.value).split("\n\n");
    waiting = blocks.pop();
    for (const block of blocks) yield parsed(block);
  }
}

function parsed(block) {
  const found = { event: "message", data: "" };
  for (const line of block.split("\n")) {
    const [name, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trimStart()];
    if (name in found) found[name] = name === "data" ? found.data + value : value;
  }
  return { event: found.event, data: JSON.parse(found.data) };
}
