// The body of a function that gives what is wrong with the page, a line each; see accessibility.py.

const found = [];
const say = (rule, node, more = "") => found.push(`${rule}: ${node.outerHTML.slice(0, 90)} ${more}`);
const seen = (node) => node.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && !node.closest(".unseen, .skip");

// 1.4.3: text and its ground. Colours are laid over each other as the browser does.
const parse = (text) => {
  const canvas = (parse.canvas ??= new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true }));
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = text;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return { rgb: [r, g, b], a: a / 255 };
};
const over = (top, below) => top.rgb.map((value, index) => value * top.a + below[index] * (1 - top.a));
const ground = (node) => {
  if (!node) return [255, 255, 255];
  const colour = parse(getComputedStyle(node).backgroundColor);
  return colour.a === 1 ? colour.rgb : over(colour, ground(node.parentElement));
};
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const texts = new Set();
while (walker.nextNode()) if (walker.currentNode.data.trim()) texts.add(walker.currentNode.parentElement);
for (const node of texts) {
  if (!seen(node) || node.closest(":disabled, [aria-hidden=true], script, style, noscript, .busy")) continue;
  const style = getComputedStyle(node);
  const below = ground(node);
  const levels = [over(parse(node instanceof SVGElement ? style.fill : style.color), below), below].map(luminance).sort((a, b) => b - a);
  const ratio = (levels[0] + 0.05) / (levels[1] + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (ratio < (large ? 3 : 4.5)) say("contrast", node, ratio.toFixed(2));
}

// 1.3.1: one h1, and no level of headings is left out.
const headings = [...document.querySelectorAll("h1, h2, h3")].filter((node) => node.checkVisibility());
if (headings.filter((node) => node.matches("h1")).length !== 1) found.push(`headings: ${headings.map((node) => node.outerHTML)}`);
headings.reduce((last, node) => {
  const level = Number(node.tagName[1]);
  if (level > last + 1) say("heading level", node);
  return level;
}, 0);

// 4.1.2: what refers to another element names one, and names it alone.
const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push(`twice: ${id}`);
for (const name of ["aria-controls", "aria-labelledby", "aria-describedby", "for"]) {
  for (const node of document.querySelectorAll(`[${name}]`)) {
    for (const id of node.getAttribute(name).split(" ")) if (!ids.includes(id)) say(name, node);
  }
}

// 2.4.3, 2.1.1, 2.5.8, 1.4.10: order, what scrolls, what is pressed, what sticks out.
for (const node of document.querySelectorAll("[tabindex]")) if (node.tabIndex > 0) say("tabindex", node);
for (const node of document.querySelectorAll("main *")) {
  if (!seen(node)) continue;
  const scrolls = /auto|scroll/.test(getComputedStyle(node).overflowY) && node.scrollHeight > node.clientHeight + 1;
  if (scrolls && node.tabIndex < 0 && !node.querySelector("button, a, input")) say("scrolls", node);
}
for (const node of document.querySelectorAll("button:not(.target), select, input, summary")) {
  const { width, height } = node.getBoundingClientRect();
  if (seen(node) && Math.min(width, height) < 24) say("target", node, `${width} x ${height}`);
}
if (document.documentElement.scrollWidth > innerWidth) found.push(`sticks out: ${document.documentElement.scrollWidth}`);
return found;
