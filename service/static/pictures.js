// The view of the tasks that look at pictures: takes photos, clips and the camera, asks, and hands the answer on.

import { askExample, pictureOf, predict } from "./api.js";
import { LastFrames, openClip, openFrames } from "./clip.js";
import { element } from "./element.js";
import { complain, say, settle } from "./messages.js";
import { pause } from "./pause.js";
import { Camera, openPhoto, picturesIn } from "./source.js";
import { Stage } from "./stage.js";

const SHORTEST_CYCLE = 100; // milliseconds between two camera pictures: ten a second are enough for the eye
const CLIP_FRAMES = 8; // frames of a live clip,
const CLIP_PACE = 500; // milliseconds between two of them,
const CLIP_CYCLE = 3000; // and between two captions

const find = (id) => document.getElementById(id);

function scaled(result, scale) {
  // Boxes and points are the only pixels in an answer; what was sent may be smaller than what is shown.
  if (scale === 1) return result;
  const back = (value) => (Array.isArray(value) ? value.map(back) : value / scale);
  const face = (one) => ({ ...one, box: back(one.box), keypoints: back(one.keypoints ?? []) });
  return result.faces ? { ...result, faces: result.faces.map(face) } : result;
}

function timing(...pairs) {
  const nodes = pairs.flatMap(([value, unit], index) => [index ? " · " : "", element("b", {}, value), ` ${unit}`]);
  find("timing").replaceChildren(...nodes);
}

export class Pictures {
  /** @param {object} limits the server's */
  constructor(limits) {
    this.limits = limits;
    this.bundle = null; // the chosen one, as /v1 lists it; null while another kind of task has the page
    this.task = null; // its module
    this.view = null; // what that module made
    this.turn = 0; // rises with each new picture or camera run: late answers to an earlier one are dropped
    this.last = null; // the last photo or clip, asked about again when another bundle is chosen
    this.camera = new Camera(find("video"));
    this.stage = new Stage({
      stage: find("stage"),
      frame: find("frame"),
      picture: find("picture"),
      video: find("video"),
      overlay: find("overlay"),
      targets: find("targets"),
    });
    this.#listen();
  }

  /** Give the page to a bundle; what was shown last is asked about again. */
  use(bundle, task) {
    const clips = Boolean(task.clips);
    if (this.task && clips !== Boolean(this.task.clips)) this.#stopCamera(); // it is watched in another way
    this.#choose(bundle, task);
    find("stage").hidden = false;
    if (this.last && (!this.last.image || this.last.frames) && !clips) {
      this.last = null; // a clip is nothing for this one
      this.turn += 1;
      this.stage.stop();
      this.#closeView();
    }
    if (!this.last) return;
    this.#openView();
    this.stage.layOut();
    this.#askAbout(this.last, ++this.turn).catch((error) => this.#complain(error));
  }

  /** Give the page up: the camera and the video stop, the photo is kept. */
  leave() {
    this.#stopCamera();
    this.turn += 1;
    this.view?.clear();
    this.stage.setRegions([]);
    this.stage.pause();
    this.bundle = null;
    find("stage").hidden = true;
    this.#closeView();
    find("busy").hidden = true;
    timing();
  }

