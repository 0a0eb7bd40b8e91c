// Runs a model of a packed bundle with onnxruntime-node (npm install onnxruntime-node).
//   node edge.mjs BUNDLE MODEL                replays the recorded answers; exit status 1 if one is too far off
//   node edge.mjs BUNDLE MODEL FILE SHAPE …   answers raw numbers, a file for each input, e.g. photo.rgb 1,480,640,3
import { openSync, readFileSync, readSync } from "node:fs";
import { inflateRawSync } from "node:zlib";
import ort from "onnxruntime-node";

const TYPES = {
  float32: Float32Array, float64: Float64Array, uint8: Uint8Array, int64: BigInt64Array, bool: Uint8Array,
  f4: Float32Array, f8: Float64Array, u1: Uint8Array, i8: BigInt64Array, b1: Uint8Array,
}; // as the manifest and npy call them

/** The files of a zip by name. */
function* members(zip) {
  let at = zip.readUInt32LE(zip.lastIndexOf("PK\x05\x06", undefined, "latin1") + 16); // the directory, then its entries
  for (; zip.readUInt32LE(at) === 0x02014b50; at += 46 + zip.readUInt16LE(at + 28) + zip.readUInt16LE(at + 30)) {
    const [method, packed, local] = [zip.readUInt16LE(at + 10), zip.readUInt32LE(at + 20), zip.readUInt32LE(at + 42)];
    const begin = local + 30 + zip.readUInt16LE(local + 26) + zip.readUInt16LE(local + 28);
    const bytes = zip.subarray(begin, begin + packed);
    yield [zip.toString("utf8", at + 46, at + 46 + zip.readUInt16LE(at + 28)), method ? inflateRawSync(bytes) : bytes];
  }
}
/** Bytes at any place as numbers of a shape. */
const tensor = (kind, shape, bytes) => ({ shape, data: new TYPES[kind](new Uint8Array(bytes).buffer) });

function readNpy(bytes) {
  const end = 10 + bytes.readUInt16LE(8);
  const [, kind, sizes] = /'descr': '.(\w\d)'.*'shape': \(([\d, ]*)\)/.exec(bytes.toString("latin1", 10, end));
  return tensor(kind, sizes.split(",").filter((size) => size.trim()).map(Number), bytes.subarray(end));
}

/** The recorded cases: what went in, and what the reference answered. */
function recorded(npz) {
  const cases = [];
  for (const [path, bytes] of members(npz)) {
    const [index, name, side, key] = path.replace(/\.npy$/, "").split("/"); // "003/batch 7/out/age.npy"
    cases[Number(index)] ??= { name, in: {}, out: {} };
    cases[Number(index)][side][key] = readNpy(bytes);
  }
  return cases;
}

const [bundle, name, ...given] = process.argv.slice(2);
const files = new Map(members(readFileSync(bundle)));
const model = JSON.parse(files.get("manifest.json")).models[name];
if (!model) throw new Error(`${bundle} has no model ${name}`);
const session = await ort.InferenceSession.create(files.get(model.variants.fp32.file));

function run(inputs) {
  const fed = ({ name: input, dtype }) => [input, new ort.Tensor(dtype, inputs[input].data, inputs[input].shape)];
  return session.run(Object.fromEntries(model.inputs.map(fed)));
}

/** How many numbers are further from the recorded ones than they may be. */
function wrong(output, expected, answer) {
  const { atol, rtol } = model.parity.outputs[output];
  if (expected.data.length !== answer.data.length) return expected.data.length;
  const far = (a, b) => a !== b && !(Math.abs(a - b) <= atol + rtol * Math.abs(a));
  return Array.from(expected.data, Number).filter((truth, index) => far(truth, Number(answer.data[index]))).length;
}

if (given.length) {
  const inputs = Object.fromEntries(model.inputs.map(({ name: input, dtype }, index) => {
    const shape = given[2 * index + 1].split(",").map(Number);
    const bytes = new Uint8Array(shape.reduce((product, size) => product * size, TYPES[dtype].BYTES_PER_ELEMENT));
    readSync(openSync(given[2 * index]), bytes);
    return [input, tensor(dtype, shape, bytes)];
  }));
  const answers = Object.entries(await run(inputs));
  for (const [output, { data }] of answers) console.log(`${output} ${Array.from(data, Number).join(" ")}`);
} else {
  const cases = recorded(files.get(model.golden.file));
  let count = 0;
  for (const one of cases) {
    const answers = await run(one.in);
    for (const [output, expected] of Object.entries(one.out)) count += wrong(output, expected, answers[output]);
  }
  console.log(`${cases.length} cases, ${count} wrong numbers`);
  process.exitCode = count ? 1 : 0;
}
