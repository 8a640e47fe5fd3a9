// A study's page: tables, curves, and pictures as two tests name them, while the study goes on.

import { ask, NeedsToken, percent, query, setToken } from "./ask.js";

const $ = (id) => document.getElementById(id);
const EACH = 24;
const OUTCOMES = { any: "all", "both right": "both right", "only first": "only the first right", "only second": "only the second right", "both wrong": "both wrong" };
let stamp = null, shown = 0, turn = 0, hasPictures = false, tests = [];

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function read() {
  const study = await (await ask("GET", "study")).json();
  const first = stamp === null;
  stamp = study.stamp;
  hasPictures = study.pictures;
  $("title").textContent = study.folder;
  document.title = `verydeep: ${study.folder}`;
  $("entry").hidden = true;
  $("state").textContent = `${study.tests.length} tests of classes and boxes, ${study.curves.length} runs; as of ${new Date().toLocaleTimeString()}. `
    + (hasPictures ? "" : "The pictures are not known: give --data to see them.");
  $("tables").replaceChildren(...study.tables.map(table));
  $("curves").replaceChildren(...study.curves.map(curve));
  $("compare").hidden = !study.tests.length;
  if (!study.tests.length) return;
  tests = study.tests;
  const best = [...tests].sort((a, b) => (a.kind === b.kind ? a.error - b.error : a.kind === "classes" ? -1 : 1));
  offer($("first"), best, best[0].test);
  offerSecond();
  if (first || turn) await compare();
}

function offer(select, offered, usual) {
  const before = select.value;
  select.replaceChildren(...offered.map((one) => new Option(`${one.test}: ${percent(one.error)}${one.kind === "boxes" ? ", boxes given the class" : ""}`, one.test)));
  select.value = offered.some((one) => one.test === before) ? before : usual;
}

function offerSecond() { // of the first one's kind alone
  const here = tests.find((one) => one.test === $("first").value);
  const alike = tests.filter((one) => one.kind === here.kind).sort((a, b) => a.error - b.error);
  offer($("second"), alike, (alike.find((one) => one !== here) ?? here).test);
}

function table(one) {
  const around = element("div", undefined, "scroll");
  around.tabIndex = 0;
  around.setAttribute("role", "region");
  around.setAttribute("aria-label", one.heading);
  const made = element("table");
  made.append(element("caption", one.heading));
  const [head, ...rows] = one.rows;
  const top = made.createTHead().insertRow();
  for (const words of head) {
    const cell = element("th", words);
    cell.scope = "col";
    top.append(cell);
  }
  const body = made.createTBody();
  for (const row of rows) body.append(element("tr"));
  rows.forEach((row, k) => body.rows[k].append(...row.map((words) => element("td", words))));
  around.append(made);
  return around;
}

function curve(one) {
  const [wide, high, left] = [240, 120, 30];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const add = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    svg.append(made);
  };
  svg.setAttribute("viewBox", `0 -6 ${wide} ${high + 24}`);
  svg.setAttribute("role", "img");
  const last = one.points.at(-1);
  const most = Math.max(0.01, ...one.points.flatMap((point) => [point[1] ?? 0, point[2] ?? 0]));
  const x = (epoch) => left + (wide - left) * (last[0] > 1 ? (epoch - 1) / (last[0] - 1) : 0.5);
  const y = (error) => high * (1 - error / most);
  for (const share of [0, 0.5, 1]) {
    add("line", { x1: left, x2: wide, y1: y(share * most), y2: y(share * most) });
    add("text", { x: left - 4, y: y(share * most) + 4, "text-anchor": "end" }, `${Math.round(100 * share * most)}%`);
  }
  for (const [kind, place] of [["training", 1], ["validation", 2]]) {
    const points = one.points.filter((point) => point[place] != null).map((point) => `${x(point[0])},${y(point[place])}`);
    add("polyline", { class: kind, points: points.join(" ") });
  }
  add("text", { x: wide, y: high + 15, "text-anchor": "end" }, `epoch ${last[0]}`);
  const words = `${one.run}: ${one.what} ${last[2] == null ? "" : percent(last[2])} after ${last[0]} epochs`;
  svg.setAttribute("aria-label", words);
  const figure = element("figure");
  figure.append(element("figcaption", one.run), svg, element("p", words.slice(one.run.length + 2), "soft"));
  return figure;
}

