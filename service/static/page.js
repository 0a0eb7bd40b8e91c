// The page: takes pictures and clips, asks the chosen bundle, and hands the answer to the module of its task.

import { Failure, listBundles, predict } from "./api.js";
import { LastFrames, openClip } from "./clip.js";
import { element } from "./element.js";
import { Camera, openPhoto, pictureIn } from "./source.js";
import { Stage } from "./stage.js";
import { taskModule } from "./tasks/index.js";

const SHORTEST_CYCLE = 100; // milliseconds between two camera pictures: ten a second are enough for the eye
const CLIP_FRAMES = 8; // frames of a live clip,
const CLIP_PACE = 500; // milliseconds between two of them,
const CLIP_CYCLE = 3000; // and between two captions

const find = (id) => document.getElementById(id);
const stage = new Stage({
  stage: find("stage"),
  frame: find("frame"),
  picture: find("picture"),
  video: find("video"),
  overlay: find("overlay"),
  targets: find("targets"),
});
const camera = new Camera(find("video"));

let bundle = null; // the chosen one, as /v1 lists it
let task = null; // its module
let view = null; // what that module made
let turn = 0; // rises with each new picture or camera run: late answers to an earlier one are dropped
let last = null; // the last photo or clip, asked about again when another bundle is chosen
let limits = {}; // the server's

function complain(error) {
  const failure = error instanceof Failure ? error : new Failure("The page failed", String(error?.message ?? error));
  find("message-title").textContent = failure.title;
  find("message-detail").textContent = failure.message;
  find("message-id").textContent = failure.id ? `Request ${failure.id}` : "";
  find("message").hidden = false;
}

function settle() {
  find("message").hidden = true;
}

function scaled(result, scale) {
  // Boxes and points are the only pixels in an answer; what was sent may be smaller than what is shown.
  if (scale === 1) return result;
  const back = (value) => (Array.isArray(value) ? value.map(back) : value / scale);
  const face = (one) => ({ ...one, box: back(one.box), keypoints: back(one.keypoints ?? []) });
  return result.faces ? { ...result, faces: result.faces.map(face) } : result;
}

function openView() {
  find("empty").hidden = true;
  find("view").hidden = false;
  document.querySelector("main").classList.add("open");
}

function closeView() {
  find("view").hidden = true;
  find("empty").hidden = false;
  document.querySelector("main").classList.remove("open");
}

function timing(...pairs) {
  const nodes = pairs.flatMap(([value, unit], index) => [index ? " · " : "", element("b", {}, value), ` ${unit}`]);
  find("timing").replaceChildren(...nodes);
}

async function showFile(file) {
  stopCamera();
  settle();
  const mine = ++turn;
  try {
    const shown = await (task.clips ? openClip(file, limits) : openPhoto(file));
    if (mine !== turn) return;
    last = shown;
    openView();
    view.clear();
    if (shown.image) stage.show(shown.image, shown.width, shown.height);
    else stage.play(shown.url, shown.width, shown.height);
    await askAbout(shown, mine);
  } catch (error) {
    if (mine === turn) complain(error);
  }
}

async function askAbout(photo, mine) {
  find("busy").hidden = false;
  timing();
  try {
    const answer = await predict(bundle, task.options, photo.body);
    if (mine !== turn) return;
    find("spoken").textContent = view.show(scaled(answer.result, photo.scale), false);
    const server = answer.server === null ? [] : [[answer.server.toFixed(0), "ms in the bundle"]];
    timing([answer.milliseconds.toFixed(0), "ms"], ...server);
  } finally {
    if (mine === turn) find("busy").hidden = true;
  }
}

async function startCamera() {
  settle();
  const mine = ++turn;
  try {
    stage.stop();
    await camera.start();
    if (mine !== turn) return camera.stop();
    last = null;
    openView();
    view.clear();
    find("busy").hidden = true;
    stage.show(null, camera.size.width, camera.size.height, camera.mirrored);
    reflectCamera();
    await (task.clips ? watch(mine) : look(mine));
  } catch (error) {
    if (mine !== turn) return;
    stopCamera();
    complain(error);
  }
}

async function look(mine) {
  let cycle = null; // milliseconds, smoothed
  while (mine === turn && camera.running) {
    const start = performance.now();
    if (document.hidden) {
      await pause(250);
      continue;
    }
    const frame = await camera.grab();
    const answer = await predict(bundle, task.options, frame.body);
    if (mine !== turn || !camera.running) return;
    if (frame.width !== stage.width || frame.height !== stage.height) {
      stage.show(null, frame.width, frame.height, camera.mirrored); // the device was turned
    }
    view.show(scaled(answer.result, frame.scale), true);
    await pause(SHORTEST_CYCLE - (performance.now() - start));
    const took = performance.now() - start;
    cycle = cycle === null ? took : 0.8 * cycle + 0.2 * took;
    if (mine === turn) timing([answer.milliseconds.toFixed(0), "ms"], [(1000 / cycle).toFixed(1), "fps"]);
  }
}

