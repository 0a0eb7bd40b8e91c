// u1, u2, target and answer over time, in three lanes, as the figure of docs/timer.md has them.

import { element, svg } from "./element.js";

const MARGIN = { left: 46, right: 10, top: 20, bottom: 40 };
const LANES = {
  u1: { top: 0, height: 34, low: 0, high: 1, ticks: [0, 1], title: "u1, a start" },
  u2: { top: 62, height: 54, low: 0, high: 1, ticks: [0, 0.5, 1], title: "u2, the duration over the scale" },
  answer: { top: 144, height: 132, low: -0.1, high: 0.65, ticks: [0, 0.25, 0.5], title: "answer" },
};
const HEIGHT = MARGIN.top + LANES.answer.top + LANES.answer.height + MARGIN.bottom;
const DOTS = 5; // pixels between two steps from which each step has a dot of its own

function tickStep(span, room) {
  const raw = span / Math.max(2, Math.floor(room / 64));
  const power = 10 ** Math.floor(Math.log10(raw));
  return Math.max(1, [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= raw));
}

export class Timeline {
  /**
   * @param {{window: number, threshold: number, target: boolean}} settings how many steps are seen at a time, above
   *   what an answer is up, and whether the target is known
   */
  constructor({ window, threshold, target }) {
    Object.assign(this, { window, threshold, target });
    this.steps = []; // {u1, u2, answer, target, begins}, the last ones
    this.first = 0; // the number of the oldest of them
    this.drawing = svg("svg", { class: "chart timeline", role: "img", "aria-label": this.#words([]), height: HEIGHT });
    this.box = element("div", {}, this.drawing);
    this.element = element("div", { class: "plot" }, this.box);
    // Whoever asked for less motion gets pages that fill up, not a paper that moves under the pen.
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  /** @param {{u1: number, u2: number, answer: number, target: number|null, begins: boolean}} step `begins` a stream */
  add(step) {
    this.steps.push(step);
    if (this.steps.length > 2 * this.window) this.first += this.steps.splice(0, this.window).length;
    this.draw();
  }

  clear() {
    this.steps = [];
    this.first = 0;
    this.draw();
  }

  get count() {
    return this.first + this.steps.length;
  }

  draw() {
    const width = this.box.clientWidth;
    if (width <= MARGIN.left + MARGIN.right) return; // it is not seen
    const { window: span } = this;
    const from = this.calm.matches ? Math.floor(Math.max(0, this.count - 1) / span) * span : Math.max(0, this.count - span);
    const shown = this.steps.slice(Math.max(0, from - this.first));
    const room = width - MARGIN.left - MARGIN.right;
    const x = (step) => MARGIN.left + ((step - from) / span) * room; // a step is as wide as its share
    const parts = [...this.#axes(from, x, width), ...this.#targets(shown, from, x), ...this.#traces(shown, from, x)];
    this.drawing.setAttribute("width", width);
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.drawing.setAttribute("data-steps", shown.length);
    this.drawing.setAttribute("aria-label", this.#words(shown));
    this.drawing.replaceChildren(...parts);
  }

  #y(lane, value) {
    const { top, height, low, high } = LANES[lane];
    const share = (Math.min(Math.max(value, low), high) - low) / (high - low);
    return Number((MARGIN.top + top + height * (1 - share)).toFixed(1));
  }

  #axes(from, x, width) {
    const parts = [];
    const end = width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    const step = tickStep(this.window, end - MARGIN.left);
    for (let tick = Math.ceil(from / step) * step; tick <= from + this.window; tick += step) {
      parts.push(svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: MARGIN.top, y2: bottom }));
      parts.push(svg("text", { x: Math.min(x(tick), end - 8), y: bottom + 16, "text-anchor": "middle" }, String(tick)));
    }
    for (const [lane, { top, low, ticks, title }] of Object.entries(LANES)) {
      for (const tick of ticks) {
        parts.push(svg("line", { class: "axis", x1: MARGIN.left, x2: end, y1: this.#y(lane, tick), y2: this.#y(lane, tick) }));
        const label = String(tick);
        parts.push(svg("text", { x: MARGIN.left - 7, y: this.#y(lane, tick) + 4, "text-anchor": "end" }, label));
      }
      if (low < 0) parts.push(svg("line", { class: "axis", x1: MARGIN.left, x2: end, y1: bottom, y2: bottom }));
      parts.push(svg("text", { class: `title ${lane}`, x: MARGIN.left, y: MARGIN.top + top - 8 }, title));
    }
    const level = this.#y("answer", this.threshold);
    parts.push(svg("line", { class: "threshold", x1: MARGIN.left, x2: end, y1: level, y2: level }));
    parts.push(this.#legend(end));
    parts.push(svg("text", { x: (MARGIN.left + end) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "time (steps)"));
    return parts;
  }

  #legend(end) {
    const y = MARGIN.top + LANES.answer.top - 8;
    const group = svg("g", {});
    if (!this.target) return group;
    group.append(svg("rect", { class: "wanted", x: end - 58, y: y - 9, width: 14, height: 9 }));
    group.append(svg("text", { x: end, y, "text-anchor": "end" }, "target"));
    return group;
  }

  #traces(shown, from, x) {
    const parts = [];
    const wide = x(1) - x(0);
    const base = this.#y("u1", 0);
    let [level, answer] = ["", ""];
    const dots = [];
    shown.forEach(({ u1, u2, answer: value, begins }, index) => {
      const number = from + index;
      const [left, middle, right] = [x(number), x(number + 0.5), x(number + 1)].map((place) => place.toFixed(1));
      if (begins && index) {
        parts.push(svg("line", { class: "began", x1: left, x2: left, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
      }
      if (u1) {
        const top = this.#y("u1", 1);
        parts.push(svg("line", { class: "trace u1", x1: middle, x2: middle, y1: base, y2: top }));
        parts.push(svg("circle", { class: "dot u1", cx: middle, cy: top, r: 3.5 }));
      }
      const height = this.#y("u2", u2);
      level += `${level && !begins ? "L" : "M"}${left} ${height}H${right}`;
      const place = `${middle} ${this.#y("answer", value)}`;
      answer += `${answer && !begins ? "L" : "M"}${place}`;
      if (wide >= DOTS) dots.push(svg("circle", { class: "dot answer", cx: middle, cy: this.#y("answer", value), r: 2 }));
    });
    parts.push(svg("path", { class: "trace u2", d: level }), svg("path", { class: "trace answer", d: answer }), ...dots);
    return parts;
  }

  /** One block for each stretch that is up; blocks side by side would show their seams. */
  #targets(shown, from, x) {
    const stretches = [];
    shown.forEach(({ target, begins }, index) => {
      if (!target) return;
      const last = stretches.at(-1);
      if (last?.end === index && !begins) last.end += 1;
      else stretches.push({ start: index, end: index + 1, target });
    });
    return stretches.map(({ start, end, target }) => {
      const [left, right, top] = [x(from + start), x(from + end), this.#y("answer", target)];
      return svg("rect", { class: "wanted", x: left.toFixed(1), y: top, width: (right - left).toFixed(1), height: this.#y("answer", 0) - top });
    });
  }

  #words(shown) {
    if (!shown.length) return "u1, u2 and the answer over time; no step yet";
    const { u2, answer } = shown.at(-1);
    return `u1, u2 and the answer over the last ${shown.length} steps; now u2 is ${u2} and the answer ${answer.toFixed(2)}`;
  }
}
