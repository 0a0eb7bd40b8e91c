// Replays the recorded answers in this very browser, when somebody asks for it, and shows how far they are off.

import { element } from "../element.js";
import { compare } from "./compare.js";
import { file } from "./models.js";
import { readCases } from "./npz.js";
import { opened } from "./service.js";

const button = document.getElementById("check");
const place = document.getElementById("checked");

/** Run all recorded cases of a model. @yields {object} a row per output, once it is known */
async function* replay(models, name) {
  const spec = models.spec(name);
  const cases = await readCases(new Uint8Array(await (await file(spec.golden.file)).arrayBuffer()));
  const tolerances = (spec.variants[models.variant(name)].parity ?? spec.parity)?.outputs ?? {};
  const rows = new Map(spec.outputs.map((output) => [output.name, { model: name, output: output.name, cases: 0, maxAbs: 0, share: 0, ok: true, note: "" }]));
  for (const one of cases) {
    const answers = await models.run(name, one.inputs);
    for (const [output, row] of rows) {
      const check = one.outputs[output] ? compare(answers[output], one.outputs[output], tolerances[output]) : { ok: false, maxAbs: Infinity, share: Infinity, note: "there is no recorded answer" };
      row.cases += 1;
      row.maxAbs = Math.max(row.maxAbs, check.maxAbs);
      row.share = Math.max(row.share, check.share);
      row.ok &&= check.ok;
      row.note ||= check.note && `${one.name}: ${check.note}`;
    }
    place.firstChild.textContent = `Replaying ${name}: ${rows.values().next().value.cases} of ${cases.length} …`;
  }
  yield* rows.values();
}

function table(rows) {
  const head = ["Model", "Output", "Verdict", "Largest error", "Of what is allowed", "Cases"]; // a phone shows the first ones
  const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
  const written = ({ model, output, cases, maxAbs, share, ok, note }) =>
    [model, output, ok ? "ok" : `wrong${note ? ` (${note})` : ""}`, maxAbs.toPrecision(2), percent(share), String(cases)].map((text) => element("td", {}, text));
  return element(
    "div",
    { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Recorded answers" },
    element("table", { class: "checks" }, element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...rows.map((row) => element("tr", { class: row.ok ? "" : "wrong" }, ...written(row))))),
  );
}

async function check() {
  button.disabled = true;
  place.replaceChildren(element("p", { role: "status" }, "Replaying …"));
  place.hidden = false;
  place.scrollIntoView({ block: "nearest" });
  try {
    const { models } = await opened();
    const start = performance.now();
    const rows = [];
    for (const [name, spec] of Object.entries(models.manifest.models)) {
      if (spec.golden) for await (const row of replay(models, name)) rows.push(row);
    }
    const [first] = Object.keys(models.manifest.models);
    const { threads, version } = await models.open(first);
    const all = rows.every((row) => row.ok);
    const verdict = !rows.length ? "Nothing was recorded in this bundle." : all ? "This browser gives the recorded answers." : "This browser does not give the recorded answers. Do not rely on what it says here.";
    const how = `ONNX Runtime Web ${version}, ${threads === 1 ? "1 thread" : `${threads} threads`}, ${((performance.now() - start) / 1000).toFixed(1)} s`;
    place.replaceChildren(element("p", { role: "status" }, element("b", {}, verdict), ` ${how}.`), ...(rows.length ? [table(rows)] : []));
    place.dataset.verdict = all && rows.length ? "ok" : "wrong";
  } catch (error) {
    place.replaceChildren(element("p", { role: "status" }, `The recorded answers could not be replayed: ${error?.message ?? error}`));
    place.dataset.verdict = "failed";
  } finally {
    button.disabled = false;
    place.scrollIntoView({ block: "nearest" });
  }
}

button.addEventListener("click", check);
