// Text that goes on: the characters are shown as the server writes them.

import { address, askExample, Failure, jsonRequest } from "../api.js";
import { element } from "../element.js";
import { events } from "../events.js";
import { complain, reveal, say, settle } from "../messages.js";

const LONGEST_PROMPT = 10_000; // characters, what the server takes
const SETTINGS = {
  length: { label: "Length", hint: "characters to write, 1 to 2000", min: 1, max: 2000, step: 1, value: 300 },
  temperature: { label: "Temperature", hint: "0: always the likeliest; 1: as the network expects; more: bolder", min: 0, max: 100, step: "any", value: 0.8 },
  top_k: { label: "Top-k", hint: "0 or more: draw from so many of the likeliest only; 0: from all", min: 0, max: 1_000_000, step: 1, value: 0 },
  seed: { label: "Seed", hint: "the same seed, the same text", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, value: 0 },
};

const HONEST = "Made up, one character after the other. Nothing in it is a statement about the world.";

class CharsView {
  constructor({ work, panel, bundle, kept }) {
    Object.assign(this, { bundle, kept });
    this.writing = null; // the AbortController of the text that is being written
    this.#build(work, panel);
    const { prompt = "", pieces = [], settings = {} } = kept;
    this.prompt.value = prompt;
    for (const [name, value] of Object.entries(settings)) this.fields[name].value = value;
    for (const { kind, text } of pieces) this.#piece(kind).append(text);
    this.#reflect();
  }

  close() {
    this.#stop();
    this.#keep();
  }

  #build(work, panel) {
    const button = (id, text, press, attributes = {}) => {
      const made = element("button", { type: "button", id, ...attributes }, text);
      made.addEventListener("click", press);
      return made;
    };
    this.prompt = element("textarea", { id: "prompt", rows: 3, maxlength: LONGEST_PROMPT, spellcheck: "false", "aria-describedby": "prompt-hint" });
    this.write = element("button", { type: "submit", id: "write", class: "primary" }, "Write");
    this.stop = button("stop", "Stop", () => this.#stop());
    this.onward = button("onward", "Go on", () => this.#goOn());
    this.wipe = button("wipe", "Clear", () => this.#clear());
    this.example = button("try-example", "Try an example", () => this.#example(), { class: "example" });
    this.example.hidden = !this.bundle.example;
    this.rate = element("p", { class: "timing", id: "rate" });
    this.text = element("div", { class: "story", id: "story", tabindex: "0", role: "region", "aria-label": "Text" });
    this.note = element("p", { class: "quiet", id: "note" });
    const form = element(
      "form",
      { class: "card flush", novalidate: "" },
      element(
        "div",
        { class: "padded" },
        element("label", { for: "prompt" }, "Beginning"),
        this.prompt,
        element("p", { class: "hint", id: "prompt-hint" }, "What the text goes on from, as it is; empty: a text begins."),
      ),
      element("div", { class: "tools" }, this.write, this.example, this.stop, this.onward, this.wipe, this.rate),
    );
    this.form = form;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin();
    });
    this.prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    work.append(form, element("div", { class: "card" }, element("h2", {}, "Text"), this.text, this.note, element("p", { class: "quiet" }, HONEST)));

    this.fields = {};
    const rows = Object.entries(SETTINGS).map(([name, { label, hint, ...attributes }]) => {
      this.fields[name] = element("input", { type: "number", id: name, required: "", "aria-describedby": `${name}-hint`, ...attributes });
      return element("div", { class: "setting" }, element("label", { for: name }, label), this.fields[name], element("p", { class: "hint", id: `${name}-hint` }, hint));
    });
    const another = button("another", "Another seed", () => {
      this.fields.seed.value = crypto.getRandomValues(new Uint16Array(1))[0];
    });
    panel.append(element("div", { class: "card" }, element("h2", {}, "How it is drawn"), ...rows, another));
  }

  /** The beginning that was recorded in the bundle, gone on with. */
  async #example() {
    if (!this.#fits()) return;
    try {
      this.prompt.value = (await askExample(this.bundle)).prompt;
    } catch (error) {
      complain(error, this.form);
      return;
    }
    if (this.text.isConnected && this.writing === null) this.#begin();
  }

  #begin() {
    if (!this.#fits()) return;
    this.text.replaceChildren();
    this.note.textContent = "";
    if (this.prompt.value) this.#piece("given").append(this.prompt.value);
    this.#write(this.prompt.value);
  }

  /** From where the text is now. The network reads its own words as if they had been given. */
  #goOn() {
    if (!this.#fits()) return;
    const text = [...this.text.textContent].slice(-LONGEST_PROMPT).join("");
    this.#write(text, this.#later());
  }

  /** The seed of a continuation: with the first one's the same draws would come again. */
  #later() {
    return { seed: Number(this.fields.seed.value) + this.text.querySelectorAll(".written").length };
  }

