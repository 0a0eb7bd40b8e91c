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

/**
 * Open pictures as the frames of one clip, in the order of their names.
 * @param {File[]} files
 * @param {{max_bytes: number, max_images: number}} limits the server's; of more pictures, so many are taken at even steps
 * @returns what `openPhoto` gives of the first one, and the files as `frames`
 */
export async function openFrames(files, limits) {
  const named = [...files].sort((a, b) => (a.name ?? "").localeCompare(b.name ?? "", "en", { numeric: true }));
  const count = Math.min(named.length, limits.max_images ?? named.length);
  const chosen = Array.from({ length: count }, (_, index) => named[Math.floor(((index + 0.5) * named.length) / count)]);
  const body = new FormData();
  let first = null;
  let bytes = 0;
  for (const [index, file] of chosen.entries()) {
    const { image, ...photo } = await openPhoto(file);
    if (first === null) first = { image, ...photo };
    else image.close();
    if (photo.width !== first.width || photo.height !== first.height) {
      const sizes = `“${chosen[0].name}” has ${first.width} × ${first.height} pixels, “${file.name}” ${photo.width} × ${photo.height}`;
      throw new Failure("Those pictures are no clip", `The frames of a clip have one size. ${sizes}.`);
    }
    bytes += photo.body.size;
    body.append("frame", photo.body, `${index}`);
  }
  if (bytes > limits.max_bytes) {
    throw new Failure("Those pictures are too large", `They have ${(bytes / 2 ** 20).toFixed(1)} MB, and this server takes ${(limits.max_bytes / 2 ** 20).toFixed(1)}.`);
  }
  return { ...first, body, scale: 1, frames: chosen };
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
