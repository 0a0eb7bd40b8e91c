// The random numbers of numpy: the same seed gives the same numbers as in Python.
//
// PCG64 (O'Neill 2014, XSL RR 128/64), seeded by numpy's SeedSequence. Only its raw bits and what numpy has made of them
// for float32 since 1.17 are here.

const U32 = 0xffffffffn;
const U64 = (1n << 64n) - 1n;
const U128 = (1n << 128n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;
const POOL = 4;

class Hash {
  constructor(constant, factor) {
    Object.assign(this, { constant, factor });
  }

  of(value) {
    let word = (value ^ this.constant) >>> 0;
    this.constant = Math.imul(this.constant, this.factor) >>> 0;
    word = Math.imul(word, this.constant) >>> 0;
    return (word ^ (word >>> 16)) >>> 0;
  }
}

function mixed(one, other) {
  const word = (Math.imul(one, 0xca01f9dd) - Math.imul(other, 0x4973f715)) >>> 0;
  return (word ^ (word >>> 16)) >>> 0;
}

/** @param {bigint} seed @returns {number[]} eight words of 32 bits, as `SeedSequence(seed).generate_state(8)` */
function seedWords(seed) {
  const entropy = [];
  for (let left = seed; left > 0n || entropy.length === 0; left >>= 32n) entropy.push(Number(left & U32));
  const hash = new Hash(0x43b0d7e5, 0x931e8875);
  const pool = Array.from({ length: POOL }, (_, index) => hash.of(entropy[index] ?? 0));
  for (let source = 0; source < POOL; source += 1) {
    for (let target = 0; target < POOL; target += 1) {
      if (source !== target) pool[target] = mixed(pool[target], hash.of(pool[source]));
    }
  }
  for (const word of entropy.slice(POOL)) for (let target = 0; target < POOL; target += 1) pool[target] = mixed(pool[target], hash.of(word));
  const out = new Hash(0x8b51f9dd, 0x58f38ded);
  return Array.from({ length: 8 }, (_, index) => out.of(pool[index % POOL]));
}

export class PCG64 {
  /** @param {number|bigint} seed a whole number from 0 */
  constructor(seed) {
    const words = seedWords(BigInt(seed)).map(BigInt);
    const pair = (index) => words[2 * index] | (words[2 * index + 1] << 32n);
    const [begin, order] = [(pair(0) << 64n) | pair(1), (pair(2) << 64n) | pair(3)];
    this.increment = ((order << 1n) | 1n) & U128;
    this.state = 0n;
    this.#step();
    this.state = (this.state + begin) & U128;
    this.#step();
    this.half = null; // the upper half of a number whose lower one was given
  }

  #step() {
    this.state = (this.state * MULTIPLIER + this.increment) & U128;
  }

  /** 64 random bits. */
  raw() {
    this.#step();
    const turn = this.state >> 122n;
    const word = ((this.state >> 64n) ^ this.state) & U64;
    return ((word >> turn) | (word << (64n - turn))) & U64;
  }

  /** A number from [0, 1), as `runtime.sampling.uniform_numbers` gives it. */
  uniform() {
    return Number(this.raw() >> 11n) * 2 ** -53;
  }

  /** So many numbers from [0, 1), as `Generator.random(…, dtype=float32)` gives them. */
  floats(number) {
    return Float32Array.from({ length: number }, () => (this.#word() >>> 8) / 16777216);
  }

  #word() {
    if (this.half !== null) {
      const kept = this.half;
      this.half = null;
      return kept;
    }
    const both = this.raw();
    this.half = Number(both >> 32n);
    return Number(both & U32);
  }
}
