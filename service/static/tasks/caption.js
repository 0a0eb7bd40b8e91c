// Captions: the sentence, the other hypotheses with their scores, and the frames that were looked at.

import { pictureOf } from "../api.js";
import { element } from "../element.js";

/** The picture in a data URL. (An <img> would need the page's policy to allow data: and blob:.) */
const thumbnailOf = (dataUrl) => createImageBitmap(pictureOf(dataUrl.slice(dataUrl.indexOf(",") + 1), "image/jpeg"));

const written = (score) => score.toFixed(2).replace("-", "−");
const sentence = (text) => text || "(no words)";
const time = (seconds) => `${seconds.toFixed(1)} s`;

class Captions {
  constructor({ panel, stage }) {
    Object.assign(this, { panel, stage });
    this.turn = 0; // pictures are decoded in the background: those of an earlier answer come too late
    this.best = element("p", { class: "sentence" });
    this.score = element("b");
    this.note = element("p", { class: "quiet" });
    const honest = element("p", { class: "quiet" }, "One of several plausible sentences. It can be wrong, also where its score is high, and it has words only for what the network was trained on.");
    this.summary = element("div", { class: "card" }, element("h2", {}, "Caption"), this.best, element("p", { class: "quiet" }, "score ", this.score, " nat a word"), this.note, honest);
    this.list = element("ol", { class: "sentences", role: "list" });
    const words = "The log-probability over the length: the nearer to 0, the surer. A full bar is as likely as the caption.";
    this.others = element("div", { class: "card" }, element("h2", {}, "Alternatives"), element("p", { class: "quiet" }, words), this.list);
    this.count = element("h2");
    this.grid = element("ul", { class: "frames", role: "list" });
    this.seen = element("div", { class: "card" }, this.count, this.grid);
  }

  /** @returns {string} the answer in words, for those who do not see it */
  show(result, live) {
    const { caption, score, alternatives, frames } = result;
    this.best.textContent = sentence(caption);
    this.score.textContent = written(score);
    const still = !live && frames.length > 1 && this.stage.empty;
    const notes = [result.note, still && "this browser cannot play the video, so its frames are shown"].filter(Boolean);
    this.note.textContent = notes.length ? `Note: ${notes.join("; ")}.` : "";
    this.note.hidden = !notes.length;
    this.list.replaceChildren(...alternatives.map((other) => this.#alternative(other, score)));
    this.#showFrames(frames, live);
    const parts = [this.summary, ...(alternatives.length ? [this.others] : []), ...(frames.length > 1 ? [this.seen] : [])];
    if (parts.length !== this.panel.children.length || parts[0] !== this.panel.firstChild) this.panel.replaceChildren(...parts);
    return `${sentence(caption)}.`;
  }

  clear() {
    this.turn += 1;
    this.panel.replaceChildren();
  }

  #alternative({ caption, score }, best) {
    const bar = element("span", { class: "bar-of", "aria-hidden": "true" });
    bar.style.width = `${(100 * Math.exp(score - best)).toFixed(1)}%`;
    return element("li", {}, element("span", { class: "words" }, sentence(caption)), element("span", { class: "value" }, written(score)), bar);
  }

  #showFrames(frames, live) {
    const mine = ++this.turn;
    this.count.textContent = `${frames.length} frames were looked at`;
    const unshown = !live && this.stage.empty;
    const items = frames.map((frame, index) => {
      const canvas = element("canvas");
      const label = frame.seconds === null ? `${index + 1}` : time(frame.seconds);
      const button = element("button", { type: "button", "aria-label": `Frame at ${label}` }, canvas, element("span", {}, label));
      button.disabled = live;
      button.addEventListener("click", () => this.#choose(index, frame));
      this.#draw(canvas, frame, mine);
      return element("li", {}, button);
    });
    this.grid.replaceChildren(...items);
    if (unshown) this.#choose(0, frames[0]);
  }

  #choose(index, frame) {
    for (const [other, button] of this.grid.querySelectorAll("button").entries()) button.ariaCurrent = other === index ? "true" : null;
    this.#visit(frame);
  }

  async #draw(canvas, { thumbnail }, mine) {
    if (!thumbnail) return;
    const picture = await thumbnailOf(thumbnail);
    if (mine === this.turn) {
      canvas.width = picture.width;
      canvas.height = picture.height;
      canvas.getContext("2d").drawImage(picture, 0, 0);
    }
    picture.close();
  }

  /** Go to a frame in the video or among the pictures; where neither can be shown, show what the server sent. */
  async #visit({ index, seconds, thumbnail }) {
    const own = this.stage.frames[index];
    if (!own && (this.stage.seek(seconds) || !thumbnail)) return;
    const mine = this.turn;
    const picture = await (own ? createImageBitmap(own) : thumbnailOf(thumbnail));
    if (mine === this.turn) this.stage.show(picture, picture.width, picture.height);
  }
}

export default {
  pictures: true,
  title: "What does it show?",
  lead: "A photo, a video or several pictures in a row are described in a sentence. You see which other sentences were weighed, and which frames were looked at.",
  options: { thumbnails: "1" },
  clips: true,
  words: { choose: "Choose a photo or video", another: "Another one" },
  create: (context) => new Captions(context),
};
