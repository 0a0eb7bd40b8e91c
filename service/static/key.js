// The key of a service that asks for one. It stays in the memory of this page alone: whoever opens it again gives it again.

import { element } from "./element.js";

let key = "";
let asking = null; // the dialog that is open; every request that needs a key waits for the same

/** `fetch`, with the key. Where the service wants one, the person is asked for it. */
export async function fetchWithKey(url, request = {}) {
  for (;;) {
    const sent = key;
    const headers = sent ? { ...request.headers, Authorization: `Bearer ${sent}` } : request.headers;
    const response = await fetch(url, { ...request, headers });
    if (response.status !== 401) return response;
    if (key !== sent) continue; // given since
    asking ??= askForKey(sent !== "").finally(() => { asking = null; });
    if (!(await asking)) return response;
  }
}

/** @returns {Promise<boolean>} whether one was given */
function askForKey(wrong) {
  const input = element("input", { type: "password", id: "key", autocomplete: "off", required: "" });
  const words = wrong ? "The service does not know this key." : "This service answers only those who have a key.";
  const form = element("form", { method: "dialog" },
    element("h2", { id: "key-title" }, "A key is needed"),
    element("p", {}, words),
    element("p", {}, element("label", { for: "key" }, "Key"), " ", input),
    element("p", {}, element("button", { class: "primary", value: "given" }, "Use this key"), " ",
      element("button", { value: "", formnovalidate: "" }, "Cancel")));
  const dialog = element("dialog", { "aria-labelledby": "key-title", class: "key" }, form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "given";
      if (given) key = input.value.trim();
      dialog.remove();
      resolve(given);
    });
    dialog.showModal();
  });
}
