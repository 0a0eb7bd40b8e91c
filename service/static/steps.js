// A stream of steps: its state stays with the server, and steps are posted to it one after the other.

import { address, ask, jsonRequest } from "./api.js";
import { fetchWithKey } from "./key.js";

export class StepStream {
  constructor(bundle, name) {
    this.bundle = bundle;
    this.name = name;
  }

  /** @param {object} bundle one that has `streams` */
  static async open(bundle) {
    const { document } = await ask(address(bundle, "streams"), { method: "POST" }, "stream");
    return new StepStream(bundle, document.stream);
  }

  /**
   * Answer steps.
   * @param {Array} steps each a list of numbers, or an object with those of each input
   * @returns {Promise<object[]>} the outputs of each by name
   */
  async step(steps) {
    const { document } = await ask(this.#address(), jsonRequest({ steps }), "step");
    return document.results;
  }

  /** Give it back to the server, also while the page is being left. Nobody waits for it: an unused one expires. */
  close() {
    fetchWithKey(this.#address(), { method: "DELETE", keepalive: true }).catch(() => {});
  }

  #address() {
    return address(this.bundle, "streams", this.name);
  }
}
