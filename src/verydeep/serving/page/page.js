// The page: pictures in, classes, boxes and heat maps out.

import { ask, NeedsToken, percent, query, setToken } from "./ask.js";
import { lookClosely } from "./closely.js";
import { draw } from "./drawing.js";

const $ = (id) => document.getElementById(id);
const TOP = 5;
let models = [];
const pictures = new Set();
const waiting = []; // files given before the service said what networks it has

const say = (words) => { $("said").textContent = words; };
const model = () => models[$("network").selectedIndex];
const at = (task, values = {}) => {
  const asked = query(values);
  return `models/${encodeURIComponent(model().model)}/${task}${asked ? `?${asked}` : ""}`;
};
const protocol = () => document.querySelector("#choices input:checked")?.value;

async function begin() {
  try {
    models = await (await ask("GET", "models")).json();
  } catch (error) {
    $("entry").hidden = !(error instanceof NeedsToken);
    $("about").textContent = error.message;
    if (error instanceof NeedsToken) $("token").focus();
    return;
  }
  $("entry").hidden = true;
  $("network").replaceChildren(...models.map((one) => new Option(one.model)));
  $("networks").hidden = models.length < 2;
  await chooseNetwork();
  show();
}

async function chooseNetwork() {
  const one = model();
  const number = one.classes.length;
  $("about").textContent = number
    ? `${one.model}: configuration ${one.configuration}, ${number} classes. Pictures stay on the machine that runs this service.`
    : `${one.model} names no classes: it describes pictures, for programs (see /docs).`;
  const whole = one.tasks.includes("classify");
  $("protocols").hidden = !whole;
  if (whole) showProtocols(await (await ask("GET", at("protocols"))).json());
  for (const picture of pictures) picture.look();
}

function showProtocols(choices) {
  const chosen = protocol();
  const rows = choices.map((one) => {
    const label = document.createElement("label");
    label.className = "choice";
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "protocol", value: one.protocol });
    radio.checked = choices.some((other) => other.protocol === chosen) ? one.protocol === chosen : one.usual;
    const name = document.createElement("span");
    name.textContent = one.name;
    const cost = document.createElement("span");
    cost.className = "cost";
    cost.textContent = one.seconds === null ? "" : time(one.seconds);
    const words = document.createElement("small");
    words.textContent = `${one.looks_at} (${one.protocol})`;
    label.append(radio, name, cost, words);
    return label;
  });
  $("choices").replaceChildren(...rows);
  $("measure").hidden = choices.every((one) => one.seconds !== null);
}

const time = (seconds) => (seconds < 1 ? `${Math.max(1, Math.round(1000 * seconds))} ms` : `${seconds.toFixed(1)} s`);

async function measure() {
  $("measure").disabled = true;
  say("Measuring");
  try {
    showProtocols(await (await ask("POST", at("protocols"))).json());
    say("Measured: what a picture of 640 by 480 pixels takes stands beside each protocol");
  } catch (error) {
    say(error.message);
  }
  $("measure").disabled = false;
}

class Picture {
  constructor(file) {
    this.name = file.name || "pasted picture";
    this.file = file;
    this.url = URL.createObjectURL(file);
    this.element = $("picture").content.firstElementChild.cloneNode(true);
    this.part = (selector) => this.element.querySelector(selector);
    this.part("h2").textContent = this.name;
    const image = this.part("img");
    image.alt = this.name;
    image.src = this.url;
    image.addEventListener("load", () => this.draw());
    image.addEventListener("error", () => { this.part(".view").hidden = true; }); // the browser cannot show it
    this.part(".remove").setAttribute("aria-label", `Remove ${this.name}`);
    this.part(".remove").addEventListener("click", () => this.remove());
    this.part(".opacity input").addEventListener("input", () => this.draw());
    this.part(".boxes input").addEventListener("change", () => this.draw());
    this.part(".closely").addEventListener("click", () => lookClosely(this.name, this.file, at));
    $("pictures").prepend(this.element);
    pictures.add(this);
    new ResizeObserver(() => this.draw()).observe(this.part(".view"));
    this.look();
  }

  remove() {
    this.stop?.abort();
    pictures.delete(this);
    URL.revokeObjectURL(this.url);
    this.element.remove();
    $("files").focus();
    say(`${this.name} removed`);
  }

