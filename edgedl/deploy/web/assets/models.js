// The graphs of the bundle: loaded when they are first asked, in a worker of their own.

const FOLDER = new URL("../../bundle/", import.meta.url);

/** A file of the bundle. */
export async function file(name) {
  const response = await fetch(new URL(name, FOLDER));
  if (!response.ok) throw new Error(`${name} of the bundle cannot be loaded (${response.status})`);
  return response;
}

export class Models {
  /** @param {object} manifest of the bundle, with the models that the page uses */
  constructor(manifest) {
    this.manifest = manifest;
    this.worker = new Worker(new URL(`worker.js${location.search}`, import.meta.url), { type: "module" });
    this.waiting = new Map();
    this.opened = new Map();
    this.number = 0;
    this.runs = 0; // how many questions were answered
    this.worker.addEventListener("message", ({ data: { id, answer, problem } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (problem === undefined) resolve(answer);
      else reject(new Error(problem));
    });
    this.worker.addEventListener("error", (event) => {
      event.preventDefault();
      for (const { reject } of this.waiting.values()) reject(new Error(event.message || "the part that runs the network could not be loaded"));
      this.waiting.clear();
    });
  }

  spec(model) {
    return this.manifest.models[model];
  }

  /** The form of the graph that runs here. */
  variant(model) {
    const { variants } = this.spec(model);
    return variants.fp32 ? "fp32" : Object.keys(variants)[0];
  }

  /** @returns {Promise<{threads: number, version: string}>} what runs the graph */
  open(model) {
    if (!this.opened.has(model)) {
      const graph = new URL(this.spec(model).variants[this.variant(model)].file, FOLDER).href;
      const opening = this.#ask({ kind: "open", model, graph });
      opening.catch(() => this.opened.delete(model)); // it may go better the next time
      this.opened.set(model, opening);
    }
    return this.opened.get(model);
  }

  /**
   * Ask a graph.
   * @param {string} model @param {object} feeds arrays by name, see arrays.js
   * @returns {Promise<object>} its outputs by name
   */
  async run(model, feeds) {
    await this.open(model);
    const outputs = this.spec(model).outputs.map(({ name }) => name);
    const answers = await this.#ask({ kind: "run", model, feeds, outputs });
    this.runs += 1;
    return answers;
  }

  #ask(question) {
    const id = (this.number += 1);
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, ...question });
    });
  }
}
