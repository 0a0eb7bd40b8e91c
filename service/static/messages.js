// What went wrong, in words on the page, and what those who do not see it are told.

import { Failure } from "./api.js";

const find = (id) => document.getElementById(id);
const message = find("message"); // kept: a view that closes may take it out of the page

/**
 * Show a failure until `settle` is called.
 * @param {Error} error
 * @param {Element} [near] what it is about; it is shown below that
 */
export function complain(error, near = find("about")) {
  const failure = error instanceof Failure ? error : new Failure("The page failed", String(error?.message ?? error));
  near.after(message);
  find("message-title").textContent = failure.title;
  find("message-detail").textContent = failure.message;
  find("message-id").textContent = failure.id ? `Request ${failure.id}` : "";
  message.hidden = false;
  message.scrollIntoView({ block: "nearest" }); // on any screen: it may be about what lies further up
}

export function settle() {
  message.hidden = true;
  find("about").after(message);
}

const NARROW = matchMedia("(max-width: 900px)"); // there the answer stands below what it answers

/** Bring an answer into sight where it may lie below the edge of the screen. */
export function reveal(answer) {
  if (NARROW.matches) answer.scrollIntoView({ block: "nearest" });
}

/** Read a sentence out to those who do not see the answer. */
export function say(sentence) {
  find("spoken").textContent = sentence;
}
