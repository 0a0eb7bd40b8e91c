// Which module shows which bundle: one line per task. Of any other task the answer is shown as JSON: to a picture, or to arrays.

import age from "./age.js";
import caption from "./caption.js";
import chars from "./chars.js";
import digits from "./digits.js";
import json from "./json.js";
import tensors from "./tensors.js";
import timer from "./timer.js";

const TASKS = { age, caption, chars, digits, timer };

/**
 * The module for a bundle: `{title, lead, pictures, create(context)}`, and `notice` for the foot of the page.
 *
 * With `pictures: true` it looks at what the page's own picture view takes: `create({panel, stage, bundle})` gives
 * `{show(result, live), clear()}`, `options` go with each question, with `clips: true` it takes videos and the last
 * frames of the camera, too, and `words` are for the buttons.
 *
 * Without, it needs nothing and fills the place itself: `create({work, panel, bundle, limits, kept})` gives `{close()}`,
 * which is called when another bundle is chosen or the page is left; `kept` is an object that outlives it.
 */
export function moduleFor(bundle) {
  return TASKS[bundle.task] ?? (bundle.accepts.includes("image/png") ? json : tensors);
}
