// What went wrong, in words on the page, and what those who do not see it are told.

import { Failure } from "./api.js";

const find = (id) => document.getElementById(id);

/** Show a failure until `settle` is called. */
export function complain(error) {
  const failure = error instanceof Failure ? error : new Failure("The page failed", String(error?.message ?? error));
  find("message-title").textContent = failure.title;
  find("message-detail").textContent = failure.message;
  find("message-id").textContent = failure.id ? `Request ${failure.id}` : "";
  find("message").hidden = false;
}

export function settle() {
  find("message").hidden = true;
}

/** Read a sentence out to those who do not see the answer. */
export function say(sentence) {
  find("spoken").textContent = sentence;
}
