// The program of the target `browser`: takes a request from the server that sent this page, and brings the answer back.

import { Graphs } from "./graphs.js";
import * as ort from "./ort.js";
import { pack, unpack } from "./wire.js";

const here = (file) => new URL(file, import.meta.url).href;
ort.env.wasm.wasmPaths = { mjs: here("ort-wasm.js"), wasm: here("ort-wasm.wasm") };
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "fatal";

const graphs = new Graphs(ort, { executionProviders: ["wasm"], enableMemPattern: false }, () => null);
const told = { onnxruntime: `web ${ort.env.versions.web}`, language: navigator.userAgent };
let answer = { header: { machine: told } };
for (;;) {
  const response = await fetch("next", { method: "POST", body: pack(answer.header, answer.tensors) });
  const message = new Uint8Array(await response.arrayBuffer());
  answer = await graphs.answer(unpack(message.subarray(8)));
}
