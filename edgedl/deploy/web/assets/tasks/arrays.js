// A task that is only a graph: arrays in as nested lists, arrays out, and steps where it carries a state.

import { Refused } from "../refused.js";
import { begun, Carried } from "../steps.js";
import { asArray, asLists, checkInputs } from "../values.js";

export class Arrays {
  constructor(models) {
    this.models = models;
    [this.model] = Object.keys(models.manifest.models);
    this.spec = models.spec(this.model);
  }

  async ask({ inputs } = {}) {
    if (inputs === null || typeof inputs !== "object" || Array.isArray(inputs)) throw new Refused("The inputs are no object of nested lists by name.");
    const given = Object.fromEntries(
      Object.entries(inputs).map(([name, value]) => {
        const spec = this.spec.inputs.find((tensor) => tensor.name === name);
        if (!spec) throw new Refused(`There is no input ${name}; there are ${this.spec.inputs.map((one) => one.name).join(", ")}.`);
        return [name, asArray(spec, value)];
      }),
    );
    const feeds = { ...given, ...begun(this.spec, given) };
    checkInputs(this.spec, feeds);
    const answers = await this.models.run(this.model, feeds);
    return { outputs: Object.fromEntries(Object.entries(answers).map(([name, array]) => [name, asLists(array)])) };
  }

  stream() {
    return new Carried(this.models, this.model);
  }
}
