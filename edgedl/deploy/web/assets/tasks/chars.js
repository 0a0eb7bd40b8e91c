// Text that goes on: what runtime/pipelines/chars.py and runtime/sampling.py do outside the graph.

import { file } from "../models.js";
import { PCG64 } from "../random.js";
import { Refused } from "../refused.js";
import { Carried } from "../steps.js";

const UNKNOWN = 0; // the token of every character that is not known; it is never drawn
const PIECE = 512; // steps of the graph in one call
const WHOLE = { length: [1, 2000], top_k: [0, Number.MAX_SAFE_INTEGER], seed: [0, Number.MAX_SAFE_INTEGER] };

export class Chars {
  constructor(models) {
    this.models = models;
  }

  /** @yields {string} the characters as they come */
  async *write({ prompt = "", length = 300, temperature = 0.8, top_k = 0, seed = 0 }) {
    for (const [name, value] of Object.entries({ length, top_k, seed })) {
      const [least, most] = WHOLE[name];
      if (!Number.isSafeInteger(value) || value < least || value > most) throw new Refused(`${name} is ${value}; expected a whole number from ${least} to ${most}.`);
    }
    if (!(temperature >= 0 && temperature <= 100)) throw new Refused(`The temperature is ${temperature}; expected a number from 0 to 100.`);
    await this.#load();
    const stream = new Carried(this.models, "chars");
    const random = new PCG64(seed);
    let waiting = [...(prompt || this.models.manifest.pipeline.beginning)].map((character) => this.tokens.get(character) ?? UNKNOWN);
    for (; waiting.length > PIECE; waiting = waiting.slice(PIECE)) await stream.step(asTokens(waiting.slice(0, PIECE)));
    for (let written = 0; written < length; written += 1) {
      const { log_probabilities: expected } = await stream.step(asTokens(waiting));
      const last = Float64Array.from(expected.data.subarray(expected.data.length - this.characters.length));
      last[UNKNOWN] = -Infinity;
      const token = drawToken(weightsOf(last, temperature, top_k), random.uniform());
      yield this.characters[token];
      waiting = [token];
    }
  }

  /** What is to be said of a text beside the text. */
  async report({ prompt = "", length = 300, temperature = 0.8, top_k = 0, seed = 0 }) {
    await this.#load();
    const unknown = [...new Set([...prompt].filter((character) => !this.tokens.has(character)))];
    return { unknown, length, temperature, top_k, seed };
  }

  async #load() {
    this.characters ??= await (await file(this.models.manifest.files.characters.file)).json();
    this.tokens ??= new Map(this.characters.map((character, token) => [character, token]).slice(1));
  }
}

const asTokens = (tokens) => ({ tokens: { dtype: "int64", shape: [1, tokens.length], data: BigInt64Array.from(tokens, BigInt) } });

/** The probabilities that tokens are drawn with: see `runtime.sampling.sampling_weights`. */
function weightsOf(scores, temperature, most) {
  let [kept, heat, top] = [scores, temperature, most];
  if (heat === 0) [top, heat] = [1, 1];
  if (top > 0 && top < scores.length) {
    const order = Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
    kept = new Float64Array(scores.length).fill(-Infinity);
    for (const token of order.slice(0, top)) kept[token] = scores[token];
  }
  const best = kept.reduce((one, other) => Math.max(one, other), -Infinity);
  const weights = kept.map((score) => Math.exp((score - best) / heat));
  const sum = weights.reduce((one, other) => one + other, 0);
  return weights.map((weight) => weight / sum);
}

/** The first token whose cumulated probability exceeds the number. */
function drawToken(weights, number) {
  let sum = 0;
  const cumulated = weights.map((weight) => (sum += weight));
  const token = cumulated.findIndex((share) => share > number * sum);
  const last = weights.findLastIndex((weight) => weight > 0);
  return token < 0 ? last : Math.min(token, last);
}