  #choose(bundle, task) {
    Object.assign(this, { bundle, task });
    const words = task.words ?? {};
    find("show-example").hidden = !bundle.example;
    find("file").multiple = Boolean(task.clips);
    find("choose").textContent = words.choose ?? "Choose a photo";
    find("again").textContent = words.another ?? "Another photo";
    find("file").accept = task.clips ? "image/*,video/*,.avi,.mkv" : "image/*";
    find("file").setAttribute("aria-label", task.clips ? "Photo, video or several pictures" : "Photo");
    this.view?.clear();
    this.stage.setRegions([]);
    this.view = task.create({ panel: find("answer"), stage: this.stage, bundle });
    find("title").textContent = find("view-title").textContent = task.title;
    find("lead").textContent = task.lead;
  }

  #openView() {
    find("empty").hidden = true;
    find("view").hidden = false;
    find("place").classList.add("open");
  }

  #closeView() {
    find("view").hidden = true;
    find("empty").hidden = false;
    find("place").classList.remove("open");
  }

  /** Beside the buttons that what failed began with. */
  #complain(error) {
    complain(error, find(find("view").hidden ? "actions" : "tools"));
  }

  #showFiles(files) {
    const { task, limits } = this;
    if (!task?.clips) return this.#show(() => openPhoto(files[0]));
    return this.#show(() => (files.length > 1 ? openFrames(files, limits) : openClip(files[0], limits)));
  }

  #showExample() {
    const { bundle, limits } = this;
    return this.#show(async () => {
      const { image, images } = await askExample(bundle);
      if (image) return openPhoto(pictureOf(image));
      const files = images.map((one, index) => new File([pictureOf(one)], `${index}.png`, { type: "image/png" }));
      return files.length > 1 ? openFrames(files, limits) : openPhoto(files[0]);
    });
  }

  /** @param {() => Promise<object>} open gives what is to be shown and asked about */
  async #show(open) {
    if (!this.bundle) return;
    this.#stopCamera();
    settle();
    const mine = ++this.turn;
    try {
      const shown = await open();
      if (mine !== this.turn) return;
      this.last = shown;
      this.stage.frames = shown.frames ?? [];
      this.#openView();
      this.view.clear();
      if (shown.image) this.stage.show(shown.image, shown.width, shown.height);
      else this.stage.play(shown.url, shown.width, shown.height);
      await this.#askAbout(shown, mine);
    } catch (error) {
      if (mine === this.turn) this.#complain(error);
    }
  }

  async #askAbout(photo, mine) {
    find("busy").hidden = false;
    timing();
    try {
      const answer = await predict(this.bundle, this.task.options, photo.body);
      if (mine !== this.turn) return;
      say(this.view.show(scaled(answer.result, photo.scale), false));
      const server = answer.server === null ? [] : [[answer.server.toFixed(0), "ms in the bundle"]];
      timing([answer.milliseconds.toFixed(0), "ms"], ...server);
    } catch (error) {
      if (mine === this.turn) throw error;
    } finally {
      if (mine === this.turn) find("busy").hidden = true;
    }
  }

  async #startCamera() {
    settle();
    const mine = ++this.turn;
    try {
      this.stage.stop();
      await this.camera.start();
      if (mine !== this.turn) return this.camera.stop();
      this.last = null;
      this.stage.frames = [];
      this.#openView();
      this.view.clear();
      find("busy").hidden = true;
      this.stage.show(null, this.camera.size.width, this.camera.size.height, this.camera.mirrored);
      this.#reflectCamera();
      await (this.task.clips ? this.#watch(mine) : this.#look(mine));
    } catch (error) {
      if (mine !== this.turn) return;
      this.#stopCamera();
      this.#complain(error);
    }
  }

  /** Ask about one camera picture after the other. */
  async #look(mine) {
    let cycle = null; // milliseconds, smoothed
    const { camera, stage } = this;
    while (mine === this.turn && camera.running) {
      const start = performance.now();
      if (document.hidden) {
        await pause(250);
        continue;
      }
      const frame = await camera.grab();
      if (mine !== this.turn || !camera.running) return; // nothing is sent once it was stopped
      const answer = await predict(this.bundle, this.task.options, frame.body);
      if (mine !== this.turn || !camera.running) return;
      if (frame.width !== stage.width || frame.height !== stage.height) {
        stage.show(null, frame.width, frame.height, camera.mirrored); // the device was turned
      }
      this.view.show(scaled(answer.result, frame.scale), true);
      await pause(SHORTEST_CYCLE - (performance.now() - start));
      const took = performance.now() - start;
      cycle = cycle === null ? took : 0.8 * cycle + 0.2 * took;
      if (mine === this.turn) timing([answer.milliseconds.toFixed(0), "ms"], [(1000 / cycle).toFixed(1), "fps"]);
    }
  }

  /** Keep the last frames, and every few seconds ask what they show. */
  async #watch(mine) {
    const frames = new LastFrames(Math.min(CLIP_FRAMES, this.limits.max_images ?? CLIP_FRAMES));
    const { camera } = this;
    let asked = performance.now() - CLIP_CYCLE + 2 * CLIP_PACE; // the first answer soon
    let asking = null;
    while (mine === this.turn && camera.running) {
      const start = performance.now();
      if (!document.hidden) frames.add(await camera.grab());
      if (mine !== this.turn || !camera.running) return; // nothing is sent once it was stopped
      if (!document.hidden && asking === null && start - asked >= CLIP_CYCLE) {
        asked = performance.now(); // not `start`: a frame may take long to come
        asking = predict(this.bundle, this.task.options, frames.form)
          .then((answer) => {
            if (mine !== this.turn || !camera.running) return;
            settle();
            say(this.view.show(answer.result, true));
            timing([answer.milliseconds.toFixed(0), "ms"], [`${CLIP_CYCLE / 1000}`, "s between captions"]);
          })
          .catch((error) => {
            if (mine === this.turn) this.#complain(error);
          })
          .finally(() => {
            asking = null;
          });
      }
      await pause(CLIP_PACE - (performance.now() - start));
    }
  }

  #stopCamera() {
    if (!this.camera.running) return;
    const pressed = document.activeElement === find("live");
    this.turn += 1;
    this.camera.stop();
    this.#reflectCamera();
    this.stage.setRegions([]);
    this.view.clear();
    timing();
    this.#closeView();
    if (pressed) find("camera").focus(); // the button that was pressed is gone
  }

  #reflectCamera() {
    find("live").textContent = this.camera.running ? "Stop the camera" : "Use the camera";
    find("live").setAttribute("aria-pressed", String(this.camera.running));
  }

  #listen() {
    const file = find("file");
    for (const id of ["choose", "again"]) find(id).addEventListener("click", () => file.click());
    find("show-example").addEventListener("click", async () => {
      await this.#showExample();
      if (find("empty").hidden && document.activeElement === document.body) find("again").focus(); // the button is gone
    });
    file.addEventListener("change", () => {
      if (file.files.length) this.#showFiles([...file.files]);
      file.value = ""; // so that the same photo can be chosen twice
    });
    for (const id of ["camera", "live"]) {
      find(id).addEventListener("click", () => (this.camera.running ? this.#stopCamera() : this.#startCamera()));
    }
    addEventListener("paste", (event) => {
      const pictures = picturesIn(event.clipboardData);
      if (pictures.length) this.#showFiles(pictures);
    });
    const dragging = (on) => document.body.classList.toggle("dragging", on && this.bundle !== null);
    addEventListener("dragover", (event) => {
      event.preventDefault();
      dragging(true);
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) dragging(false);
    });
    addEventListener("drop", (event) => {
      event.preventDefault(); // or the browser would leave the page for the file
      dragging(false);
      const pictures = picturesIn(event.dataTransfer);
      if (pictures.length) this.#showFiles(pictures);
    });
  }
}