const outcome = () => document.querySelector("#outcomes input:checked")?.value ?? "any";

async function compare(more = false) {
  const here = ++turn;
  const start = more ? shown : 0;
  const asked = query({ first: $("first").value, second: $("second").value, outcome: outcome(), start, count: EACH });
  try {
    const found = await (await ask("GET", `study/compare?${asked}`)).json();
    if (here !== turn) return;
    showOutcomes(found.counts);
    const same = $("first").value === $("second").value;
    $("words").textContent = same
      ? `${found.counts.any} pictures, ${found.counts["both right"]} right`
      : `The split of the ${found.counts["only first"] + found.counts["only second"]} that only one has right is chance with p = ${found.p_value < 0.001 ? "under 0.001" : found.p_value.toFixed(3)} (McNemar's test)`;
    const figures = found.pictures.map(figure);
    if (more) $("gallery").append(...figures);
    else $("gallery").replaceChildren(...figures);
    shown = start + figures.length;
    $("more").hidden = shown >= found.counts[outcome()];
  } catch (error) {
    $("words").textContent = error.message;
  }
}

function showOutcomes(counts) {
  const chosen = outcome();
  if (!$("outcomes").children.length) {
    $("outcomes").append(...Object.keys(OUTCOMES).map((key) => {
      const label = element("label");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "outcome", value: key });
      radio.checked = key === chosen;
      label.append(radio, element("span"));
      return label;
    }));
  }
  for (const label of $("outcomes").children) {
    label.lastChild.textContent = `${OUTCOMES[label.firstChild.value]} (${counts[label.firstChild.value]})`;
  }
}

function figure(one) {
  const made = element("figure");
  const caption = element("figcaption");
  if (hasPictures) {
    const image = Object.assign(document.createElement("img"), { alt: `${one.picture}, ${one.label}`, loading: "lazy" });
    fill(image, one.picture);
    const around = element("div", undefined, "picture");
    around.append(image);
    if (one.boxes) around.append(boxes(one));
    made.append(around);
  }
  caption.append(element("strong", one.label), element("div", one.picture, "soft"));
  saysOf(one).forEach((said, k) => {
    const words = said.box ? `IoU ${said.iou.toFixed(2)}` : `${said.class}, ${percent(said.posterior)}`;
    const line = element("div", words, said.right ? "right" : "wrong");
    if (said.box) line.append(element("span", undefined, `line said${k}`));
    caption.append(line);
  });
  made.append(caption);
  return made;
}

const saysOf = (one) => ($("first").value === $("second").value ? one.said.slice(0, 1) : one.said);

function boxes(one) { // the true ones in white, each test's in a color, the second's dashed
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${one.size[1]} ${one.size[0]}`); // fitted as the picture is
  svg.setAttribute("aria-hidden", "true");
  const add = ([x0, y0, x1, y1], kind) => {
    const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [key, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: kind })) box.setAttribute(key, value);
    svg.append(box);
  };
  for (const box of one.boxes) add(box, "true");
  saysOf(one).forEach((said, k) => add(said.box, `said${k}`));
  return svg;
}

async function fill(image, name) { // fetched, not linked: a token goes along
  try {
    const blob = await (await ask("GET", `study/picture?${query({ name })}`)).blob();
    image.src = URL.createObjectURL(blob);
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } catch { /* its name stands there */ }
}

async function follow() {
  try {
    if (stamp === null || (await (await ask("GET", "study/stamp")).json()).stamp !== stamp) await read();
  } catch (error) {
    $("entry").hidden = !(error instanceof NeedsToken);
    $("state").textContent = error.message;
  }
}

$("entry").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken($("token").value);
  follow();
});
for (const id of ["first", "second", "outcomes"]) $(id).addEventListener("change", () => {
  if (id === "first") offerSecond();
  compare();
});
$("more").addEventListener("click", () => compare(true));
follow();
setInterval(follow, 5000);
