// Where pictures come from: a file, the clipboard, a drop, or the camera.

import { Failure } from "./api.js";

const LONGEST_PHOTO = 2048; // pixels; more only costs time on the way
const LONGEST_FRAME = 640; // pixels of a camera frame; a live answer wants speed
const SENT_AS_IT_IS = new Set(["image/jpeg", "image/png", "image/webp"]);

/**
 * Open a photo for the screen and for the server.
 * @param {Blob} file
 * @returns {Promise<{image: ImageBitmap, width: number, height: number, body: Blob, scale: number}>} `scale` is the
 *   size of what is sent over the size of what is shown: an answer's pixels are divided by it
 */
export async function openPhoto(file) {
  let image;
  try {
    image = await createImageBitmap(file); // upright: browsers follow the EXIF orientation, as the server does
  } catch {
    const name = file.name ? `“${file.name}”` : "What you gave";
    throw new Failure("That file is not a photo", `${name} cannot be opened as a picture. JPEG, PNG and WebP work.`);
  }
  const { width, height } = image;
  const scale = Math.min(1, LONGEST_PHOTO / Math.max(width, height));
  const asItIs = scale === 1 && SENT_AS_IT_IS.has(file.type);
  const body = asItIs ? file : await encode(image, width, height, scale, 0.92);
  return { image, width, height, body, scale };
}

async function encode(source, width, height, scale, quality) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    const done = (blob) => (blob ? resolve(blob) : reject(new Failure("That photo is too large", "The browser cannot hold it.")));
    canvas.toBlob(done, "image/jpeg", quality);
  });
}

/** The pictures among dropped or pasted things, or, if there is none, what was given instead. */
export function picturesIn(transfer) {
  const files = [...(transfer?.files ?? [])];
  const pictures = files.filter((file) => file.type.startsWith("image/"));
  return pictures.length ? pictures : files.slice(0, 1);
}

/** A running camera. */
export class Camera {
  /** @param {HTMLVideoElement} video shows the camera's picture while it runs */
  constructor(video) {
    this.video = video;
    this.stream = null;
  }

  get running() {
    return this.stream !== null;
  }

  get size() {
    return { width: this.video.videoWidth, height: this.video.videoHeight };
  }

  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Failure("The camera cannot be used here", "Browsers allow it only over https, or when the page is opened at localhost.");
    }
    try {
      const wish = { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "user" };
      this.stream = await navigator.mediaDevices.getUserMedia({ video: wish, audio: false });
    } catch (error) {
      throw new Failure("The camera did not start", CAMERA_WORDS[error.name] ?? error.message);
    }
    this.video.srcObject = this.stream;
    // People expect a mirror of the camera that faces them, and not of the one that faces away.
    this.mirrored = this.stream.getVideoTracks()[0].getSettings().facingMode !== "environment";
    this.video.classList.toggle("mirrored", this.mirrored);
    await this.video.play();
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
  }

  /** The picture of this moment, for the server; not mirrored. */
  async grab() {
    const { width, height } = this.size;
    const scale = Math.min(1, LONGEST_FRAME / Math.max(width, height));
    return { body: await encode(this.video, width, height, scale, 0.85), width, height, scale };
  }
}

const CAMERA_WORDS = {
  NotAllowedError: "It is blocked for this page. The browser's address bar has a switch for it.",
  NotFoundError: "No camera was found on this device.",
  NotReadableError: "Another program is using it.",
  OverconstrainedError: "No camera with a usable picture was found.",
};
