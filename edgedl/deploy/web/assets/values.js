// Numbers as JSON gives them, as arrays of the declared types, and back: runtime/values.py and runtime/lines.py.

import { count, typed } from "./arrays.js";
import { Refused } from "./refused.js";

/** The shape of nested lists; every list of a depth has the same length, or it is no array. */
function shapeOf(value) {
  if (!Array.isArray(value)) return [];
  const shapes = value.map(shapeOf);
  const first = shapes[0] ?? [];
  if (shapes.some((shape) => String(shape) !== String(first))) throw new Refused("Lists of unequal lengths are no array.");
  return [value.length, ...first];
}

function number(name, dtype, value) {
  const refuse = (expected) => new Refused(`${name} holds ${JSON.stringify(value)?.slice(0, 60)}; the input ${name} (${dtype}) needs ${expected}.`);
  if (dtype === "bool") {
    if (typeof value !== "boolean") throw refuse("true or false");
    return Number(value);
  }
  if (dtype === "string") {
    if (typeof value !== "string") throw refuse("texts");
    return value;
  }
  if (typeof value !== "number" || !Number.isFinite(value)) throw refuse("numbers");
  if (dtype === "float32" && !Number.isFinite(Math.fround(value))) throw refuse("finite numbers that float32 can hold");
  if (dtype.startsWith("float")) return value;
  if (!Number.isSafeInteger(value)) throw refuse("whole numbers");
  return dtype.endsWith("int64") ? BigInt(value) : value;
}

/** @param {object} spec an input as the manifest declares it @param {*} value nested lists */
export function asArray({ name, dtype }, value) {
  const shape = shapeOf(value);
  const flat = (Array.isArray(value) ? value.flat(shape.length) : [value]).map((one) => number(name, dtype, one));
  if (dtype === "string") return { dtype, shape, data: flat };
  const data = typed(dtype, flat.length);
  data.set(flat);
  if (dtype.includes("int") && flat.some((one, index) => data[index] !== one)) throw new Refused(`${name} holds a number that ${dtype} cannot hold.`);
  return { dtype, shape, data };
}

/** Nested lists; a flat list of one number is that number where the shape is empty. */
export function asLists({ dtype, shape, data }) {
  const plain = (value) => (dtype === "bool" ? Boolean(value) : dtype === "string" ? value : dtype === "float32" ? shortest(value) : Number(value));
  const nested = ([size, ...rest], begin) => {
    if (size === undefined) return plain(data[begin]);
    const step = count(rest);
    return Array.from({ length: size }, (_, index) => nested(rest, begin + index * step));
  };
  return nested(shape, 0);
}

/** As short as float32 says it: 0.1, not 0.10000000149011612. */
function shortest(value) {
  for (let digits = 6; digits < 9; digits += 1) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return Number(value.toPrecision(9));
}

/** Refuses inputs that the graph does not take: names, types, shapes, and sizes out of their range. */
export function checkInputs(spec, inputs) {
  const sizes = {};
  for (const name of Object.keys(inputs)) {
    if (!spec.inputs.some((tensor) => tensor.name === name)) throw new Refused(`There is no input ${name}; there are ${spec.inputs.map((one) => one.name).join(", ")}.`);
  }
  for (const { name, shape } of spec.inputs) {
    if (!(name in inputs)) throw new Refused(`The input ${name} is missing.`);
    const found = inputs[name].shape;
    const wrong = new Refused(`${name} has the shape [${found.join(", ")}]; expected [${shape.join(", ")}].`);
    if (found.length !== shape.length) throw wrong;
    found.forEach((size, axis) => {
      const declared = shape[axis];
      if (typeof declared === "number" ? size !== declared : (sizes[declared] ??= size) !== size) throw wrong;
      const { min = 1, max = null } = spec.dimensions?.[declared] ?? {};
      if (size < Math.max(1, min) || (max !== null && size > max)) {
        throw new Refused(`${name} has ${size} along ${declared}; expected ${Math.max(1, min)}${max === null ? " or more" : ` to ${max}`}.`);
      }
    });
  }
}