  async look() {
    this.stop?.abort();
    const stop = this.stop = new AbortController();
    this.heat = this.objects = this.mask = null;
    for (const selector of [".error", ".boxes", ".opacity", ".closely"]) this.part(selector).hidden = true;
    this.part(".about").textContent = "Looking ...";
    const can = model().tasks;
    try {
      if (can.includes("segment")) return await this.segment(stop.signal);
      if (!can.includes("classify")) throw new Error("This network names no classes.");
      const asked = { top: TOP, ...(protocol() ? { protocol: protocol() } : {}) };
      const found = await (await ask("POST", at("classify", asked), this.file, stop.signal)).json();
      this.part(".about").textContent = `by ${found.protocol}`;
      this.showClasses(found.top);
      say(`${this.name}: ${found.top[0].class}, ${percent(found.top[0].posterior)}`);
      this.part(".closely").hidden = !can.includes("scoremap");
      if (can.includes("localize")) {
        this.objects = await (await ask("POST", at("localize", { top: 1 }), this.file, stop.signal)).json();
        this.part(".boxes").hidden = false;
        this.draw();
      }
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error);
    }
  }

  async segment(signal) {
    const found = await (await ask("POST", at("segment"), this.file, signal)).json();
    this.part(".about").textContent = `each of ${found.width} by ${found.height} pixels`;
    const rows = found.areas.map((one) => {
      const item = document.createElement("li");
      item.append(...labeled(one.class, percent(one.share)));
      item.className = "area";
      item.querySelector(".bar > span").style.background = one.color;
      return item;
    });
    this.part(".bars").replaceChildren(...rows);
    this.part(".opacity span").textContent = "Classes over the picture";
    this.part(".opacity").hidden = false;
    const image = new Image();
    image.src = `data:image/png;base64,${found.mask}`;
    await image.decode();
    this.mask = image;
    say(`${this.name}: ${found.areas.slice(0, 3).map((one) => `${one.class} ${percent(one.share)}`).join(", ")}`);
    this.draw();
  }

  fail(error) {
    this.part(".about").textContent = "";
    this.part(".error").textContent = error.message;
    this.part(".error").hidden = false;
    if (error instanceof NeedsToken) begin();
  }

  showClasses(top) {
    const rows = top.map((one) => {
      const item = document.createElement("li");
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.setAttribute("aria-pressed", "false");
      button.append(...labeled(one.class, percent(one.posterior)));
      button.addEventListener("click", () => this.choose(button, one.class));
      item.append(button);
      return item;
    });
    this.part(".bars").replaceChildren(...rows);
    this.part(".opacity").hidden = true;
  }

  async choose(button, label) {
    const off = button.getAttribute("aria-pressed") === "true";
    for (const other of this.element.querySelectorAll(".bars button")) other.setAttribute("aria-pressed", "false");
    this.heat = null;
    this.part(".opacity").hidden = true;
    this.draw();
    if (off) return;
    button.setAttribute("aria-pressed", "true");
    try {
      const asked = at("heatmap", { class: label, form: "values", protocol: protocol() });
      const heat = await (await ask("POST", asked, this.file, this.stop.signal)).json();
      if (button.getAttribute("aria-pressed") !== "true") return;
      this.heat = heat;
      this.part(".opacity").hidden = false;
      this.part(".opacity span").textContent = `Heat map of ${label}`;
      const count = heat.scores.length * heat.scores[0].length;
      const size = count > 1 ? `${heat.scores.length} by ${heat.scores[0].length} cells` : "one cell: a window covers the picture at this scale";
      this.part(".cells").textContent = size;
      say(`Heat map of ${label} shown: ${size}`);
      this.draw();
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error);
    }
  }

  draw() {
    const boxes = this.objects && this.part(".boxes input").checked ? this.objects : null;
    draw(this.part("canvas"), this.heat ?? this.mask, this.part(".opacity input").value / 100, boxes);
  }
}

// A class, its share, and the share as a bar.
function labeled(label, share) {
  const parts = ["name", "share", "bar"].map((className) => Object.assign(document.createElement("span"), { className }));
  parts[0].textContent = label;
  parts[1].textContent = share;
  parts[2].append(document.createElement("span"));
  parts[2].firstChild.style.width = share.replace(" ", "");
  return parts;
}

function take(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/") || !file.type);
  if (!images.length && files.length) say("That is no picture");
  waiting.push(...images);
  show();
}

function show() {
  if (models.length) for (const file of waiting.splice(0)) new Picture(file);
}

for (const id of ["files", "camera"]) {
  $(id).addEventListener("change", () => {
    take($(id).files);
    $(id).value = "";
  });
}
addEventListener("paste", (event) => take(event.clipboardData.files));
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("add").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("add").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  $("add").classList.remove("over");
  take(event.dataTransfer.files);
});
$("network").addEventListener("change", chooseNetwork);
$("choices").addEventListener("change", () => { for (const picture of pictures) picture.look(); });
$("measure").addEventListener("click", measure);
$("entry").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken($("token").value);
  begin();
});
begin();
