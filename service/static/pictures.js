// The view of the tasks that look at pictures: takes photos, clips and the camera, asks, and hands the answer on.

import { predict } from "./api.js";
import { LastFrames, openClip } from "./clip.js";
import { element } from "./element.js";
import { complain, say, settle } from "./messages.js";
import { pause } from "./pause.js";
import { Camera, openPhoto, pictureIn } from "./source.js";
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
    if (this.last && !this.last.image && !clips) {
      this.last = null; // a video is nothing for this one
      this.turn += 1;
      this.stage.stop();
      this.#closeView();
    }
    if (!this.last) return;
    this.#openView();
    this.stage.layOut();
    this.#askAbout(this.last, ++this.turn).catch(complain);
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
    find("choose").textContent = words.choose ?? "Choose a photo";
    find("again").textContent = words.another ?? "Another photo";
    find("file").accept = task.clips ? "image/*,video/*,.avi,.mkv" : "image/*";
    find("file").setAttribute("aria-label", task.clips ? "Photo or video" : "Photo");
    this.view?.clear();
    this.stage.setRegions([]);
    this.view = task.create({ panel: find("answer"), stage: this.stage, bundle });
    find("title").textContent = task.title;
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

  async #showFile(file) {
    if (!this.bundle) return;
    this.#stopCamera();
    settle();
    const mine = ++this.turn;
    try {
      const shown = await (this.task.clips ? openClip(file, this.limits) : openPhoto(file));
      if (mine !== this.turn) return;
      this.last = shown;
      this.#openView();
      this.view.clear();
      if (shown.image) this.stage.show(shown.image, shown.width, shown.height);
      else this.stage.play(shown.url, shown.width, shown.height);
      await this.#askAbout(shown, mine);
    } catch (error) {
      if (mine === this.turn) complain(error);
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
      this.#openView();
      this.view.clear();
      find("busy").hidden = true;
      this.stage.show(null, this.camera.size.width, this.camera.size.height, this.camera.mirrored);
      this.#reflectCamera();
      await (this.task.clips ? this.#watch(mine) : this.#look(mine));
    } catch (error) {
      if (mine !== this.turn) return;
      this.#stopCamera();
      complain(error);
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
            if (mine === this.turn) complain(error);
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
    file.addEventListener("change", () => {
      if (file.files.length) this.#showFile(file.files[0]);
      file.value = ""; // so that the same photo can be chosen twice
    });
    for (const id of ["camera", "live"]) {
      find(id).addEventListener("click", () => (this.camera.running ? this.#stopCamera() : this.#startCamera()));
    }
    addEventListener("paste", (event) => {
      const picture = pictureIn(event.clipboardData);
      if (picture) this.#showFile(picture);
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
      const picture = pictureIn(event.dataTransfer);
      if (picture) this.#showFile(picture);
    });
  }
}
