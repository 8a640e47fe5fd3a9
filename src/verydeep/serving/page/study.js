// A study's page: tables, curves, and pictures as two tests name them, while the study goes on.

import { ask, NeedsToken, percent, query, setToken } from "./ask.js";

const $ = (id) => document.getElementById(id);
const EACH = 24;
const OUTCOMES = { any: "all", "both right": "both right", "only first": "only the first right", "only second": "only the second right", "both wrong": "both wrong" };
let stamp = null, shown = 0, turn = 0, hasPictures = false;

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
  $("state").textContent = `${study.tests.length} tests of classes, ${study.curves.length} runs; as of ${new Date().toLocaleTimeString()}. `
    + (hasPictures ? "" : "The pictures are not known: give --data to see them.");
  $("tables").replaceChildren(...study.tables.map(table));
  $("curves").replaceChildren(...study.curves.map(curve));
  $("compare").hidden = !study.tests.length;
  if (!study.tests.length) return;
  const best = [...study.tests].sort((a, b) => a.error - b.error);
  for (const [id, usual] of [["first", best[0]], ["second", best[1] ?? best[0]]]) {
    const before = $(id).value || usual.test;
    $(id).replaceChildren(...study.tests.map((one) => new Option(`${one.test}: ${percent(one.error)}`, one.test)));
    $(id).value = before;
  }
  if (first || turn) await compare();
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
      ? `${found.counts.any} pictures, ${found.counts["both right"]} named right`
      : `The split of the ${found.counts["only first"] + found.counts["only second"]} that only one names right is chance with p = ${found.p_value < 0.001 ? "under 0.001" : found.p_value.toFixed(3)} (McNemar's test)`;
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
    made.append(image);
  }
  caption.append(element("strong", one.label), element("div", one.picture, "soft"));
  const tests = $("first").value === $("second").value ? one.named.slice(0, 1) : one.named;
  for (const named of tests) {
    caption.append(element("div", `${named.class}, ${percent(named.posterior)}`, named.right ? "right" : "wrong"));
  }
  made.append(caption);
  return made;
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
for (const id of ["first", "second", "outcomes"]) $(id).addEventListener("change", () => compare());
$("more").addEventListener("click", () => compare(true));
follow();
setInterval(follow, 5000);
