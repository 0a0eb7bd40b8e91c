// The program of the target `node`: answers requests on standard input until it ends. What is printed goes elsewhere.

import { cpus, machine, type } from "node:os";
import { readFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { Graphs } from "./graphs.js";
import { lengthAt, pack, unpack } from "./wire.js";

// The packages lie in a folder that is named, in which ONNX Runtime is found as Node finds any package.
const ort = createRequire(`${process.argv[2]}/`)("onnxruntime-node");

console.log = console.info = console.error; // nothing may stand between two answers

function flags() {
  try {
    return (/^(?:flags|Features)\s*:\s*(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "").split(" ");
  } catch {
    return [];
  }
}

/** A pipe takes no more than it has room for, and tells so when it has none. */
function send(header, tensors) {
  const message = pack(header, tensors);
  for (let place = 0; place < message.length; ) {
    try {
      place += writeSync(1, message, place);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

const graphs = new Graphs(
  ort,
  { executionProviders: ["cpu"], intraOpNumThreads: 1, interOpNumThreads: 1, enableMemPattern: false, logSeverityLevel: 4 },
  () => (process.resourceUsage().maxRSS * 1024) / 1e6,
);
send({
  machine: {
    onnxruntime: `node ${ort.env.versions.node}`,
    language: `Node ${process.versions.node}`,
    system: type(),
    machine: machine(),
    processor: cpus()[0]?.model ?? machine(),
    flags: flags(),
  },
});

let waiting = [];
let size = 0;
for await (const piece of process.stdin) {
  waiting.push(piece);
  size += piece.length;
  for (;;) {
    if (size < 8) break;
    if (waiting.length > 1 && (waiting[0].length < 8 || size >= 8 + lengthAt(waiting[0]))) waiting = [Buffer.concat(waiting)];
    const [bytes] = waiting;
    const whole = bytes.length < 8 ? Infinity : 8 + lengthAt(bytes);
    if (size < whole) break;
    const { header, tensors } = await graphs.answer(unpack(bytes.subarray(8, whole)));
    send(header, tensors);
    waiting = [bytes.subarray(whole)];
    size -= whole;
  }
}
