// A tab for each bundle. The address remembers which one is chosen, so that it can be sent to others and reloaded.

import { element } from "./element.js";

const EDGE = 5; // pixels of the row's border and padding

export class Tabs {
  /**
   * @param {HTMLElement} list takes the tabs
   * @param {HTMLElement} place what they show
   * @param {(name: string) => void} onchoose called with the name of a bundle when another one is chosen
   */
  constructor(list, place, onchoose) {
    Object.assign(this, { list, place, onchoose });
    this.tabs = new Map();
    this.chosen = null;
    list.addEventListener("keydown", (event) => this.#key(event));
    addEventListener("hashchange", () => this.choose(this.#inAddress()));
  }

  /** @param {{name: string, description: string}[]} bundles one tab each; a single one needs none */
  show(bundles) {
    this.list.hidden = bundles.length < 2;
    this.tabs = new Map(
      bundles.map(({ name, description }) => {
        const tab = element("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": this.place.id, title: description }, name);
        tab.addEventListener("click", () => this.choose(name));
        return [name, tab];
      }),
    );
    this.list.replaceChildren(...this.tabs.values());
    this.choose(this.tabs.has(this.#inAddress()) ? this.#inAddress() : bundles[0].name);
  }

  choose(name) {
    if (!this.tabs.has(name) || name === this.chosen) return;
    if (this.chosen !== null) history.replaceState(null, "", `#/${encodeURIComponent(name)}`);
    this.chosen = name;
    for (const [other, tab] of this.tabs) {
      tab.setAttribute("aria-selected", String(other === name));
      tab.tabIndex = other === name ? 0 : -1; // Tab reaches the chosen one, arrows the others
    }
    if (!this.list.hidden) {
      this.place.setAttribute("role", "tabpanel");
      this.place.setAttribute("aria-labelledby", this.tabs.get(name).id);
      this.#show(this.tabs.get(name));
    }
    this.onchoose(name);
  }

  /** Moves the row of tabs only. From what `scrollIntoView` shows, some browsers would go on with the Tab key. */
  #show(tab) {
    const [row, { left, right }] = [this.list.getBoundingClientRect(), tab.getBoundingClientRect()];
    this.list.scrollLeft += Math.min(0, left - row.left - EDGE) + Math.max(0, right - row.right + EDGE);
  }

  #inAddress() {
    try {
      return decodeURIComponent(location.hash.replace(/^#\//, "")); // the slash keeps it apart from ids in the page
    } catch {
      return "";
    }
  }

  /** Arrows only move: what a tab asks of the server when it is chosen may cost much. */
  #key(event) {
    const tabs = [...this.tabs.values()];
    const now = tabs.indexOf(document.activeElement);
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (now < 0 || next === undefined) return;
    event.preventDefault();
    tabs[(next + tabs.length) % tabs.length].focus();
  }
}
