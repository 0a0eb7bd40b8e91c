// A task that is only a graph: arrays in as JSON, arrays out; and, where the graph carries a state, step by step.

import { askArrays, askExample, Failure } from "../api.js";
import { element } from "../element.js";
import { complain, reveal, say, settle } from "../messages.js";
import { StepStream } from "../steps.js";

const ROWS = new Set(["N", "B", "batch", "batch_size"]); // names of dimensions that an example has one of,
const LENGTH = 3; // and so many of any other
const KEPT = 200; // answers to steps that stay on the page

const shapeOf = ({ dtype, shape }) => `${dtype} [${shape.join(", ")}]`;

function zeros([size, ...rest], dtype) {
  const count = typeof size === "number" ? size : ROWS.has(size) ? 1 : LENGTH;
  const value = { bool: false, string: "" }[dtype] ?? 0;
  return Array.from({ length: count }, () => (rest.length ? zeros(rest, dtype) : value));
}

const blank = ({ shape, dtype }) => (shape.length ? zeros(shape, dtype) : ({ bool: false, string: "" }[dtype] ?? 0));

/** JSON with each innermost list on a line of its own. */
function written(value, indent = "") {
  const deeper = `${indent}  `;
  if (Array.isArray(value) && value.some(Array.isArray)) return `[\n${value.map((one) => deeper + written(one, deeper)).join(",\n")}\n${indent}]`;
  if (Array.isArray(value)) return `[${value.map((one) => JSON.stringify(one)).join(", ")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const lines = Object.entries(value).map(([name, one]) => `${deeper}${JSON.stringify(name)}: ${written(one, deeper)}`);
  return `{\n${lines.join(",\n")}\n${indent}}`;
}

/** With no more digits than float32 has. */
function rounded(value) {
  if (typeof value === "number") return Number.isInteger(value) ? value : Number(value.toPrecision(8));
  if (Array.isArray(value)) return value.map(rounded);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, rounded(one)]));
}

/** A step as people write it: numbers between blanks or commas, or JSON. */
function stepOf(line, number) {
  const text = line.trim();
  try {
    if (/^[[{]/.test(text)) return JSON.parse(text);
    const numbers = text.split(/[\s,]+/).map(Number);
    if (numbers.every(Number.isFinite)) return numbers;
  } catch {
    // said below
  }
  throw new Failure("That step cannot be read", `Line ${number} is “${text.slice(0, 60)}”; expected numbers, or JSON.`);
}

const HONEST = "The numbers as the graph gives them. What each means, and in which unit, stands below.";

class TensorsView {
  constructor({ work, panel, bundle, kept }) {
    Object.assign(this, { bundle, kept });
    const [model] = Object.values(bundle.models);
    const carried = new Set((model.state ?? []).map((state) => state.input));
    this.inputs = model.inputs.filter((tensor) => !carried.has(tensor.name));
    this.stream = null;
    this.busy = false;
    const hint = (id) => element("p", { class: "hint", id });
    this.below = { inputs: hint("inputs-hint"), steps: hint("steps-hint") }; // where it is said what is wrong
    work.append(this.#whole());
    if (bundle.streams) work.append(this.#stepwise());
    this.answer = element("pre", { tabindex: "0", id: "outputs", role: "region", "aria-label": "Outputs" }, "Nothing was asked yet.");
    this.time = element("p", { class: "quiet" });
    panel.append(element("div", { class: "card" }, element("h2", {}, "Answer"), this.time, this.answer, element("p", { class: "quiet" }, HONEST)), this.#signature(model));
  }

  close() {
    this.closed = true;
    this.kept.text = this.text.value;
    this.kept.lines = this.lines?.value;
    this.#drop();
  }

  #whole() {
    const fresh = written(Object.fromEntries(this.inputs.map((tensor) => [tensor.name, blank(tensor)])));
    this.text = element("textarea", { id: "inputs", rows: 8, spellcheck: "false", class: "code", "aria-describedby": "inputs-hint" });
    this.text.value = this.kept.text ?? fresh;
    const send = element("button", { type: "submit", id: "ask", class: "primary" }, "Ask");
    const again = element("button", { type: "button", id: "try-example", class: "example" }, this.bundle.example ? "Try an example" : "Zeros");
    again.addEventListener("click", () => this.#do(() => this.#example(fresh), this.below.inputs));
    this.below.inputs.textContent = this.bundle.streams ? "Nested lists by the inputs' names. What the network carries begins with zeros." : "Nested lists by the inputs' names.";
    const form = element(
      "form",
      { class: "card flush" },
      element("div", { class: "padded" }, element("label", { for: "inputs" }, "Inputs"), this.text, this.below.inputs),
      element("div", { class: "tools" }, send, again),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#do(() => this.#ask(), this.below.inputs);
    });
    return form;
  }

  #stepwise() {
    const line = this.inputs.length === 1 ? blank(this.inputs[0]).flat(9).join(" ").split(" ").slice(0, this.#width()).join(" ") : "{}";
    this.lines = element("textarea", { id: "steps", rows: 4, spellcheck: "false", class: "code", "aria-describedby": "steps-hint" });
    this.lines.value = this.kept.lines ?? line;
    const send = element("button", { type: "submit", id: "send" }, "Send steps");
    this.anew = element("button", { type: "button", id: "anew" }, "Begin anew");
    this.anew.addEventListener("click", () => {
      this.#drop();
      this.answers = [];
      this.answer.textContent = "The next step is the first of a new stream.";
      this.time.textContent = "";
    });
    this.answers = [];
    this.below.steps.textContent = "A line for each step, numbers between blanks, or JSON. The state is kept from step to step.";
    const form = element(
      "form",
      { class: "card flush" },
      element("div", { class: "padded" }, element("label", { for: "steps" }, "Step by step"), this.lines, this.below.steps),
      element("div", { class: "tools" }, send, this.anew),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#do(() => this.#step(), this.below.steps);
    });
    return form;
  }

  /** Numbers in a step of the only input: every axis with a name has one entry. */
  #width() {
    return this.inputs[0].shape.reduce((count, size) => count * (typeof size === "number" ? size : 1), 1);
  }

  #signature(model) {
    const row = (tensor) =>
      element("li", {}, element("b", {}, tensor.name), " ", element("code", {}, shapeOf(tensor)), tensor.meaning || tensor.unit ? ` ${tensor.meaning || tensor.unit}` : "");
    const list = (tensors) => element("ul", { class: "signature", role: "list" }, ...tensors.map(row));
    return element("div", { class: "card" }, element("h2", {}, "Takes"), list(model.inputs), element("h2", {}, "Gives"), list(model.outputs));
  }

  /** One question at a time. What goes wrong is said below `near`. */
  async #do(work, near) {
    if (this.busy) return;
    this.busy = true;
    settle();
    try {
      await work();
    } catch (error) {
      if (!this.closed) complain(error, near);
    } finally {
      this.busy = false;
    }
  }

  /** The inputs that were recorded in the bundle, and what it answers to them; zeros where nothing was recorded. */
  async #example(fresh) {
    if (!this.bundle.example) {
      this.text.value = fresh;
      return;
    }
    const { inputs } = await askExample(this.bundle);
    if (this.closed) return;
    this.text.value = written(inputs);
    await this.#ask();
  }

  async #ask() {
    let inputs;
    try {
      inputs = JSON.parse(this.text.value);
    } catch (error) {
      throw new Failure("That is not JSON", error.message);
    }
    const { outputs, milliseconds } = await askArrays(this.bundle, inputs);
    if (this.closed) return;
    this.answer.textContent = written(rounded(outputs));
    this.time.textContent = `${milliseconds.toFixed(0)} ms`;
    say("The answer is shown.");
    reveal(this.answer);
  }

  async #step() {
    const lines = this.lines.value.split("\n").filter((line) => line.trim());
    if (!lines.length) throw new Failure("There is no step", "Write a line of numbers for each.");
    const steps = lines.map((line, index) => stepOf(line, index + 1));
    const start = performance.now();
    if (this.stream === null) {
      const opened = await StepStream.open(this.bundle);
      if (this.closed) return opened.close();
      this.stream = opened;
      this.answers = [];
    }
    let results;
    try {
      results = await this.stream.step(steps);
    } catch (error) {
      if (error.status === 410) this.stream = null; // the next step opens another one
      throw error;
    }
    if (this.closed) return;
    this.answers.push(...results);
    this.answers.splice(0, this.answers.length - KEPT);
    this.answer.textContent = this.answers.map((one) => JSON.stringify(rounded(one))).join("\n");
    this.answer.scrollTop = this.answer.scrollHeight;
    this.time.textContent = `${(performance.now() - start).toFixed(0)} ms`;
    say("The answers are shown.");
    reveal(this.answer);
  }

  #drop() {
    this.stream?.close();
    this.stream = null;
  }
}

export default {
  pictures: false,
  title: "Numbers in, numbers out",
  lead: "There is no picture or plot for this task. Give numbers in the form below, and the network answers with numbers.",
  notice: "What is sent goes to this server only and is not kept.",
  create: (context) => new TensorsView(context),
};
