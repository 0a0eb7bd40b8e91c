// The timer: steps go to a stream at a steady pace; a button is u1, a slider is u2, and the answer is drawn as it comes.

import { askExample, Failure } from "../api.js";
import { element } from "../element.js";
import { say } from "../messages.js";
import { pause } from "../pause.js";
import { StepStream } from "../steps.js";
import { Timeline } from "../timeline.js";

const PACES = [2, 5, 10, 20]; // steps a second
const PACE = 10;
const UP = 0.5; // the target while the timer runs
const THRESHOLD = 0.25; // an answer above it is up, as `edgedl evaluate` counts it
const [SHORTEST, LONGEST] = [120, 1200]; // steps that are seen at a time
const ROWS = 8; // pulses that are listed
const KEY = "1"; // presses u1
const SCRIPT = 100; // recorded steps that an example sends
const HONEST = `An answer above ${THRESHOLD} counts as up. A network can miss by a step, and longer pulses are harder.`;

/** A start and the steps that belong to it, up to the next start. */
class Pulse {
  constructor(u2, expected) {
    Object.assign(this, { u2, expected, steps: 0, seen: 0, exact: true, over: false });
  }

  add(up) {
    if (up !== this.steps < this.expected) this.exact = false;
    this.steps += 1;
    this.seen += up ? 1 : 0;
    this.over ||= this.steps > this.expected; // one step more shows that it is over
  }

  get verdict() {
    if (!this.exact) return "wrong";
    if (this.over) return "exact";
    return this.cut ? "cut short" : "running";
  }
}

class TimerView {
  constructor({ work, panel, bundle }) {
    this.bundle = bundle;
    this.scale = bundle.pipeline?.scale ?? null; // steps that u2 = 1 stands for; without it there is no target to know
    this.stream = null;
    this.running = false;
    this.stepping = false; // a step is under way: the next one waits for it
    this.closed = false;
    this.pending = false; // u1 was pressed and goes with the next step
    this.left = 0; // steps that the target stays up
    this.script = []; // u1 and u2 of recorded steps that are still to be sent,
    this.playing = false; // while there are any
    this.pulses = [];
    this.plot = new Timeline({
      window: Math.min(LONGEST, Math.max(SHORTEST, 3 * (this.scale ?? 0))),
      threshold: THRESHOLD,
      target: this.scale !== null,
    });
    this.#build(work, panel);
    this.#reflect();
  }

  close() {
    this.closed = true;
    this.running = false;
    this.#drop();
  }

