// Ages: the graph `photo` does all of it, from the pixels of a photo to its faces with their ages.

import { ends, promise } from "../interval.js";
import { pixelsOf } from "../pictures.js";

const rounded = (value, digits) => Math.round(value * 10 ** digits) / 10 ** digits;

export class Age {
  constructor(models) {
    this.models = models;
  }

  async predict(body, { distribution } = {}) {
    const { interval } = this.models.manifest.pipeline;
    const { width, height, data } = await pixelsOf(body);
    const found = await this.models.run("photo", { image: { dtype: "uint8", shape: [height, width, 3], data } });
    const row = (name, index) => {
      const { shape, data: numbers } = found[name];
      const size = shape.slice(1).reduce((product, one) => product * one, 1);
      return Array.from(numbers.subarray(index * size, (index + 1) * size), Number);
    };
    const faces = Array.from({ length: found.ages.shape[0] }, (_, index) => {
      const points = row("keypoints", index).map((value) => rounded(value, 2));
      const box = row("boxes", index);
      const [score, age, lowest, highest] = ["scores", "ages", "low", "high"].map((name) => row(name, index)[0]);
      const { low, high } = ends(interval, { age, low: lowest, high: highest });
      return {
        box: box.map((value) => rounded(value, 2)),
        score: rounded(score, 4),
        age: rounded(age, 2),
        low: rounded(low, 2),
        high: rounded(high, 2),
        keypoints: Array.from({ length: points.length / 2 }, (_, point) => points.slice(2 * point, 2 * point + 2)),
        ...(distribution ? { probabilities: row("probabilities", index).map((value) => rounded(value, 6)) } : {}),
      };
    });
    return { faces, interval: promise(interval) };
  }
}
