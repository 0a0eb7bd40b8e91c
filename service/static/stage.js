// The picture with what was found in it: boxes on a canvas, and a button under each, so that a keyboard reaches them.

export class Stage {
  /**
   * @param {{stage: HTMLElement, frame: HTMLElement, picture: HTMLCanvasElement, video: HTMLVideoElement,
   *   overlay: HTMLCanvasElement, targets: HTMLElement}} elements
   */
  constructor(elements) {
    Object.assign(this, elements);
    this.image = null;
    this.width = this.height = 1;
    this.mirrored = false;
    this.regions = [];
    this.selected = null;
    this.hovered = null;
    this.url = null; // of the video file that plays
    this.frames = []; // the files of a clip that came as pictures
    this.empty = true; // nothing is shown that a person could look at
    this.onselect = () => {};
    this.buttons = new Map();
    new ResizeObserver(() => this.layOut()).observe(this.stage);
    addEventListener("resize", () => this.layOut());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Show a still picture, or (with null) the video, of the given size in pixels. */
  show(image, width, height, mirrored = false) {
    this.stop();
    this.image?.close?.();
    this.empty = false;
    Object.assign(this, { image, width, height, mirrored });
    this.picture.hidden = image === null;
    this.video.hidden = image !== null;
    this.setRegions([]);
    this.layOut();
  }

  /** Play a video file over and over; without a url (the browser cannot play it) the stage stays dark. */
  play(url, width, height) {
    this.show(null, width, height);
    this.url = url;
    this.empty = url === null;
    this.frame.classList.add("plays");
    if (url === null) return;
    Object.assign(this.video, { src: url, loop: true, controls: true });
    this.video.classList.remove("mirrored");
    this.video.play().catch(() => {}); // then the controls start it
  }

  /** End the video file that plays, if any. */
  stop() {
    this.frame.classList.remove("plays");
    if (this.url === null) return;
    this.video.pause();
    this.video.controls = false;
    this.video.removeAttribute("src");
    this.video.load();
    URL.revokeObjectURL(this.url);
    this.url = null;
  }

  /** Hold the video file that plays, if any. */
  pause() {
    if (this.url !== null) this.video.pause();
  }

  /** Stop the playing video at a moment. @returns {boolean} whether there is one to stop */
  seek(seconds) {
    if (this.url === null || seconds === null) return false;
    this.video.pause();
    this.video.currentTime = seconds;
    return true;
  }

  /**
   * @param {{id: number, box: number[], label: string, short: string, description: string}[]} regions boxes x1 y1 x2
   *   y2 in pixels of the picture; `short` is drawn where `label` would lie over another one or a box; a region that keeps its
   *   id keeps its button, and so the keyboard's focus
   */
  setRegions(regions) {
    this.regions = regions;
    const ids = new Set(regions.map((region) => region.id));
    for (const [id, button] of this.buttons) {
      if (!ids.has(id)) {
        button.remove();
        this.buttons.delete(id);
      }
    }
    for (const region of regions) {
      const button = this.buttons.get(region.id) ?? this.#addButton(region.id);
      const [left, top, right, bottom] = this.#onStage(region.box);
      button.style.left = `${(left / this.width) * 100}%`;
      button.style.top = `${(top / this.height) * 100}%`;
      button.style.width = `${((right - left) / this.width) * 100}%`;
      button.style.height = `${((bottom - top) / this.height) * 100}%`;
      button.setAttribute("aria-label", region.description);
    }
    if (!ids.has(this.selected)) this.selected = null;
    this.#press();
    this.draw();
  }

  /** Mark a region as chosen, without telling the listener. */
  mark(id) {
    this.selected = id;
    this.#press();
    this.draw();
  }

  /** A square thumbnail of a box, drawn on `canvas`. */
  thumbnail(canvas, box, side = 48) {
    const ratio = devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(side * ratio);
    const [x1, y1, x2, y2] = box;
    const size = Math.max(x2 - x1, y2 - y1) * 1.3;
    const source = this.image ?? this.video;
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(source, (x1 + x2 - size) / 2, (y1 + y2 - size) / 2, size, size, 0, 0, canvas.width, canvas.height);
  }

  /** Fit the picture to the room there is, in whole device pixels, and draw it. */
  layOut() {
    const room = this.stage.clientWidth;
    if (!room || this.frame.offsetParent === null) return;
    const tallest = innerHeight * (innerWidth > 900 ? 0.68 : 0.38); // on a narrow screen the answer stands below
    const scale = Math.min(room / this.width, tallest / this.height);
    const width = Math.round(this.width * scale);
    const height = Math.round(this.height * scale);
    this.frame.style.width = `${width}px`;
    this.frame.style.height = `${height}px`;
    const ratio = devicePixelRatio || 1;
    for (const canvas of [this.picture, this.overlay]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    if (this.image) {
      const context = this.picture.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(this.image, 0, 0, this.picture.width, this.picture.height);
    }
    this.draw();
  }

  /** Draw the boxes and labels. */
  draw() {
    const context = this.overlay.getContext("2d");
    context.clearRect(0, 0, this.overlay.width, this.overlay.height);
    const ratio = devicePixelRatio || 1;
    const scale = this.overlay.width / this.width;
    const chosen = (region) => region.id === this.selected;
    const ordered = [...this.regions].sort((a, b) => chosen(a) - chosen(b)); // the chosen one on top
    this.labels = []; // where they are: left, top, right, bottom
    for (const region of ordered) this.#drawRegion(context, region, scale, ratio, chosen(region));
  }

  #drawRegion(context, region, scale, ratio, chosen) {
    const [left, top, right, bottom] = this.#onStage(region.box).map((value) => value * scale);
    const style = getComputedStyle(document.documentElement);
    const [mark, accent, onAccent] = ["--mark", "--accent", "--on-accent"].map((name) => style.getPropertyValue(name));
    const radius = Math.min(10 * ratio, (right - left) / 5);
    const outline = (width, color) => {
      context.beginPath();
      context.roundRect(left, top, right - left, bottom - top, radius);
      context.lineWidth = width * ratio;
      context.strokeStyle = color;
      context.stroke();
    };
    const strong = chosen || region.id === this.hovered;
    outline(strong ? 6 : 4.5, "#0009"); // a dark edge keeps the line visible on bright pictures
    outline(strong ? 3.5 : 2, chosen ? mark : "#fff");

    context.font = `650 ${14 * ratio}px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif`;
    context.textBaseline = "middle";
    const height = 24 * ratio;
    const above = Math.max(top - height - 5 * ratio, 2 * ratio);
    const below = Math.min(bottom + 5 * ratio, this.overlay.height - height - 2 * ratio);
    const places = [];
    for (const label of [region.label, region.short]) {
      const width = context.measureText(label).width + 16 * ratio;
      const x = Math.min(Math.max(left - ratio, 2 * ratio), this.overlay.width - width - 2 * ratio);
      for (const y of top - height - 5 * ratio === above ? [above, below] : [below, above]) places.push({ label, width, x, y });
    }
    const boxes = this.regions.filter((other) => other !== region).map((other) => this.#onStage(other.box).map((value) => value * scale));
    const misses = (all) => ({ x, y, width }) => all.every(([l, t, r, b]) => x > r || x + width < l || y > b || y + height < t);
    const { label, width, x, y } = places.find(misses([...this.labels, ...boxes])) ?? places.find(misses(this.labels)) ?? places[0];
    this.labels.push([x, y, x + width, y + height]);
    context.beginPath();
    context.roundRect(x, y, width, height, 8 * ratio);
    context.fillStyle = chosen ? accent : "#10141be0";
    context.fill();
    context.fillStyle = chosen ? onAccent : "#fff";
    context.fillText(label, x + 8 * ratio, y + height / 2 + ratio);
  }

  #onStage([x1, y1, x2, y2]) {
    return this.mirrored ? [this.width - x2, y1, this.width - x1, y2] : [x1, y1, x2, y2];
  }

  #addButton(id) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "target";
    button.addEventListener("click", () => {
      this.mark(id);
      this.onselect(id);
    });
    const hover = (value) => () => {
      this.hovered = value;
      this.draw();
    };
    button.addEventListener("pointerenter", hover(id));
    button.addEventListener("pointerleave", hover(null));
    this.targets.append(button);
    this.buttons.set(id, button);
    return button;
  }

  #press() {
    for (const [id, button] of this.buttons) button.setAttribute("aria-pressed", String(id === this.selected));
  }
}
