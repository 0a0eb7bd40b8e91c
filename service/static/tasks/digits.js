// Digits: a pad to draw one on, what is read in it as it is drawn, and, of a net that can, a digit that it draws itself.

import { askExample, drawDigit, Failure, pictureOf, predict } from "../api.js";
import { element } from "../element.js";
import { complain, say, settle } from "../messages.js";
import { Pad } from "../pad.js";
import { pause } from "../pause.js";

const QUIET = 120; // milliseconds between two questions while one draws
const ZOOM = 20; // pixels of the screen for one of a drawing

const percent = (share) => `${(100 * share).toFixed(share > 0.0995 && share < 0.9995 ? 0 : 1)} %`;

class DigitsView {
  constructor({ work, panel, bundle }) {
    this.bundle = bundle;
    this.turn = 0; // rises when the sheet is cleared or left: late answers are dropped
    this.changed = false; // there is ink that was not asked about yet
    this.asking = false;
    this.resting = false; // the pen is up: what is read now is told
    this.seed = 0; // of the next drawing
    this.#build(work, panel);
    this.#show(null);
  }

  close() {
    this.turn += 1;
    this.changed = false;
    this.closed = true;
  }

  #build(work, panel) {
    this.pad = new Pad({
      onchange: () => {
        this.resting = false;
        this.#ask();
      },
      onrest: () => {
        this.resting = true;
        this.#ask();
      },
    });
    const clear = element("button", { type: "button", id: "clear" }, "Clear");
    clear.addEventListener("click", () => this.#clear());
    const example = element("button", { type: "button", id: "try-example", class: "example" }, "Try an example");
    example.hidden = !this.bundle.example;
    example.addEventListener("click", () => this.#example());
    this.time = element("p", { class: "timing", id: "timing-digits" });
    this.tools = element("div", { class: "tools" }, clear, example, this.time);
    const keys = element(
      "p",
      { class: "hint mouse", id: "pad-keys" },
      "With a mouse, a finger or a pen. By keyboard: the arrows move the pen, ",
      element("kbd", {}, "Space"),
      " sets it down and lifts it.",
    );
    work.append(element("div", { class: "card flush" }, element("div", { class: "desk" }, this.pad.element, keys), this.tools));

    this.best = element("b");
    this.sure = element("span");
    this.bars = Array.from({ length: 10 }, () => ({ bar: element("span", { class: "bar-of" }), value: element("span", { class: "value" }) }));
    const rows = this.bars.map(({ bar, value }, digit) => element("li", {}, element("span", { class: "digit" }, String(digit)), element("span", { class: "rail", "aria-hidden": "true" }, bar), value));
    this.list = element("ol", { class: "chances", role: "list", start: 0, "aria-label": "Probability of each digit" }, ...rows);
    const honest = element("p", { class: "quiet" }, "It has to choose one of ten, even if the sheet shows none of them.");
    panel.append(element("div", { class: "card" }, element("h2", {}, "It reads"), element("p", { class: "big" }, this.best, this.sure), this.list, honest));
    if (this.bundle.drawings) panel.append(this.#studio());
  }

  /** What a deep belief net draws on its way down. */
  #studio() {
    const buttons = Array.from({ length: 10 }, (_, digit) => {
      const button = element("button", { type: "button", "aria-label": `Draw a ${digit}` }, String(digit));
      button.addEventListener("click", () => this.#draw(digit));
      return button;
    });
    this.drawing = element("canvas", { class: "drawing", width: 8 * ZOOM, height: 8 * ZOOM, role: "img", "aria-label": "Nothing drawn yet", hidden: "" });
    this.verdict = element("p", { class: "quiet" });
    return element(
      "div",
      { class: "card" },
      element("h2", {}, "It draws"),
      element("p", { class: "quiet" }, "The way down of the network: choose a digit. Each time it begins from other chance."),
      element("div", { class: "choices", role: "group", "aria-label": "Digit to draw" }, ...buttons),
      this.drawing,
      this.verdict,
    );
  }

  /** Ask about the sheet until the answer is about all of its ink; never more than one question at a time. */
  async #ask() {
    this.changed = true;
    if (this.asking) return;
    this.asking = true;
    try {
      while (this.changed && !this.closed && !this.pad.blank) {
        await pause(QUIET);
        const mine = this.turn;
        this.changed = false;
        const resting = this.resting;
        if (this.pad.blank) break;
        const answer = await predict(this.bundle, {}, await this.pad.picture());
        if (mine !== this.turn) continue;
        settle();
        this.#show(answer.result);
        this.time.replaceChildren(element("b", {}, answer.milliseconds.toFixed(0)), " ms");
        if (resting && !this.changed) say(`It reads ${answer.result.digit}, ${percent(answer.result.probability)}.`);
      }
    } catch (error) {
      this.changed = false;
      if (!this.closed) complain(error, this.tools);
    } finally {
      this.asking = false;
    }
  }

  #show(result) {
    this.best.textContent = result ? String(result.digit) : "–";
    this.sure.textContent = result ? percent(result.probability) : "draw a digit";
    this.list.hidden = !result;
    this.bars.forEach(({ bar, value }, digit) => {
      const share = result?.probabilities[digit] ?? 0;
      bar.style.width = `${(100 * share).toFixed(1)}%`;
      bar.classList.toggle("best", digit === result?.digit);
      value.textContent = percent(share);
    });
  }

  #clear() {
    this.turn += 1;
    this.changed = false;
    this.pad.clear();
    settle();
    this.#show(null);
    this.time.replaceChildren();
    say("The sheet is empty.");
  }

  /** The picture that was recorded in the bundle, laid on the sheet. */
  async #example() {
    this.#clear();
    const mine = this.turn;
    try {
      const picture = await createImageBitmap(pictureOf((await askExample(this.bundle)).image));
      if (mine === this.turn) this.pad.show(picture);
      picture.close();
    } catch (error) {
      if (!this.closed) complain(error, this.tools);
    }
  }

  async #draw(label) {
    if (this.drawn) return; // one at a time
    this.drawn = true;
    settle();
    try {
      const result = await drawDigit(this.bundle, label, this.seed);
      if (this.closed) return;
      this.seed += 1;
      this.#hang(result);
    } catch (error) {
      if (!this.closed) complain(error, this.verdict);
    } finally {
      this.drawn = false;
    }
  }

  #hang({ digit, probability, drawn }) {
    if (!drawn?.ink) throw new Failure("There is no drawing", "The server's answer has none.");
    const context = this.drawing.getContext("2d");
    drawn.ink.forEach((row, y) =>
      row.forEach((ink, x) => {
        const level = Math.round(255 * (1 - Math.min(1, Math.max(0, ink))));
        context.fillStyle = `rgb(${level}, ${level}, ${level})`;
        context.fillRect(x * ZOOM, y * ZOOM, ZOOM, ZOOM);
      }),
    );
    this.drawing.hidden = false;
    this.drawing.setAttribute("aria-label", `A ${drawn.label}, as the network draws it`);
    this.verdict.textContent = `A ${drawn.label} from seed ${drawn.seed}; the network reads ${digit} in it (${percent(probability)}).`;
    say(this.verdict.textContent);
  }
}

export default {
  pictures: false,
  title: "Which digit is it?",
  lead: "Draw one digit, large or small, anywhere on the sheet. It is read while you draw.",
  notice: "Drawings go to this server only and are not kept.",
  create: (context) => new DigitsView(context),
};
