// Digits: what runtime/pipelines/digits.py does outside the graph.

import { halved, pixelsOf } from "../pictures.js";
import { PCG64 } from "../random.js";
import { Refused } from "../refused.js";

const LARGEST_SIDE = 512;

const rounded = (value, digits) => Math.round(value * 10 ** digits) / 10 ** digits;

export class Digits {
  constructor(models) {
    this.models = models;
  }

  async predict(body) {
    const picture = await pixelsOf(body);
    return this.#read(halved(picture, Math.max(picture.width, picture.height) / LARGEST_SIDE));
  }

  async #read({ width, height, data }) {
    const found = await this.models.run("digits", { pixels: { dtype: "uint8", shape: [1, height, width, 3], data } });
    const digit = Number(found.digit.data[0]);
    const probabilities = Array.from(found.probabilities.data, (value) => rounded(value, 6));
    return { digit, probability: probabilities[digit], probabilities };
  }

  async draw({ label, seed = 0 }) {
    if (!Number.isInteger(label) || label < 0 || label > 9) throw new Refused(`A digit to draw is 0 to 9, not ${label}.`);
    const random = new PCG64(seed);
    const inputs = this.models.spec("draw").inputs;
    const feeds = { label: { dtype: "int64", shape: [1], data: BigInt64Array.of(BigInt(label)) } };
    for (const name of ["top", "chance"]) {
      const shape = [1, ...inputs.find((tensor) => tensor.name === name).shape.slice(1)];
      feeds[name] = { dtype: "float32", shape, data: random.floats(shape.reduce((product, size) => product * size, 1)) };
    }
    const { ink } = await this.models.run("draw", feeds);
    const [, height, width] = ink.shape;
    const data = Uint8Array.from({ length: 3 * width * height }, (_, index) => level(ink.data[Math.floor(index / 3)]));
    const rows = Array.from({ length: height }, (_, y) => Array.from(ink.data.subarray(y * width, (y + 1) * width), (value) => rounded(value, 4)));
    return { ...(await this.#read({ width, height, data })), drawn: { label, seed, ink: rows } };
  }
}

/** A share of ink as a level of grey; a half goes to the even neighbour, as numpy rounds. */
function level(share) {
  const value = Math.fround(Math.min(1, Math.max(0, share)) * 255);
  const below = Math.floor(value);
  return value - below === 0.5 ? below + (below % 2) : Math.round(value);
}
