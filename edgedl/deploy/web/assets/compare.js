// The comparison of runtime/compare.py in JavaScript, for a page that has no Python: one answer against its reference.
// A test holds both against the same arrays.

import { count } from "./arrays.js";

const FLOATS = new Set(["float32", "float64"]);

/**
 * @param {object} answer @param {object} reference arrays, see arrays.js
 * @param {{atol: number, rtol: number, decision?: string, nan?: boolean}} tolerance
 * @returns {{ok: boolean, maxAbs: number, allowed: number, share: number, note: string}}
 */
export function compare(answer, reference, tolerance = { atol: 0, rtol: 0 }) {
  const failed = (note) => ({ ok: false, maxAbs: Infinity, allowed: 0, share: Infinity, note });
  if (String(answer.shape) !== String(reference.shape)) {
    return failed(`shape [${answer.shape.join(", ")}], the reference has [${reference.shape.join(", ")}]`);
  }
  if (answer.dtype === "string" || reference.dtype === "string") {
    const same = answer.dtype === reference.dtype && answer.data.every((text, index) => text === reference.data[index]);
    return same ? { ok: true, maxAbs: 0, allowed: 0, share: 0, note: "" } : failed("another text");
  }
  const float = FLOATS.has(reference.dtype);
  const limits = new Float64Array(count(reference.shape));
  let worst = { share: -1, allowed: 0 };
  let maxAbs = 0;
  let ok = true;
  for (let index = 0; index < limits.length; index += 1) {
    const [found, expected] = [answer.data[index], reference.data[index]];
    const [number, truth] = [Number(found), Number(expected)];
    const both = tolerance.nan && float && Number.isNaN(number) && Number.isNaN(truth);
    // A whole number of 64 bits may differ where float64 cannot tell it.
    const equal = both || (typeof found === typeof expected ? found === expected : number === truth);
    const error = equal ? 0 : float ? Math.abs(number - truth) : Math.max(1, Math.abs(number - truth));
    if (!Number.isFinite(error)) return failed(`${number} where the reference is ${truth}`);
    const limit = float ? tolerance.atol + tolerance.rtol * (Number.isFinite(truth) ? Math.abs(truth) : 0) : 0;
    limits[index] = limit;
    const share = error > 0 ? error / limit : 0;
    if (share > worst.share) worst = { share, allowed: limit };
    maxAbs = Math.max(maxAbs, error);
    if (error > limit) ok = false;
  }
  const changes = changedDecisions(answer, reference, limits, tolerance.decision);
  return { ok: ok && !changes, maxAbs, allowed: worst.allowed, share: Math.max(0, worst.share), note: changes ? `decisions that differ: ${changes}` : "" };
}

/** Halves go to the even neighbour, as numpy rounds. */
function rint(value) {
  const below = Math.floor(value);
  const part = value - below;
  if (part !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** How many decisions differ although the margin of the reference is larger than the tolerance. */
function changedDecisions(answer, reference, limits, decision) {
  const [found, truth] = [answer, reference].map(({ data }) => data);
  if (decision === "exact") {
    return truth.reduce((sum, value, index) => {
      const [one, other] = [Number(value), Number(found[index])];
      return sum + (one === other || (Number.isNaN(one) && Number.isNaN(other)) ? 0 : 1);
    }, 0);
  }
  if (decision === "round") {
    let changes = 0;
    limits.forEach((limit, index) => {
      const [number, expected] = [Number(found[index]), Number(truth[index])];
      const clear = Math.abs(expected - Math.floor(expected) - 0.5) > limit;
      if (clear && rint(number) !== rint(expected)) changes += 1;
    });
    return changes;
  }
  const width = reference.shape.at(-1) ?? 0;
  if (decision !== "argmax" || width < 2) return 0;
  let changes = 0;
  for (let row = 0; row < limits.length; row += width) {
    const part = Array.from(truth.subarray(row, row + width), Number);
    const [first, second] = [...part].sort((a, b) => b - a);
    const limit = Math.max(...limits.subarray(row, row + width));
    if (first - second > limit && best(Array.from(found.subarray(row, row + width), Number)) !== best(part)) changes += 1;
  }
  return changes;
}

const best = (values) => values.indexOf(Math.max(...values));
