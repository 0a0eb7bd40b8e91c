// Answers what the page asks, as the service of edgedl would, in this browser: no question leaves it.

import { Failure } from "../api.js";
import { file, Models } from "./models.js";
import { Refused } from "./refused.js";
import { Age } from "./tasks/age.js";
import { Arrays } from "./tasks/arrays.js";
import { Caption } from "./tasks/caption.js";
import { Chars } from "./tasks/chars.js";
import { Digits } from "./tasks/digits.js";

const TASKS = { age: Age, caption: Caption, chars: Chars, digits: Digits };
const CHARACTERS_AT_ONCE = 4; // in one event

const streams = new Map();
let opening = null;

/** The bundle of this page: its description, its graphs, and what its task does around them. */
export function opened() {
  opening ??= (async () => {
    const [manifest, description] = await Promise.all(["manifest.json", "description.json"].map(async (name) => (await file(name)).json()));
    const models = new Models(manifest);
    for (const name of Object.keys(manifest.models)) models.open(name).catch(() => {}); // what fails is told when it is asked
    return { models, description, task: new (TASKS[manifest.task] ?? Arrays)(models) };
  })();
  return opening;
}

const json = (document, status = 200, headers = {}) => new Response(JSON.stringify(document), { status, headers: { "Content-Type": "application/json", ...headers } });

/**
 * Answer one question of the page.
 * @param {string} url below the page's own address, as the service has it
 * @param {RequestInit} [request]
 * @returns {Promise<Response>}
 */
export async function answer(url, request = {}) {
  request.signal?.throwIfAborted();
  try {
    return await route(new URL(url, "http://page/"), request);
  } catch (error) {
    if (error instanceof Refused) return json({ detail: error.message }, error.status);
    throw new Failure("The network failed in this browser", String(error?.message ?? error));
  }
}

async function route({ pathname, searchParams }, request) {
  const [, , , below, stream] = pathname.split("/");
  const { description, task, models } = await opened();
  if (pathname === "/v1") return json(description);
  if (below === "example") return json(await (await file("example.json")).json());
  if (below === "streams") return answerStream(task, stream, request);
  const start = performance.now();
  const timed = (result) => json({ results: [result] }, 200, { "Server-Timing": `predict;dur=${(performance.now() - start).toFixed(1)}` });
  if (below === "drawings") return timed(await task.draw(JSON.parse(request.body)));
  if (task instanceof Chars) return text(task, JSON.parse(request.body), request.signal);
  if (task instanceof Arrays && typeof request.body === "string") return timed(await task.ask(JSON.parse(request.body)));
  if (!task.predict) throw new Refused(`${Object.keys(models.manifest.models)[0]} takes arrays.`, 415);
  const options = [...searchParams].map(([name, value]) => [name, ["1", "true"].includes(value)]);
  return timed(await task.predict(request.body, Object.fromEntries(options)));
}

async function answerStream(task, name, { method, body }) {
  if (name === undefined) {
    const fresh = crypto.randomUUID?.() ?? String(Math.random());
    streams.set(fresh, task.stream());
    return json({ stream: fresh }, 201);
  }
  const stream = streams.get(name);
  if (!stream) throw new Refused("There is no such stream any more. Open a new one.", 410);
  if (method === "DELETE") {
    streams.delete(name);
    return new Response(null, { status: 204 });
  }
  return json({ stream: name, results: await stream.lines(JSON.parse(body).steps) });
}

/** Server-sent events, as the service writes them. */
async function text(task, question, signal) {
  const report = await task.report(question);
  const characters = task.write(question);
  const first = await characters.next(); // what is out of range is refused before anything is sent
  const encoder = new TextEncoder();
  const event = (document, kind = "message") => encoder.encode(`event: ${kind}\ndata: ${JSON.stringify(document)}\n\n`);
  let next = first;
  const body = new ReadableStream({
    async pull(controller) {
      if (signal?.aborted) return controller.close();
      let waiting = "";
      for (; !next.done && waiting.length < CHARACTERS_AT_ONCE; next = await characters.next()) waiting += next.value;
      if (waiting) controller.enqueue(event({ text: waiting }));
      if (!next.done) return undefined;
      controller.enqueue(event(report, "end"));
      return controller.close();
    },
  });
  return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
}
