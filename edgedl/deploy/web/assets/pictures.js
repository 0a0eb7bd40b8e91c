// Pictures and clips as pixels: what runtime/media does in Python.

import { Refused } from "./refused.js";

const MOST_BYTES = 64 << 20; // of all frames of a clip together
const RATE = 30; // frames a second that a video is taken to have: browsers do not tell
const PATIENCE = 10_000; // milliseconds for one frame of a video

/** An encoded picture as {width, height, data}: RGB, uint8, upright; what is transparent is laid over white. */
export async function pixelsOf(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new Refused("This browser cannot open that as a picture.", 415);
  }
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return withoutAlpha(context.getImageData(0, 0, width, height));
}

function withoutAlpha({ width, height, data }) {
  const rgb = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    rgb[to] = data[from];
    rgb[to + 1] = data[from + 1];
    rgb[to + 2] = data[from + 2];
  }
  return { width, height, data: rgb };
}

/** Each pixel the mean of factor × factor; what is left over at the edges is cut off, half of it on each side. */
function shrunk({ width, height, data }, factor, centred) {
  const [columns, rows] = [Math.floor(width / factor), Math.floor(height / factor)];
  const [left, top] = centred ? [(width - columns * factor) >> 1, (height - rows * factor) >> 1] : [0, 0];
  const small = new Uint8Array(3 * columns * rows);
  const scale = Math.fround(1 / (factor * factor));
  for (let y = 0, to = 0; y < rows; y += 1) {
    for (let x = 0; x < columns; x += 1) {
      for (let channel = 0; channel < 3; channel += 1, to += 1) {
        let sum = 0;
        for (let dy = 0; dy < factor; dy += 1) {
          let from = 3 * ((top + y * factor + dy) * width + left + x * factor) + channel;
          for (let dx = 0; dx < factor; dx += 1, from += 3) sum += data[from];
        }
        // OpenCV rounds the mean of four up at a half, any other to the even neighbour.
        small[to] = factor === 2 ? (sum + 2) >> 2 : even(Math.fround(sum * scale));
      }
    }
  }
  return { width: columns, height: rows, data: small };
}

function even(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** As `runtime.faces.halved`: halved as often as the factor holds a 2. */
export function halved(picture, factor) {
  let [image, done] = [picture, 1];
  while (factor >= 2 * done && Math.min(image.width, image.height) >= 2) {
    image = shrunk(image, 2, false);
    done *= 2;
  }
  return image;
}

/** As `runtime.media.frames.reduced`: by a whole factor, until the shorter side has at most so many pixels. */
export function reduced(picture, shorter) {
  const side = Math.min(picture.width, picture.height);
  return side <= shorter ? picture : shrunk(picture, Math.ceil(side / shorter), true);
}

/** As `runtime.media.frames.FrameSampling.indices`. */
export function sampled({ kind, n, most }, count) {
  if (kind === "even") return Array.from({ length: Math.min(n, count) }, (_, i) => (count <= n ? i : Math.floor(((2 * i + 1) * count) / (2 * n))));
  let step = n;
  while (Math.ceil(count / step) > most) step *= 2;
  return Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step);
}

/**
 * The frames of a clip that a bundle looks at.
 * @param {Blob|FormData} body a picture, a video, or pictures
 * @param {{frames: object, shorter: number}} settings of the bundle
 * @returns {Promise<{frames: object[], indices: number[], seconds: (number|null)[], note?: string}>}
 */
export async function framesOf(body, { frames: sampling, shorter }) {
  if (!(body instanceof FormData) && body.type.startsWith("video/")) return videoFrames(body, sampling, shorter);
  const blobs = body instanceof FormData ? [...body.values()] : [body];
  const chosen = sampling.kind === "even" ? sampling : { ...sampling, n: 1 }; // somebody has chosen them already
  const indices = sampled(chosen, blobs.length);
  const frames = [];
  for (const index of indices) frames.push(reduced(await pixelsOf(blobs[index]), shorter));
  checkSizes(frames);
  return { frames, indices, seconds: blobs.length === 1 ? [0] : indices.map(() => null) };
}

function checkSizes(frames) {
  const [first] = frames;
  for (const { width, height } of frames) {
    if (width !== first.width || height !== first.height) {
      throw new Refused(`The frames of one clip have one size; here are ${first.width}×${first.height} and ${width}×${height} pixels.`);
    }
  }
  if (frames.length * first.data.length > MOST_BYTES) throw new Refused("The frames of the clip have too many pixels together.", 413);
}

async function videoFrames(blob, sampling, shorter) {
  const video = document.createElement("video");
  const url = URL.createObjectURL(blob);
  Object.assign(video, { muted: true, preload: "auto", src: url });
  try {
    await happened(video, "loadeddata");
    if (!Number.isFinite(video.duration) || !video.videoWidth) throw new Refused("This browser cannot play that video.", 415);
    const count = Math.max(1, Math.round(video.duration * RATE));
    const indices = sampled(sampling, count);
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const frames = [];
    for (const index of indices) {
      const sought = happened(video, "seeked");
      video.currentTime = (index + 0.5) / RATE;
      await sought;
      context.drawImage(video, 0, 0);
      frames.push(reduced(withoutAlpha(context.getImageData(0, 0, canvas.width, canvas.height)), shorter));
    }
    checkSizes(frames);
    return { frames, indices, seconds: indices.map((index) => index / RATE), note: "in a browser the frames of a video are chosen by their time" };
  } finally {
    video.removeAttribute("src");
    URL.revokeObjectURL(url);
  }
}

function happened(video, event) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Refused("This browser took too long with that video.")), PATIENCE);
    video.addEventListener(event, () => (clearTimeout(timer), resolve()), { once: true });
    video.addEventListener("error", () => (clearTimeout(timer), reject(new Refused("This browser cannot play that video.", 415))), { once: true });
  });
}

/** A picture as a small JPEG in a data URL. */
export async function thumbnail({ width, height, data }, tallest) {
  const scale = Math.min(1, tallest / height, (2 * tallest) / width);
  const whole = new OffscreenCanvas(width, height);
  const rgba = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) rgba.set(data.subarray(from, from + 3), to);
  whole.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
  const small = new OffscreenCanvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  const context = small.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(whole, 0, 0, small.width, small.height);
  const bytes = new Uint8Array(await (await small.convertToBlob({ type: "image/jpeg", quality: 0.8 })).arrayBuffer());
  return `data:image/jpeg;base64,${btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""))}`;
}
