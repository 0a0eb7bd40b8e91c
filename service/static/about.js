// What a bundle does, what it was learnt from, and under which licence it may be used.

import { element } from "./element.js";

const find = (id) => document.getElementById(id);
const ROOMY = matchMedia("(min-width: 721px)"); // on a narrow screen the facts are folded away, or the answer has no room

const number = (value) => (Number.isInteger(value) ? String(value) : value.toPrecision(3));

function measured({ metric, value, unit, dataset, split, n, variant }) {
  const where = [dataset, split].filter(Boolean).join(", ");
  const amount = n === undefined ? "" : `, ${n} samples`;
  const what = variant && variant !== "fp32" ? `${metric} as ${variant}` : metric;
  return `${what} ${number(value)}${unit ? ` ${unit}` : ""} (${where}${amount})`;
}

/** @returns {[string, string][]} a name and what is to be said, of what the bundle tells */
function facts(bundle) {
  const engine = Object.values(bundle.models)[0] ?? {};
  return [
    ["Learnt from", bundle.data],
    ["Measured", (bundle.metrics ?? []).slice(0, 4).map(measured).join("; ")],
    ["Licence", bundle.license],
    ["Version", bundle.version],
    ["Runs on", [engine.device, engine.variant].filter(Boolean).join(", ")],
  ].filter(([, text]) => text);
}

/** @param {object} bundle as `GET /v1` lists it */
export function about(bundle) {
  find("about-what").textContent = bundle.description || `A bundle of the task ${bundle.task}`;
  find("about-facts").replaceChildren(
    ...facts(bundle).map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))),
  );
  find("about").open = ROOMY.matches;
}
