// Runs the graphs, beside the page, so that it goes on answering to the hand. One question at a time, in their order.

import { fromTensor, toTensor } from "./arrays.js";
import * as ort from "../ort/ort.js";

const MOST_THREADS = 4; // more gain nothing with graphs of this size

const here = (file) => new URL(`../ort/${file}`, import.meta.url).href;
ort.env.wasm.wasmPaths = { mjs: here("ort-wasm.js"), wasm: here("ort-wasm.wasm") };
// Threads share memory, which browsers allow only to a page that its headers isolate from other sites.
const asked = Number(new URLSearchParams(location.search).get("threads")); // of the page's address: ?threads=1
const wanted = asked > 0 ? asked : Math.min(MOST_THREADS, Math.ceil(navigator.hardwareConcurrency / 2));
const threads = self.crossOriginIsolated ? wanted : 1;
ort.env.wasm.numThreads = threads;
ort.env.logLevel = "error";

const sessions = new Map();
let turn = Promise.resolve();

async function open({ model, graph }) {
  if (!sessions.has(model)) {
    const response = await fetch(graph);
    if (!response.ok) throw new Error(`the graph ${model} cannot be loaded (${response.status})`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    sessions.set(model, await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] }));
  }
  return { threads, version: ort.env.versions.web };
}

async function run({ model, feeds, outputs }) {
  const given = Object.fromEntries(Object.entries(feeds).map(([name, array]) => [name, toTensor(ort, array)]));
  const found = await sessions.get(model).run(given, outputs);
  return Object.fromEntries(outputs.map((name) => [name, fromTensor(found[name])]));
}

async function answer({ id, kind, ...question }) {
  try {
    postMessage({ id, answer: await { open, run }[kind](question) });
  } catch (error) {
    postMessage({ id, problem: String(error?.message ?? error) });
  }
}

addEventListener("message", ({ data }) => {
  turn = turn.then(() => answer(data));
});