  #build(work, panel) {
    const button = (text, press, attributes = {}) => {
      const made = element("button", { type: "button", ...attributes }, text);
      made.addEventListener("click", press);
      return made;
    };
    this.start = button("Start a pulse", () => this.#press(), { class: "primary", id: "pulse" });
    this.start.append(" ", element("small", {}, "u1"));
    this.slider = element("input", { type: "range", id: "duration", min: 1, max: 10, step: 1, value: 5 });
    this.slider.addEventListener("input", () => this.#reflect());
    this.duration = element("output", { for: "duration" });
    this.run = button("Run", () => (this.running ? this.#halt() : this.#run()), { id: "run" });
    this.one = button("One step", () => this.#single(), { id: "one" });
    this.example = button("Try an example", () => this.#example(), { id: "try-example", class: "example" });
    this.example.hidden = !this.bundle.example;
    this.pace = element("select", { id: "pace" }, ...PACES.map((rate) => element("option", { value: rate }, `${rate} steps a second`)));
    this.pace.value = String(PACE);
    this.rate = element("p", { class: "timing", id: "rate" });
    this.lost = {
      title: element("strong"),
      detail: element("p"),
      again: button("Open a new stream", () => this.#renew(), { id: "renew" }),
    };
    this.lost.box = element("div", { class: "message", role: "alert", id: "lost", hidden: "" }, this.lost.title, this.lost.detail, this.lost.again);
    const slider = element("div", { class: "field grow" }, element("label", { for: "duration" }, "Length of the next pulse (u2)"), this.slider, this.duration);
    const key = element("p", { class: "hint mouse" }, "In here the key ", element("kbd", {}, KEY), " starts a pulse, too.");
    const tools = element("div", { class: "tools" }, this.run, this.one, this.example, element("label", { class: "unseen", for: "pace" }, "Pace"), this.pace, this.rate);
    const card = element("div", { class: "card flush" }, this.plot.element, element("div", { class: "controls" }, this.start, slider, key), tools);
    card.addEventListener("keydown", (event) => {
      if (event.key !== KEY || event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.target === this.pace) return;
      event.preventDefault();
      this.#press();
    });
    work.append(this.lost.box, card);

    this.answer = element("b", {}, "–");
    this.state = element("span");
    this.todo = element("p", { class: "quiet" });
    this.count = element("p", { class: "quiet" });
    this.rows = element("tbody");
    const head = element("tr", {}, ...["u2", "expected", "up", ""].map((name) => element("th", { scope: "col" }, name)));
    head.lastChild.append(element("span", { class: "unseen" }, "verdict"));
    this.table = element("table", { class: "pulses" }, element("thead", {}, head), this.rows);
    panel.append(element("div", { class: "card" }, element("h2", {}, "Answer"), element("p", { class: "big" }, this.answer, this.state), this.todo, element("p", { class: "quiet" }, HONEST)));
    if (this.scale !== null) panel.append(element("div", { class: "card" }, element("h2", {}, "Pulses"), this.count, this.table));
  }

  /** Send the steps that were recorded in the bundle, from the first start on. */
  async #example() {
    try {
      const [steps] = Object.values((await askExample(this.bundle)).inputs);
      const numbers = steps[0].map(([u1, u2]) => [u1, Number(u2.toFixed(3))]); // not the digits that float32 adds
      this.script = numbers.slice(Math.max(0, numbers.findIndex(([u1]) => u1))).slice(0, SCRIPT);
      this.playing = true;
    } catch (error) {
      if (!this.closed) this.#lose(error);
      return;
    }
    if (!this.running && !this.closed) this.#run();
  }

  #press() {
    this.#endExample();
    this.pending = true;
    this.start.classList.add("pending");
    if (this.stream === null && !this.running && !this.stepping && this.lost.box.hidden) this.#run();
  }

  #endExample() {
    this.script = [];
    this.playing = false;
  }

  async #run() {
    this.running = true;
    this.#reflect();
    let cycle = null; // milliseconds, smoothed
    while (this.running && !this.closed && !(this.playing && !this.script.length)) {
      const began = performance.now();
      if (document.hidden) {
        await pause(250);
        continue;
      }
      await this.#step();
      await pause(1000 / Number(this.pace.value) - (performance.now() - began));
      const took = performance.now() - began;
      cycle = cycle === null ? took : 0.8 * cycle + 0.2 * took;
      if (this.running) this.rate.replaceChildren(element("b", {}, (1000 / cycle).toFixed(1)), " steps a second");
    }
    if (!this.running || this.closed) return;
    this.playing = false; // the example is over
    this.#halt();
  }

  #halt() {
    this.running = false;
    this.rate.replaceChildren();
    this.#reflect();
  }

  async #single() {
    await this.#step();
    this.#reflect();
  }