  /** Whether the settings can be sent; asked before a text is wiped for the next one. */
  #fits() {
    settle();
    for (const field of Object.values(this.fields)) field.removeAttribute("aria-invalid");
    const wrong = Object.values(this.fields).find((field) => !field.checkValidity());
    if (!wrong) return true;
    const { label, hint } = SETTINGS[wrong.id];
    complain(new Failure(`${label} does not fit`, `Found ${wrong.value || "no number"}; expected: ${hint}.`), wrong);
    wrong.setAttribute("aria-invalid", "true");
    wrong.focus();
    return false;
  }

  async #write(prompt, more = {}) {
    const options = Object.fromEntries(Object.entries(this.fields).map(([name, field]) => [name, Number(field.value)]));
    const mine = new AbortController();
    this.writing = mine;
    const piece = this.#piece("written");
    this.#reflect();
    reveal(this.text);
    const began = performance.now();
    try {
      const request = jsonRequest({ prompt, ...options, ...more }, { signal: mine.signal });
      let report = null;
      for await (const { event, data } of events(address(this.bundle), request, "beginning")) {
        if (mine.signal.aborted) break;
        if (event === "problem") throw new Failure("The text broke off", data.detail, "", data.status);
        if (event === "end") report = data;
        else this.#add(piece, data.text, began);
      }
      if (mine.signal.aborted) return;
      if (report === null) throw new Failure("The text broke off", "The server ended it in the middle.");
      this.note.textContent = report.unknown.length ? `The network does not know ${report.unknown.map((one) => `“${one}”`).join(", ")}.` : "";
      say(`${[...piece.textContent].length} characters were written.`);
    } catch (error) {
      if (!mine.signal.aborted) complain(error, piece.textContent ? this.text : this.form);
    } finally {
      if (!piece.textContent) piece.remove();
      if (this.writing === mine) {
        this.writing = null;
        this.#reflect();
      }
    }
  }

  #add(piece, text, began) {
    const { text: box } = this;
    const below = box.scrollHeight - box.scrollTop - box.clientHeight < 40; // who has scrolled up wants to read there
    piece.append(text);
    if (below) box.scrollTop = box.scrollHeight;
    const count = [...piece.textContent].length;
    const rate = count / Math.max(1e-3, (performance.now() - began) / 1000);
    this.rate.replaceChildren(element("b", {}, String(count)), " characters · ", element("b", {}, rate.toFixed(0)), " a second");
  }

  /** The connection is closed; the server notices when it sends the next characters, and stops. */
  #stop() {
    if (this.writing === null) return;
    this.writing.abort();
    this.writing = null;
    say("Stopped.");
    this.#reflect();
  }

  #clear() {
    this.text.replaceChildren();
    this.note.textContent = "";
    this.rate.replaceChildren();
    this.#reflect();
    this.prompt.focus();
  }

  #piece(kind) {
    const piece = element("span", { class: kind });
    this.text.append(piece);
    return piece;
  }

  #keep() {
    this.kept.prompt = this.prompt.value;
    this.kept.pieces = [...this.text.children].map((piece) => ({ kind: piece.className, text: piece.textContent }));
    this.kept.settings = Object.fromEntries(Object.entries(this.fields).map(([name, field]) => [name, field.value]));
  }

  #reflect() {
    const writing = this.writing !== null;
    const held = document.activeElement;
    const any = this.text.childElementCount > 0;
    this.write.disabled = this.example.disabled = writing;
    this.stop.disabled = !writing;
    this.onward.disabled = writing || !any;
    this.wipe.disabled = writing || !any;
    if (held.disabled) (writing ? this.stop : this.write).focus(); // a disabled button holds no focus
    this.text.setAttribute("aria-busy", String(writing));
  }
}

export default {
  pictures: false,
  title: "Text that goes on",
  lead: "The network has learnt which character follows which, and nothing else. It writes one after the other, each drawn from what it expects to come next.",
  notice: "Texts go to this server only and are not kept.",
  create: (context) => new CharsView(context),
};
