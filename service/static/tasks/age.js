// Age: a box and a number on each face, and how sure the network is of the chosen one.

import { DistributionChart, interval } from "../chart.js";
import { element } from "../element.js";

const SAME_FACE = 0.3; // overlap from which a face of two camera pictures is taken for the same one

function area([x1, y1, x2, y2]) {
  return Math.max(0, x2 - x1) * Math.max(0, y2 - y1);
}

function overlap(a, b) {
  const shared = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  return shared / (area(a) + area(b) - shared || 1);
}

const years = (value) => value.toFixed(0);

const HONEST = "An estimate from the look of a face, not a fact about a person.";

class Faces {
  constructor({ panel, stage, bundle }) {
    Object.assign(this, { panel, stage });
    this.values = bundle.pipeline?.years ?? null;
    this.faces = [];
    this.promise = null;
    this.chosen = null;
    this.next = 1;
    this.rows = new Map();
    this.heading = element("h2");
    this.hint = element("p", { class: "quiet" });
    this.list = element("ul", { class: "faces", role: "list" });
    this.honest = element("p", { class: "quiet" });
    this.chart = new DistributionChart({ quantity: "Age", unit: "years" });
    this.name = element("h2");
    this.mean = element("b");
    this.detail = element("div", { class: "card detail" }, this.name, element("p", { class: "big" }, this.mean, element("span", {}, "years")), this.chart.element);
    this.summary = element("div", { class: "card" }, this.heading, this.hint, this.list, this.honest);
    stage.onselect = (id) => this.choose(id);
  }

  /** @returns {string} the answer in words, for those who do not see it */
  show({ faces, interval: promise }, live) {
    this.promise = promise ?? null;
    this.#follow(faces);
    this.stage.setRegions(
      this.faces.map((face) => ({
        id: face.id,
        box: face.box,
        label: `${years(face.age)} (${interval(face.low, face.high)})`,
        short: years(face.age),
        description: `Face ${face.id}: ${years(face.age)} years, between ${interval(face.low, face.high, " and ")}`,
      })),
    );
    this.#listFaces();
    if (!this.faces.some((face) => face.id === this.chosen)) {
      const largest = this.faces.reduce((best, face) => (best && area(best.box) >= area(face.box) ? best : face), null);
      this.chosen = largest?.id ?? null;
    }
    this.#showChosen();
    const parts = this.chosen === null || !this.#face().probabilities ? [this.summary] : [this.summary, this.detail];
    if (parts.length !== this.panel.children.length || parts[0] !== this.panel.firstChild) this.panel.replaceChildren(...parts);
    if (live) return "";
    const ages = this.faces.map((face) => `${years(face.age)} (${interval(face.low, face.high, " to ")})`).join(", ");
    return this.faces.length ? `${this.heading.textContent}, aged about ${ages}.` : "No face was found.";
  }

  choose(id) {
    this.chosen = id;
    this.#showChosen();
  }

  clear() {
    this.faces = [];
    this.rows.clear();
    this.list.replaceChildren();
    this.chosen = null;
    this.next = 1;
    this.panel.replaceChildren();
  }

  #face() {
    return this.faces.find((face) => face.id === this.chosen);
  }

  /** Give each face the number it had in the picture before, so that a chosen face stays chosen. */
  #follow(found) {
    const before = [...this.faces];
    this.faces = found
      .map((face) => {
        const best = before.reduce((kept, other) => (overlap(other.box, face.box) > (kept ? overlap(kept.box, face.box) : SAME_FACE) ? other : kept), null);
        if (best) before.splice(before.indexOf(best), 1);
        return { ...face, id: best?.id ?? null };
      })
      .sort((a, b) => a.box[0] - b.box[0]);
    for (const face of this.faces) face.id ??= this.next++;
    this.faces.sort((a, b) => a.id - b.id);
  }

  #listFaces() {
    const count = this.faces.length;
    this.heading.textContent = count === 0 ? "No face was found" : count === 1 ? "1 face" : `${count} faces`;
    this.hint.textContent = count === 0 ? "Try a photo with a larger or less turned face." : count === 1 ? "" : "Choose one here or in the picture.";
    this.hint.hidden = !this.hint.textContent;
    this.list.hidden = this.honest.hidden = count === 0;
    const oldest = this.values?.at(-1);
    const ends = this.faces.some((face) => face.high >= oldest) ? ` It knows no age above ${oldest} years.` : "";
    this.honest.textContent = [HONEST, this.promise?.note].filter(Boolean).join(" ") + ends;
    const ids = new Set(this.faces.map((face) => face.id));
    for (const [id, row] of this.rows) {
      if (!ids.has(id)) {
        row.item.remove();
        this.rows.delete(id);
      }
    }
    for (const face of this.faces) {
      const row = this.rows.get(face.id) ?? this.#addRow(face);
      row.years.replaceChildren(years(face.age), " ", element("small", {}, "years"));
      row.range.textContent = `between ${interval(face.low, face.high, " and ")}`;
    }
  }

  #addRow(face) {
    const thumbnail = element("canvas", { "aria-hidden": "true" });
    this.stage.thumbnail(thumbnail, face.box);
    const row = { years: element("span", { class: "years" }), range: element("span", { class: "range" }) };
    row.button = element("button", { type: "button" }, thumbnail, row.years, row.range);
    row.button.addEventListener("click", () => this.choose(face.id));
    row.item = element("li", {}, row.button);
    this.rows.set(face.id, row);
    this.list.append(row.item);
    return row;
  }

  #showChosen() {
    this.stage.mark(this.chosen);
    for (const [id, row] of this.rows) row.button.setAttribute("aria-pressed", String(id === this.chosen));
    const face = this.#face();
    if (!face?.probabilities) return;
    this.name.textContent = `Face ${face.id}`;
    this.mean.textContent = face.age.toFixed(1);
    const values = this.values ?? face.probabilities.map((_, index) => index);
    this.chart.show({ values, probabilities: face.probabilities, mean: face.age, low: face.low, high: face.high, level: this.promise?.level ?? null });
  }
}

export default {
  pictures: true,
  title: "How old do they look?",
  lead: "Every face in a photo is found and its age estimated, together with how sure the network is.",
  options: { distribution: "1" },
  create: (context) => new Faces(context),
};
