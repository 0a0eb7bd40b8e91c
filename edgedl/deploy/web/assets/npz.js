// Reads npz files: a zip of npy arrays. The same code runs in a browser and in Node.

import { count, typed } from "./arrays.js";

const [END, ENTRY] = [0x06054b50, 0x02014b50]; // signatures of a zip: its end, an entry of its directory
const LONGEST_COMMENT = 65557; // bytes from which on the end cannot begin
const KINDS = { f2: "float16", f4: "float32", f8: "float64", i1: "int8", i2: "int16", i4: "int32", i8: "int64", u1: "uint8", u2: "uint16", u4: "uint32", u8: "uint64", b1: "bool" };

/** @param {Uint8Array} bytes @returns {Promise<Map<string, Uint8Array>>} the files of a zip by name */
export async function readZip(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  while (end >= Math.max(0, bytes.length - LONGEST_COMMENT) && view.getUint32(end, true) !== END) end -= 1;
  if (end < 0 || view.getUint32(end, true) !== END) throw new Error("the recorded answers are no zip file");
  const files = new Map();
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left -= 1) {
    if (view.getUint32(at, true) !== ENTRY) throw new Error("the directory of the recorded answers is damaged");
    const [method, packed, size] = [view.getUint16(at + 10, true), view.getUint32(at + 20, true), view.getUint32(at + 24, true)];
    const [name, extra, comment] = [28, 30, 32].map((place) => view.getUint16(at + place, true));
    const local = view.getUint32(at + 42, true);
    const begin = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const data = bytes.subarray(begin, begin + packed);
    const whole = method === 8 ? await inflated(data) : data;
    if (whole.length !== size) throw new Error("a recorded answer is damaged");
    files.set(new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + name)), whole);
    at += 46 + name + extra + comment;
  }
  return files;
}

async function inflated(data) {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** @param {Uint8Array} bytes of an npy file @returns {{dtype: string, shape: number[], data: object}} */
export function readNpy(bytes) {
  const long = bytes[6] > 1; // the header's length has four bytes from version 2 on
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const begin = long ? 12 : 10;
  const length = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder().decode(bytes.subarray(begin, begin + length));
  const found = /'descr': '([<|=])([a-zA-Z])(\d+)', 'fortran_order': False, 'shape': \(([\d, ]*)\)/.exec(header);
  if (!found) throw new Error(`an array that cannot be read here: ${header.trim()}`);
  const [, , kind, width, sizes] = found;
  const shape = sizes.split(",").filter((size) => size.trim()).map(Number);
  const data = bytes.subarray(begin + length);
  if (kind === "U") return { dtype: "string", shape, data: texts(data, Number(width), count(shape)) };
  return { dtype: KINDS[`${kind}${width}`] ?? `${kind}${width}`, shape, data: typed(KINDS[`${kind}${width}`], data) };
}

/** numpy's texts have a fixed number of code points of four bytes each, filled up with zeros. */
function texts(bytes, width, number) {
  const points = new Uint32Array(new Uint8Array(bytes).buffer);
  return Array.from({ length: number }, (_, index) => {
    const text = String.fromCodePoint(...points.subarray(index * width, (index + 1) * width));
    return text.replace(/\0+$/, "");
  });
}

/** @param {Uint8Array} bytes of recorded answers @returns {Promise<{name: string, inputs: object, outputs: object}[]>} */
export async function readCases(bytes) {
  const cases = new Map();
  for (const [path, data] of await readZip(bytes)) {
    const [index, name, side, ...tensor] = path.split("/");
    const one = cases.get(index) ?? { name, inputs: {}, outputs: {} };
    cases.set(index, one);
    one[side === "in" ? "inputs" : "outputs"][tensor.join("/").replace(/\.npy$/, "")] = readNpy(data);
  }
  return [...cases.entries()].sort(([one], [other]) => Number(one) - Number(other)).map(([, one]) => one);
}
