// A distribution over whole numbers as bars, with its mean and its interval.

import { element, svg } from "./element.js";

const HEIGHT = 232;
const MARGIN = { left: 44, right: 12, top: 46, bottom: 42 };
const TAIL = 0.003; // of the probability may lie outside of what is shown, at either end
const SHORTEST_AXIS = 40;

function niceStep(span, count) {
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= raw);
}

function ticks(low, high, count) {
  const step = niceStep(high - low, count);
  const values = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) values.push(value);
  return values;
}

/** The stretch of the axis that shows nearly all of the probability, in whole tens, so that it seldom jumps. */
function visibleRange(values, probabilities) {
  let sum = 0;
  let [from, to] = [values[0], values.at(-1)];
  values.forEach((value, index) => {
    if (sum <= TAIL) from = value;
    if (sum < 1 - TAIL) to = value;
    sum += probabilities[index];
  });
  const [least, most] = [Math.floor(values[0]), Math.ceil(values.at(-1))];
  from = Math.max(least, Math.floor((from - 3) / 10) * 10);
  to = Math.min(most, Math.ceil((to + 3) / 10) * 10);
  const missing = Math.min(SHORTEST_AXIS, most - least) - (to - from);
  if (missing > 0) {
    from = Math.max(least, from - Math.ceil(missing / 20) * 10);
    to = Math.min(most, Math.max(to, from + Math.min(SHORTEST_AXIS, most - least)));
    from = Math.min(from, Math.max(least, to - SHORTEST_AXIS));
  }
  return [from, to];
}

/** An interval in words: whole numbers, or a decimal where whole ones would hide it. */
export function interval(low, high, between = "–") {
  const digits = high - low < 3 ? 1 : 0;
  return `${low.toFixed(digits)}${between}${high.toFixed(digits)}`;
}

const inPercent = (share) => `${Math.round(share * 100)} %`;

/** Keep a label that is centred on `x` inside the drawing. */
function inside(x, text, width, size = 6.6) {
  const half = (text.length * size) / 2;
  return Math.min(Math.max(x, half), width - half);
}

export class DistributionChart {
  /** @param {{quantity: string, unit: string}} names such as Age and years */
  constructor({ quantity, unit }) {
    this.names = { quantity, unit };
    this.pointed = null;
    this.label = `Probability of each ${quantity.toLowerCase()}`;
    this.drawing = svg("svg", { class: "chart", tabindex: "0", role: "slider", "aria-label": this.label, height: HEIGHT });
    this.readout = element("p", { class: "readout" });
    this.element = element("div", {}, this.drawing, this.readout);
    this.drawing.addEventListener("pointermove", (event) => this.#point(this.#at(event)));
    this.drawing.addEventListener("pointerleave", () => this.#point(null));
    this.drawing.addEventListener("blur", () => this.#point(null));
    this.drawing.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  /**
   * @param {{values: number[], probabilities: number[], mean: number, low: number, high: number, level: number | null}}
   *   distribution the values in rising order, their probabilities, the ends of the interval, and the share of the true
   *   values that it holds; null where it was not calibrated
   */
  show(distribution) {
    this.distribution = distribution;
    this.range = visibleRange(distribution.values, distribution.probabilities);
    this.#draw();
  }

  #at(event) {
    const { values } = this.distribution;
    const box = this.drawing.getBoundingClientRect();
    const share = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
    const value = this.range[0] - 0.5 + share * (this.range[1] - this.range[0] + 1);
    const nearest = values.reduce((best, other, index) => (Math.abs(other - value) < Math.abs(values[best] - value) ? index : best), 0);
    return share < 0 || share > 1 ? null : nearest;
  }

  #key(event) {
    const { values, mean } = this.distribution;
    const [first, end] = this.range.map((edge) => values.reduce((best, value, index) => (Math.abs(value - edge) < Math.abs(values[best] - edge) ? index : best), 0));
    const now = this.pointed ?? values.findIndex((value) => value >= mean);
    const next = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, PageDown: now - 10, PageUp: now + 10, Home: first, End: end }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.#point(Math.min(Math.max(next, first), end));
  }

  #point(index) {
    this.pointed = index;
    this.#draw();
  }