/** Keep the last frames, and every few seconds ask what they show. */
async function watch(mine) {
  const frames = new LastFrames(Math.min(CLIP_FRAMES, limits.max_images ?? CLIP_FRAMES));
  let asked = performance.now() - CLIP_CYCLE + 2 * CLIP_PACE; // the first answer soon
  let asking = null;
  while (mine === turn && camera.running) {
    const start = performance.now();
    if (!document.hidden) frames.add(await camera.grab());
    if (!document.hidden && asking === null && start - asked >= CLIP_CYCLE) {
      asked = start;
      asking = predict(bundle, task.options, frames.form)
        .then((answer) => {
          if (mine !== turn || !camera.running) return;
          settle();
          find("spoken").textContent = view.show(answer.result, true);
          timing([answer.milliseconds.toFixed(0), "ms"], [`${CLIP_CYCLE / 1000}`, "s between captions"]);
        })
        .catch((error) => {
          if (mine === turn) complain(error);
        })
        .finally(() => {
          asking = null;
        });
    }
    await pause(CLIP_PACE - (performance.now() - start));
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, milliseconds)));
}

function stopCamera() {
  if (!camera.running) return;
  turn += 1;
  camera.stop();
  reflectCamera();
  stage.setRegions([]);
  view.clear();
  timing();
  closeView();
  find("camera").focus(); // the button that was pressed is gone
}

function reflectCamera() {
  find("live").textContent = camera.running ? "Stop the camera" : "Use the camera";
  find("live").setAttribute("aria-pressed", String(camera.running));
}

function chooseBundle(next) {
  bundle = next;
  task = taskModule(bundle.task);
  const words = task.words ?? {};
  find("choose").textContent = words.choose ?? "Choose a photo";
  find("again").textContent = words.another ?? "Another photo";
  find("file").accept = task.clips ? "image/*,video/*,.avi,.mkv" : "image/*";
  find("file").setAttribute("aria-label", task.clips ? "Photo or video" : "Photo");
  view?.clear();
  stage.setRegions([]);
  view = task.create({ panel: find("answer"), stage, bundle });
  find("title").textContent = task.title;
  find("lead").textContent = task.lead;
  find("bundle-name").textContent = find("bundle").hidden ? bundle.name : "";
  const engine = Object.values(bundle.models)[0] ?? {};
  const facts = [bundle.version, engine.device, engine.variant].filter(Boolean).map((fact) => element("span", {}, fact));
  if (!bundle.ready) facts.push(element("span", { class: "bad" }, "not ready"));
  find("bundle-facts").replaceChildren(...facts);
  document.title = `${bundle.name} – edgedl`;
}

async function begin() {
  const listed = await listBundles();
  const { bundles } = listed;
  limits = listed.limits;
  const select = find("bundle");
  select.replaceChildren(...bundles.map((one) => element("option", { value: one.name }, one.name)));
  select.hidden = bundles.length < 2;
  select.addEventListener("change", () => {
    settle();
    const next = bundles.find((one) => one.name === select.value);
    const clips = Boolean(taskModule(next.task).clips);
    if (clips !== Boolean(task.clips)) stopCamera(); // it is watched in another way
    chooseBundle(next);
    if (last && !last.image && !clips) {
      last = null; // a video is nothing for this one
      turn += 1;
      stage.stop();
      closeView();
    }
    if (last) askAbout(last, ++turn).catch(complain);
  });
  chooseBundle(bundles[0]);

  const file = find("file");
  for (const id of ["choose", "again"]) find(id).addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files.length) showFile(file.files[0]);
    file.value = ""; // so that the same photo can be chosen twice
  });
  for (const id of ["camera", "live"]) {
    find(id).addEventListener("click", () => (camera.running ? stopCamera() : startCamera()));
  }
  addEventListener("paste", (event) => {
    const picture = pictureIn(event.clipboardData);
    if (picture) showFile(picture);
  });
  const dragging = (on) => document.body.classList.toggle("dragging", on);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    dragging(true);
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) dragging(false);
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    dragging(false);
    const picture = pictureIn(event.dataTransfer);
    if (picture) showFile(picture);
  });
  document.body.dataset.state = "ready";
}

begin().catch(complain);
