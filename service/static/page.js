// The page: a tab for each bundle, and in it what the module of the bundle's task makes of it.

import { about } from "./about.js";
import { listBundles } from "./api.js";
import { complain, say, settle } from "./messages.js";
import { Pictures } from "./pictures.js";
import { Tabs } from "./tabs.js";
import { moduleFor } from "./tasks/index.js";

const find = (id) => document.getElementById(id);

const RECORDED = "This server keeps a sample of what is sent to it, with the answers.";

let pictures = null; // the view that tasks with pictures share
let view = null; // of another task, while one is chosen
const kept = new Map(); // by bundle: what its view keeps while another one is chosen

function describe(bundle, alone) {
  find("bundle-name").textContent = alone ? bundle.name : "";
  find("bundle-state").hidden = bundle.ready;
  about(bundle);
  document.title = `${bundle.name} – edgedl`;
}

function choose(bundle, limits, notice) {
  settle();
  say("");
  const task = moduleFor(bundle);
  view?.close();
  view = null;
  find("tool").replaceChildren();
  find("work").hidden = task.pictures;
  find("notice").textContent = notice ?? task.notice ?? "Pictures go to this server only and are not kept.";
  if (task.pictures) {
    pictures.use(bundle, task);
    return;
  }
  pictures.leave();
  find("work-title").textContent = task.title;
  find("work-lead").textContent = task.lead;
  find("answer").replaceChildren();
  find("place").classList.add("open");
  if (!kept.has(bundle.name)) kept.set(bundle.name, {});
  view = task.create({ work: find("tool"), panel: find("answer"), bundle, limits, kept: kept.get(bundle.name) });
}

async function begin() {
  const listed = await listBundles();
  const { bundles, limits, recording } = listed;
  const notice = recording ? RECORDED : listed.notice; // a page without a server has a notice of its own
  find("kept").hidden = !recording;
  find("kept").textContent = recording ? RECORDED : "";
  pictures = new Pictures(limits);
  const tabs = new Tabs(find("tabs"), find("place"), (name) => {
    const bundle = bundles.find((one) => one.name === name);
    describe(bundle, bundles.length === 1);
    choose(bundle, limits, notice);
  });
  tabs.show(bundles);
  // What a view holds on the server is given back with the page; one that comes back from the browser's memory begins anew.
  addEventListener("pagehide", () => view?.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  document.body.dataset.state = "ready";
}

begin().catch(complain);
