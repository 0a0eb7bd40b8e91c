// A sheet to draw on: with a mouse, a finger or a pen, or with the arrow keys.

import { element } from "./element.js";

const SIDE = 280; // pixels of the sheet; what is sent is the sheet as it is
const STROKE = 36; // strokes of the data are about a sixth as wide as a digit is high; thinner ones are read worse
const STEP = 14; // that an arrow key moves the pen
const [PAPER, INK, HINT] = ["#ffffff", "#101010", "#4458e8"]; // in every colour scheme: the network's answer may not depend on it
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pad {
  /** @param {{onchange: () => void, onrest: () => void}} listeners called as ink is added, and when the pen is lifted */
  constructor({ onchange, onrest }) {
    Object.assign(this, { onchange, onrest });
    this.sheet = element("canvas", {
      class: "sheet",
      id: "pad",
      width: SIDE,
      height: SIDE,
      tabindex: "0",
      role: "img",
      "aria-roledescription": "drawing pad",
      "aria-label": "Drawing pad",
      "aria-describedby": "pad-keys",
    });
    this.cursor = element("canvas", { class: "cursor", width: SIDE, height: SIDE, "aria-hidden": "true" });
    this.element = element("div", { class: "pad" }, this.sheet, this.cursor);
    this.context = this.sheet.getContext("2d");
    this.pointer = null; // the one that draws; a second finger does not
    this.pen = { x: SIDE / 2, y: SIDE / 4, down: false, seen: false }; // of the keyboard
    this.clear();
    this.#listen();
  }

  get blank() {
    return !this.inked;
  }

  clear() {
    this.inked = false;
    this.pointer = null;
    this.context.fillStyle = PAPER;
    this.context.fillRect(0, 0, SIDE, SIDE);
    this.pen.down = false;
    this.#showPen();
  }

  /** Lay a picture on the sheet, as large as it fits. */
  show(picture) {
    const scale = SIDE / Math.max(picture.width, picture.height);
    const [width, height] = [picture.width * scale, picture.height * scale];
    this.context.drawImage(picture, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
    this.inked = true;
    this.onchange();
    this.onrest();
  }

  /** The sheet as a PNG. */
  picture() {
    return new Promise((resolve, reject) => {
      this.sheet.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The browser cannot encode the sheet."))), "image/png");
    });
  }

  #listen() {
    const { sheet } = this;
    sheet.addEventListener("pointerdown", (event) => {
      if (this.pointer !== null || event.button > 0) return;
      this.pointer = event.pointerId;
      sheet.setPointerCapture(event.pointerId);
      this.last = this.#place(event);
      this.#line(this.last);
    });
    sheet.addEventListener("pointermove", (event) => {
      if (event.pointerId !== this.pointer) return;
      const moves = event.getCoalescedEvents?.() ?? [];
      for (const move of moves.length ? moves : [event]) this.#line(this.#place(move));
    });
    for (const end of ["pointerup", "pointercancel"]) {
      sheet.addEventListener(end, (event) => {
        if (event.pointerId !== this.pointer) return;
        this.pointer = null;
        this.onrest();
      });
    }
    sheet.addEventListener("keydown", (event) => this.#key(event));
    sheet.addEventListener("focus", () => this.#showPen());
    sheet.addEventListener("blur", () => {
      if (this.pen.down) this.#lift();
      this.pen.seen = false;
      this.#showPen();
    });
  }

  #place({ clientX, clientY }) {
    const box = this.sheet.getBoundingClientRect();
    return { x: ((clientX - box.left) / box.width) * SIDE, y: ((clientY - box.top) / box.height) * SIDE };
  }

  #line(to) {
    const { context } = this;
    context.strokeStyle = INK;
    context.lineWidth = STROKE;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(this.last.x, this.last.y);
    context.lineTo(to.x, to.y); // of length 0 it is a dot
    context.stroke();
    this.last = to;
    this.inked = true;
    this.onchange();
  }

  #key(event) {
    const { pen } = this;
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      if (event.repeat) return;
      pen.seen = true;
      if (pen.down) return this.#lift();
      pen.down = true;
      this.last = { x: pen.x, y: pen.y };
      this.#line(this.last);
    } else if (event.key in ARROWS) {
      event.preventDefault();
      const [right, down] = ARROWS[event.key];
      const within = (value) => Math.min(Math.max(value, STROKE), SIDE - STROKE);
      Object.assign(pen, { x: within(pen.x + right * STEP), y: within(pen.y + down * STEP), seen: true });
      if (pen.down) this.#line({ x: pen.x, y: pen.y });
    } else return;
    this.#showPen();
  }

  #lift() {
    this.pen.down = false;
    this.onrest();
    this.#showPen();
  }

  /** Where the keyboard's pen is; a ring while it is lifted. */
  #showPen() {
    const context = this.cursor.getContext("2d");
    context.clearRect(0, 0, SIDE, SIDE);
    if (!this.pen.seen) return;
    context.beginPath();
    context.arc(this.pen.x, this.pen.y, STROKE / 2, 0, 2 * Math.PI);
    context.lineWidth = 3;
    context.strokeStyle = context.fillStyle = HINT;
    context.stroke();
    if (this.pen.down) context.fill();
  }
}
