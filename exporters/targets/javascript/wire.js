// The messages of wire.py in JavaScript: a length, a header as JSON, and raw tensors.

import { bytesOf, count, typed } from "./arrays.js";

const LENGTH = 8; // bytes of a length

const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The length that stands at a place. */
export const lengthAt = (bytes, place = 0) => Number(view(bytes).getBigInt64(place, true));

/**
 * The bytes of a message.
 * @param {object} header JSON-able @param {object} [tensors] arrays by name, see arrays.js
 */
export function pack(header, tensors = {}) {
  const raw = [];
  const described = Object.entries(tensors).map(([name, array]) => {
    const { dtype, shape, data } = array;
    if (dtype === "string") return { name, dtype, shape, values: data };
    raw.push(bytesOf(array));
    return { name, dtype, shape };
  });
  let text = new TextEncoder().encode(JSON.stringify({ ...header, tensors: described }));
  const padded = new Uint8Array(Math.ceil(text.length / 8) * 8).fill(0x20);
  padded.set(text);
  text = padded;
  const body = LENGTH + text.length + raw.reduce((sum, bytes) => sum + bytes.length, 0);
  const message = new Uint8Array(LENGTH + body);
  view(message).setBigInt64(0, BigInt(body), true);
  view(message).setBigInt64(LENGTH, BigInt(text.length), true);
  message.set(text, 2 * LENGTH);
  let place = 2 * LENGTH + text.length;
  for (const bytes of raw) {
    message.set(bytes, place);
    place += bytes.length;
  }
  return message;
}

/** @param {Uint8Array} body a message without its length @returns {{header: object, tensors: object}} */
export function unpack(body) {
  let place = LENGTH + lengthAt(body);
  const { tensors: described, ...header } = JSON.parse(new TextDecoder().decode(body.subarray(LENGTH, place)));
  const tensors = {};
  for (const { name, dtype, shape, values } of described) {
    if (dtype === "string") {
      tensors[name] = { dtype, shape, data: values };
      continue;
    }
    const size = count(shape) * typed(dtype, 0).BYTES_PER_ELEMENT;
    tensors[name] = { dtype, shape, data: typed(dtype, body.subarray(place, place + size)) };
    place += size;
  }
  return { header, tensors };
}
