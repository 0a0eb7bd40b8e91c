// The service's own HTTP interface. Every failure becomes a Failure with words for a person.

import { fetchWithKey } from "./key.js";

export class Failure extends Error {
  /**
   * @param {string} title a few words @param {string} detail a sentence @param {string} [id] the request's id
   * @param {number|null} [status] what the server answered; null where it did not
   */
  constructor(title, detail, id = "", status = null) {
    super(detail);
    Object.assign(this, { title, id, status });
  }
}

const TITLES = {
  400: "The server did not understand the request",
  401: "The service asks for a key",
  404: "That bundle is not here",
  408: "The upload took too long",
  410: "The stream is lost",
  413: "That {thing} is too large",
  415: "That kind of file is not taken",
  422: "That {thing} cannot be read",
  500: "The server failed",
  503: "The server is not ready",
};

/** The address of a bundle, or of what is below it. Relative, so that a proxy may put a prefix before it. */
export function address(bundle, ...below) {
  return ["v1", ...[bundle.name, ...below].map(encodeURIComponent)].join("/");
}

/** A request with JSON in its body. */
export function jsonRequest(value, more = {}) {
  const { headers, ...rest } = more;
  return { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(value), ...rest };
}

/**
 * Send a request; what is no success becomes a Failure.
 * @param {string} url
 * @param {RequestInit} [request]
 * @param {string} [thing] what was sent, in a word
 * @returns {Promise<Response>}
 */
export async function send(url, request, thing = "picture") {
  let response;
  try {
    response = await fetchWithKey(url, request);
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Failure) throw error;
    throw new Failure("The server cannot be reached", "Is it still running? Try again in a moment.");
  }
  if (response.ok) return response;
  const document = await response.json().catch(() => null);
  const title = (TITLES[response.status] ?? `The server answered ${response.status}`).replace("{thing}", thing);
  throw new Failure(title, document?.detail ?? response.statusText, document?.request_id ?? "", response.status);
}

/** Send a request that is answered with JSON. */
export async function ask(url, request, thing) {
  const response = await send(url, request, thing);
  try {
    return { response, document: await response.json() };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The answer broke off", "What came from the server is no whole JSON.", "", response.status);
  }
}

/** The bundles and limits of this server. */
export async function listBundles() {
  return (await ask("v1")).document;
}

/**
 * An input that was recorded in a bundle, as the body of a request: `{image}`, `{images}`, `{prompt}` or `{inputs}`.
 * @param {object} bundle one that has `example`
 */
export async function askExample(bundle) {
  return (await ask(address(bundle, "example"), {}, "example")).document;
}

/** The picture in base64 text. */
export function pictureOf(base64, type = "image/png") {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type });
}

/**
 * Ask a bundle about one picture or clip.
 * @param {object} bundle as `listBundles` gives it
 * @param {Object<string, string>} options
 * @param {Blob|FormData} body an encoded picture or video, or the frames of a clip
 * @param {AbortSignal} [signal]
 * @returns {Promise<{result: object, milliseconds: number, server: number|null}>} the answer, the time from sending to
 *   receiving it, and the part of it that the server spent on decoding and predicting
 */
export async function predict(bundle, options, body, signal) {
  const query = new URLSearchParams(Object.entries(options).filter(([name]) => name in bundle.options));
  const url = `${address(bundle)}${String(query) ? `?${query}` : ""}`;
  const start = performance.now();
  const headers = body instanceof FormData ? {} : { "Content-Type": body.type }; // a form brings its own
  const clip = body instanceof FormData || body.type.startsWith("video/");
  const { response, document } = await ask(url, { method: "POST", headers, body, signal }, clip ? "clip" : "picture");
  const timing = response.headers.get("Server-Timing") ?? "";
  const parts = [...timing.matchAll(/dur=([\d.]+)/g)].map((match) => Number(match[1]));
  return {
    result: document.results[0],
    milliseconds: performance.now() - start,
    server: parts.length ? parts.reduce((sum, part) => sum + part, 0) : null,
  };
}

/**
 * Ask a bundle that can draw for a drawing.
 * @returns {Promise<object>} what is read in it, and `drawn: {label, seed, ink}` with 8 rows of 8 shares
 */
export async function drawDigit(bundle, label, seed) {
  const { document } = await ask(address(bundle, "drawings"), jsonRequest({ label, seed }), "wish");
  return document.results[0];
}

/**
 * Ask a bundle whose task is only a graph.
 * @param {object} bundle
 * @param {object} inputs nested lists by name
 * @returns {Promise<{outputs: object, milliseconds: number}>}
 */
export async function askArrays(bundle, inputs) {
  const start = performance.now();
  const { document } = await ask(address(bundle), jsonRequest({ inputs }), "input");
  return { outputs: document.results[0].outputs, milliseconds: performance.now() - start };
}
