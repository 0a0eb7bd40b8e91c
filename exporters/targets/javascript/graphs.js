// The open graphs of a target, and the answers to the requests that replay.py answers in Python. It compares nothing.

import { fromTensor, toTensor } from "./arrays.js";

export class Graphs {
  /** @param {object} ort ONNX Runtime @param {object} options of its sessions @param {() => number|null} memory in MB */
  constructor(ort, options, memory) {
    Object.assign(this, { ort, options, memory });
    this.open = new Map();
  }

  /** @returns {Promise<{header: object, tensors?: object}>} the answer to a request; what fails is told as `error` */
  async answer({ header, tensors }) {
    try {
      if ("open" in header) return await this.#open(header.open, tensors.graph.data);
      if ("run" in header) return { header: {}, tensors: await this.#run(header.run, header.names, tensors) };
      if ("times" in header) return { header: await this.#times(header.times, header.calls, tensors) };
      await this.open.get(header.close)?.session.release();
      this.open.delete(header.close);
      return { header: {} };
    } catch (error) {
      const told = String(error?.message ?? error).split("\n")[0] || "an error without words";
      // A graph that has broken WebAssembly's memory has broken it for all others, too.
      const ended = error instanceof WebAssembly.RuntimeError || /abort|out of memory/i.test(told);
      return { header: { error: told, ended } };
    }
  }

  async #open(number, graph) {
    const begun = performance.now();
    const session = await this.ort.InferenceSession.create(graph, this.options);
    this.open.set(number, { session, opened: performance.now() - begun });
    return { header: {} };
  }

  async #run(number, names, tensors) {
    const given = Object.fromEntries(Object.entries(tensors).map(([name, array]) => [name, toTensor(this.ort, array)]));
    const found = await this.open.get(number).session.run(given, names);
    return Object.fromEntries(names.map((name) => [name, fromTensor(found[name])]));
  }

  async #times(number, calls, tensors) {
    const { session, opened } = this.open.get(number);
    const given = Object.fromEntries(Object.entries(tensors).map(([name, array]) => [name, toTensor(this.ort, array)]));
    const took = [];
    for (let call = 0; call <= calls; call += 1) {
      const begun = performance.now();
      await session.run(given);
      took.push(performance.now() - begun);
    }
    const [first, ...rest] = took.map((milliseconds) => milliseconds / 1000);
    return { first: opened / 1000 + first, calls: rest, memory_mb: this.memory() };
  }
}
