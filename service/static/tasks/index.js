// Which module shows the answers of which task: one line per task. Tasks without a module are shown as JSON.

import age from "./age.js";
import caption from "./caption.js";
import json from "./json.js";

const TASKS = { age, caption };

/**
 * The module for a task: `{title, lead, options, create(context)}`, where `create` gives `{show(result, live), clear()}`.
 * With `clips: true` it takes videos and the last frames of the camera, too; `words` are for the buttons.
 */
export function taskModule(task) {
  return TASKS[task] ?? json;
}
