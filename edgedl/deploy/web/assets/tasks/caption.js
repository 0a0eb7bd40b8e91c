// Captions: what runtime/pipelines/caption.py does outside the graph.

import { file } from "../models.js";
import { framesOf, thumbnail } from "../pictures.js";

const END = 0; // the token that ends a sentence
const TALLEST = 160; // pixels of a thumbnail

const rounded = (value) => Math.round(value * 1e4) / 1e4;

export class Caption {
  constructor(models) {
    this.models = models;
  }

  async predict(body, { thumbnails } = {}) {
    const { manifest } = this.models;
    this.words ??= (await (await file(manifest.files.vocabulary.file)).text()).replace(/\n$/, "").split("\n");
    const { frames, indices, seconds, note } = await framesOf(body, manifest.pipeline);
    const [{ width, height }] = frames;
    const data = new Uint8Array(frames.length * 3 * width * height);
    frames.forEach((frame, index) => data.set(frame.data, index * frame.data.length));
    const answer = await this.models.run("caption", {
      clips: { dtype: "uint8", shape: [1, frames.length, height, width, 3], data },
      counts: { dtype: "int64", shape: [1], data: BigInt64Array.of(BigInt(frames.length)) },
    });
    const [best, ...alternatives] = this.#sentences(answer);
    const seen = [];
    for (const [place, index] of indices.entries()) {
      seen.push({ index, seconds: seconds[place], ...(thumbnails ? { thumbnail: await thumbnail(frames[place], TALLEST) } : {}) });
    }
    return { ...best, frames: seen, alternatives, ...(note ? { note } : {}) };
  }

  /** Where fewer sentences exist than hypotheses, the rest are none: their score is infinitely low. */
  #sentences({ tokens, lengths, scores }) {
    const [, hypotheses, longest] = tokens.shape;
    return Array.from({ length: hypotheses }, (_, k) => k)
      .filter((k) => k === 0 || scores.data[k] > -Infinity)
      .map((k) => {
        const begin = k * longest;
        const chosen = Array.from(tokens.data.subarray(begin, begin + Number(lengths.data[k])), Number);
        const end = chosen.indexOf(END);
        const words = (end < 0 ? chosen : chosen.slice(0, end)).map((token) => this.words[token]);
        return { caption: words.join(" "), score: rounded(scores.data[k]) };
      });
  }
}
