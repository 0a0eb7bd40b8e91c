// The answer as it came, for tasks that have no module of their own.

import { element } from "../element.js";

const HONEST = "This is what the network says of the picture. It can be wrong.";

export default {
  pictures: true,
  title: "Show a photo",
  lead: "The bundle's answer is shown as JSON.",
  options: {},
  create({ panel }) {
    return {
      show(result) {
        panel.replaceChildren(
          element("div", { class: "card" }, element("h2", {}, "Answer"), element("pre", { tabindex: "0", role: "region", "aria-label": "Outputs" }, JSON.stringify(result, null, 2)), element("p", { class: "quiet" }, HONEST)),
        );
        return "The answer is shown.";
      },
      clear() {
        panel.replaceChildren();
      },
    };
  },
};
