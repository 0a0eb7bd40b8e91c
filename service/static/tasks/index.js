// Which module shows the answers of which task: one line per task. Tasks without a module are shown as JSON.

import age from "./age.js";
import json from "./json.js";

const TASKS = { age };

/** The module for a task: `{title, lead, options, create(context)}`, where `create` gives `{show(result, live), clear()}`. */
export function taskModule(task) {
  return TASKS[task] ?? json;
}