  /** Send one step and show its answer. There is never more than one under way. */
  async #step() {
    if (this.stepping) return;
    this.stepping = true;
    try {
      const begins = this.stream === null;
      if (begins) {
        const opened = await StepStream.open(this.bundle);
        if (this.closed) return opened.close();
        this.stream = opened;
        this.left = 0;
        this.u2 = this.#chosen();
      }
      const recorded = this.script[0];
      const u1 = recorded ? recorded[0] : this.pending ? 1 : 0;
      const u2 = recorded ? recorded[1] : u1 ? this.#chosen() : this.u2; // it stays what it was at the start, as in training
      const [result] = await this.stream.step([[u1, u2]]);
      if (this.closed) return;
      if (recorded === this.script[0]) this.script.shift();
      if (u1 && !recorded) this.pending = false;
      this.u2 = u2;
      this.#take(u1, u2, result.answer, begins);
    } catch (error) {
      if (!this.closed) this.#lose(error);
    } finally {
      this.stepping = false;
    }
  }

  #take(u1, u2, answer, begins) {
    if (typeof answer !== "number") throw new Failure("This is no timer", "A step's result has no number called answer.");
    if (begins) this.#cut();
    if (u1 && this.scale !== null) {
      this.#cut();
      this.left = Math.round(this.scale * u2);
      this.pulses.unshift(new Pulse(u2, this.left));
      this.pulses.splice(10 * ROWS);
    }
    const target = this.scale === null ? null : this.left > 0 ? UP : 0;
    this.left = Math.max(0, this.left - 1);
    const up = answer > THRESHOLD;
    const pulse = this.pulses[0];
    const before = pulse?.verdict;
    if (pulse && !pulse.cut) pulse.add(up);
    this.plot.add({ u1, u2, answer, target, begins });
    if (!this.pending) this.start.classList.remove("pending");
    this.answer.textContent = answer.toFixed(2).replace("-0.00", "0.00").replace("-", "−");
    this.state.textContent = up ? "up" : "down";
    this.todo.textContent = target === null ? "" : `Target ${target}; ${this.left ? `${steps(this.left)} to go` : "nothing to go"}.`;
    this.#list();
    if (pulse && pulse.verdict !== before && pulse.verdict !== "running") say(`A pulse of ${steps(pulse.expected)} was ${pulse.verdict}.`);
  }

  /** What belongs to the last pulse ends here. */
  #cut() {
    if (this.pulses.length) this.pulses[0].cut = true;
  }

  #list() {
    const settled = this.pulses.filter((pulse) => pulse.over || !pulse.exact);
    const exact = settled.filter((pulse) => pulse.exact).length;
    this.count.textContent = settled.length ? `${exact} of ${settled.length} exact: up on every step of theirs, and on no other.` : "None is over yet.";
    this.table.hidden = !this.pulses.length;
    this.rows.replaceChildren(
      ...this.pulses.slice(0, ROWS).map((pulse) => {
        const cells = [pulse.u2.toFixed(1), steps(pulse.expected), String(pulse.seen)].map((text) => element("td", {}, text));
        return element("tr", { class: pulse.verdict === "wrong" ? "wrong" : "" }, ...cells, element("td", {}, pulse.verdict));
      }),
    );
  }

  #lose(error) {
    this.#endExample();
    this.#halt();
    const failure = error instanceof Failure ? error : new Failure("The page failed", String(error?.message ?? error));
    this.lost.title.textContent = failure.title;
    this.lost.detail.textContent = failure.message;
    this.lost.box.hidden = false;
    this.#drop();
    this.#reflect();
  }

  /** A new stream knows nothing of what was before, so the plot breaks there. */
  #renew() {
    this.lost.box.hidden = true;
    this.#reflect();
    this.run.focus(); // the button that was pressed is gone
    this.#run();
  }

  #drop() {
    this.stream?.close();
    this.stream = null;
  }

  #chosen() {
    return Number(this.slider.value) / 10;
  }

  #reflect() {
    const u2 = this.#chosen();
    const words = this.scale === null ? u2.toFixed(1) : `${u2.toFixed(1)}, ${steps(Math.round(this.scale * u2))}`;
    this.duration.textContent = words;
    this.slider.setAttribute("aria-valuetext", words);
    this.run.textContent = this.running ? "Pause" : "Run";
    const lost = !this.lost.box.hidden;
    this.run.disabled = lost;
    this.one.disabled = lost || this.running;
    const held = document.activeElement === this.example;
    this.example.disabled = lost || this.playing;
    if (held && this.playing) this.run.focus(); // a disabled button holds no focus
    this.start.disabled = lost;
    if (!this.pulses.length) this.#list();
  }
}

function steps(count) {
  return count === 1 ? "1 step" : `${count} steps`;
}

export default {
  pictures: false,
  title: "A timer",
  lead: "Start a pulse: the network's answer has to go up and stay up for exactly as many steps as you chose. Nothing but its memory tells it when to stop.",
  notice: "The stream's state stays on this server while you are here, and goes when you leave.",
  create: (context) => new TimerView(context),
};
