// Clips: a video or a photo from a file, and the last frames of a running camera.

import { Failure } from "./api.js";
import { openPhoto } from "./source.js";

const PATIENCE = 5000; // milliseconds until a video that says nothing counts as one that the browser cannot play
const UNNAMED = new Set(["", "application/octet-stream", "application/x-matroska", "application/ogg"]);

/**
 * Open a photo or a video for the screen and for the server.
 * @param {File} file
 * @param {{max_bytes: number}} limits the server's
 * @returns what `openPhoto` gives; for a video `image` is null, and `url` is where the browser can play it, or null
 *   where it cannot (the server may still read it)
 */
export async function openClip(file, limits) {
  if (!file.type.startsWith("video/")) {
    try {
      return await openPhoto(file);
    } catch (failure) {
      if (file.type.startsWith("image/")) throw failure;
      if (!UNNAMED.has(file.type)) {
        const name = file.name ? `“${file.name}”` : "What you gave";
        throw new Failure("That file is neither photo nor video", `${name} cannot be opened as one.`);
      }
    }
  }
  if (file.size > limits.max_bytes) {
    const megabytes = (bytes) => (bytes / 2 ** 20).toFixed(bytes < 2 ** 24 ? 1 : 0);
    const found = `It has ${megabytes(file.size)} MB, and this server takes ${megabytes(limits.max_bytes)}.`;
    throw new Failure("That video is too large", `${found} Cut a piece out of it, or scale it down.`);
  }
  const body = file.type.startsWith("video/") ? file : file.slice(0, file.size, "video/unknown");
  const url = URL.createObjectURL(file);
  const size = await measure(url);
  if (size === null) URL.revokeObjectURL(url);
  return { image: null, url: size && url, width: size?.width ?? 16, height: size?.height ?? 9, body, scale: 1 };
}

/** The size of a video in pixels, or null if this browser cannot play it. */
function measure(url) {
  return new Promise((resolve) => {
    const video = document.createElement("video");
    const done = (size) => {
      clearTimeout(timer);
      video.removeAttribute("src");
      resolve(size);
    };
    const timer = setTimeout(() => done(null), PATIENCE);
    video.preload = "metadata";
    video.muted = true;
    video.addEventListener("loadedmetadata", () => {
      const { videoWidth: width, videoHeight: height } = video;
      done(width && height ? { width, height } : null);
    });
    video.addEventListener("error", () => done(null), { once: true });
    video.src = url;
  });
}

/** The last frames of a camera, as the body of a request. */
export class LastFrames {
  /** @param {number} most how many are kept */
  constructor(most) {
    this.most = most;
    this.frames = [];
    this.size = "";
  }

  /** @param {{body: Blob, width: number, height: number}} frame as `Camera.grab` gives it */
  add({ body, width, height }) {
    const size = `${width}×${height}`;
    if (size !== this.size) this.frames = []; // the device was turned; frames of one clip have one size
    this.size = size;
    this.frames.push(body);
    if (this.frames.length > this.most) this.frames.shift();
  }

  get form() {
    const form = new FormData();
    for (const [index, body] of this.frames.entries()) form.append("frame", body, `${index}.jpg`);
    return form;
  }
}
