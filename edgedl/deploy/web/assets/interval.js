// The range of an age, as runtime/intervals.py gives it: a table of the manifest, read the other way.

const UNCALIBRATED =
  "The range is what the network itself gives 80 % to. It was not calibrated: far fewer than 80 of 100 true ages may lie in such ranges.";

/** The value at `x` of the line through the points (xs, ys), as numpy's interp gives it. */
function interpolated(x, xs, ys) {
  const after = xs.findIndex((one) => one > x);
  if (after === 0) return ys[0];
  if (after < 0) return ys.at(-1);
  return ys[after - 1] + ((x - xs[after - 1]) / (xs[after] - xs[after - 1])) * (ys[after] - ys[after - 1]);
}

/**
 * The ends of the range of an age.
 * @param {object | undefined} interval of the manifest; without one they are those that the network gives
 */
export function ends(interval, { age, low, high }) {
  const found = interval ? [interpolated(age, interval.most, interval.years), interpolated(age, interval.least, interval.years)] : [low, high];
  return { low: Math.min(found[0], age), high: Math.max(found[1], age) };
}

/** What the ranges of a bundle promise, also in words. */
export function promise(interval) {
  if (!interval) return { calibrated: false, level: null, note: UNCALIBRATED };
  const { dataset, n } = interval.measured;
  const chance = Math.sqrt((interval.level * (1 - interval.level)) / Math.max(n, 1));
  const share = `${Number((100 * interval.level).toPrecision(6))} ± ${Number((100 * chance).toPrecision(1))} %`;
  const note = `The range holds ${share} of the true ages on faces like those that it was calibrated on (${n.toLocaleString("en-US")} of ${dataset}).`;
  return { calibrated: true, level: interval.level, note };
}
