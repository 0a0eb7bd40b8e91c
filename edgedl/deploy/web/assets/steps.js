// A model that carries a state, a piece at a time: what runtime/stream.py and runtime/lines.py do.

import { count, typed } from "./arrays.js";
import { Refused } from "./refused.js";
import { asArray, asLists, checkInputs } from "./values.js";

export class Carried {
  /** @param {object} models @param {string} model */
  constructor(models, model) {
    this.models = models;
    this.model = model;
    this.spec = models.spec(model);
    this.carried = new Set(this.spec.state.map(({ input }) => input));
    this.state = {};
  }

  /** The outputs of a piece without those of the state. A piece that is refused leaves the state as it was. */
  async step(inputs) {
    const feeds = { ...inputs, ...begun(this.spec, inputs), ...this.state };
    checkInputs(this.spec, feeds);
    const answers = await this.models.run(this.model, feeds);
    const left = {};
    for (const { input, output } of this.spec.state) {
      left[input] = answers[output];
      delete answers[output];
      if (left[input].dtype.startsWith("float") && left[input].data.some(Number.isNaN)) {
        throw new Refused(`This step would leave NaN in the state ${input}, and so in every later answer.`);
      }
    }
    this.state = left;
    return answers;
  }

  /** Steps as lists of numbers, or by name; each of one row. @returns {Promise<object[]>} the outputs of each by name */
  async lines(steps) {
    const before = this.state;
    try {
      const pieces = steps.map((step) => this.#piece(step));
      const results = [];
      for (const piece of pieces) results.push(this.#told(await this.step(piece)));
      return results;
    } catch (error) {
      this.state = before;
      throw error;
    }
  }

  #piece(step) {
    const specs = this.spec.inputs.filter(({ name }) => !this.carried.has(name));
    const named = Array.isArray(step) && specs.length === 1 ? { [specs[0].name]: step } : step;
    if (Array.isArray(named) || Object.keys(named).sort().join() !== specs.map(({ name }) => name).sort().join()) {
      throw new Refused(`A step has the inputs ${specs.map(({ name }) => name).join(", ")}.`);
    }
    return Object.fromEntries(
      specs.map((spec) => {
        const shape = spec.shape.map((size) => (typeof size === "number" ? size : 1));
        const array = asArray(spec, named[spec.name]);
        if (array.data.length !== count(shape)) throw new Refused(`${spec.name}: a step has ${count(shape)} numbers, this one has ${array.data.length}.`);
        return [spec.name, { ...array, shape }];
      }),
    );
  }

  /** Without the axes of batch and time. */
  #told(answers) {
    return Object.fromEntries(
      Object.entries(answers).map(([name, array]) => {
        const declared = this.spec.outputs.find((tensor) => tensor.name === name).shape;
        return [name, asLists({ ...array, shape: array.shape.filter((size, axis) => typeof declared[axis] === "number" || size !== 1) })];
      }),
    );
  }
}

/** The state before the first step: zeros in the sizes of the inputs. */
export function begun(spec, inputs) {
  const sizes = {};
  for (const { name, shape } of spec.inputs) inputs[name]?.shape.forEach((size, axis) => (sizes[shape[axis]] ??= size));
  const zeros = spec.state.map(({ input, shape, dtype }) => {
    const whole = shape.map((size) => (typeof size === "number" ? size : (sizes[size] ?? 1)));
    return [input, { dtype, shape: whole, data: typed(dtype, count(whole)) }];
  });
  return Object.fromEntries(zeros.filter(([name]) => !(name in inputs)));
}
