// Arrays under numpy's names of types: {dtype, shape, data}, where data is a typed array, or a list of texts.

const TYPES = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array, // its bits: not every engine has numbers of this kind
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};

/** How many numbers an array of this shape has. */
export const count = (shape) => shape.reduce((product, size) => product * size, 1);

/** An empty typed array for so many numbers of a type, or an array over bytes at a place that may be anywhere. */
export function typed(dtype, sizeOrBytes) {
  const Type = TYPES[dtype];
  if (!Type) throw new Error(`arrays of ${dtype} are not known here; known are ${Object.keys(TYPES).join(", ")}`);
  if (typeof sizeOrBytes === "number") return new Type(sizeOrBytes);
  return new Type(new Uint8Array(sizeOrBytes).buffer); // a copy lies where a number of any width may begin
}

/** The bytes of an array's numbers, little-endian as all machines are that run this. */
export const bytesOf = ({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** What ONNX Runtime takes. */
export function toTensor(ort, { dtype, shape, data }) {
  return new ort.Tensor(dtype, data, shape);
}

/** What ONNX Runtime gave, copied out of its memory. */
export function fromTensor({ type, dims, data }) {
  if (type === "string") return { dtype: type, shape: [...dims], data: [...data] };
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return { dtype: type, shape: [...dims], data: typed(type, bytes) };
}