  #draw() {
    const width = this.element.clientWidth;
    if (!this.distribution || !width) return;
    const { values, probabilities, mean, low, high, level } = this.distribution;
    const { quantity, unit } = this.names;
    const [from, to] = this.range;
    const first = from - 0.5;
    const last = to + 0.5;
    const peak = Math.max(...probabilities, 1e-9);
    const bottom = HEIGHT - MARGIN.bottom;
    const x = (value) => MARGIN.left + ((value - first) / (last - first)) * (width - MARGIN.left - MARGIN.right);
    const y = (probability) => bottom - (probability / peak) * (bottom - MARGIN.top);
    const text = (content, attributes) => svg("text", attributes, content);
    const parts = [svg("rect", { class: "band", x: x(low), y: MARGIN.top - 8, width: Math.max(1, x(high) - x(low)), height: bottom - MARGIN.top + 8 })];

    const percents = ticks(0, peak * 100, 4);
    const digits = Math.max(0, ...percents.map((value) => (String(Number(value.toFixed(6))).split(".")[1] ?? "").length));
    for (const percent of percents) {
      const height = y(percent / 100);
      parts.push(svg("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: height, y2: height }));
      parts.push(text(`${percent.toFixed(digits)} %`, { x: MARGIN.left - 7, y: height + 4, "text-anchor": "end" }));
    }
    const slot = x(1) - x(0);
    const gap = slot > 9 ? 2 : slot > 5 ? 1 : slot > 3 ? 0.6 : 0;
    values.forEach((value, index) => {
      if (value < first || value > last) return;
      const top = y(probabilities[index]);
      const kind = index === this.pointed ? "pointed" : value >= low - 0.5 && value <= high + 0.5 ? "inside" : "outside";
      parts.push(svg("rect", { class: kind, x: x(value - 0.5) + gap / 2, y: top, width: Math.max(0.5, slot - gap), height: Math.max(0, bottom - top) }));
    });
    for (const value of ticks(from, to, Math.max(3, Math.floor(width / 62)))) {
      parts.push(svg("line", { class: "axis", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4 }));
      parts.push(text(String(value), { x: x(value), y: bottom + 17, "text-anchor": "middle" }));
    }
    parts.push(text(`${quantity} (${unit})`, { x: (MARGIN.left + width - MARGIN.right) / 2, y: HEIGHT - 4, "text-anchor": "middle" }));

    const bracket = MARGIN.top - 12;
    parts.push(svg("path", { class: "bracket", d: `M${x(low)} ${bracket + 5}V${bracket}H${x(high)}V${bracket + 5}` }));
    const meanText = `mean ${mean.toFixed(1)}`;
    const rangeText = `${level === null ? "not calibrated" : inPercent(level)}: ${interval(low, high)}`;
    parts.push(svg("line", { class: "mean", x1: x(mean), x2: x(mean), y1: bracket, y2: bottom }));
    parts.push(text(meanText, { class: "strong", x: inside(x(mean), meanText, width), y: 11, "text-anchor": "middle" }));
    parts.push(text(rangeText, { x: inside((x(low) + x(high)) / 2, rangeText, width), y: 28, "text-anchor": "middle" }));

    this.drawing.setAttribute("width", width);
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.drawing.replaceChildren(...parts);
    this.#tell();
  }

  #tell() {
    const { values, probabilities, mean, low, high, level } = this.distribution;
    const { unit } = this.names;
    const index = this.pointed;
    const one = index === null ? "" : `${values[index]} ${unit}: ${(probabilities[index] * 100).toFixed(1)} %`;
    const whole = `from ${interval(low, high, " to ")}`;
    this.readout.textContent =
      one || (level === null ? `The network's range, not calibrated, is ${whole}.` : `The range that holds ${inPercent(level)} of the true values is ${whole}.`);
    this.drawing.setAttribute("aria-label", `${this.label}, mean ${mean.toFixed(1)} ${unit}`);
    this.drawing.setAttribute("aria-valuemin", values[0]);
    this.drawing.setAttribute("aria-valuemax", values.at(-1));
    this.drawing.setAttribute("aria-valuenow", index === null ? Math.round(mean) : values[index]);
    this.drawing.setAttribute("aria-valuetext", one || this.readout.textContent);
  }
}
