// A large picture's score map, class by class, over the picture, to any depth.

import { ask, headers, percent, query } from "./ask.js";

const $ = (id) => document.getElementById(id);
const SHOWN = 100; // peaks of a class
let current = null; // what is being looked at: its job, its viewer

const wait = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });

function loadViewer() { // OpenSeadragon is a script of its own, loaded when it is needed first
  if (globalThis.OpenSeadragon) return Promise.resolve();
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = "page/openseadragon.min.js";
    script.onload = done;
    script.onerror = () => failed(new Error("The viewer cannot be loaded"));
    document.head.append(script);
  });
}

export async function lookClosely(name, file, at) {
  const here = current = { job: null, viewer: null, urls: [], map: 0 };
  $("closely-title").textContent = name;
  $("closely-error").hidden = true;
  $("work").hidden = false;
  $("deep").hidden = true;
  $("progress").value = 0;
  $("work-words").textContent = "Sending the picture";
  $("closely").showModal();
  try {
    const began = performance.now();
    let state = await (await ask("POST", at("scoremap"), file)).json();
    here.job = `jobs/${encodeURIComponent(state.job)}`;
    if (current !== here) await forget(here); // closed meanwhile
    while (current === here && (state.state === "waiting" || state.state === "running")) {
      $("progress").value = state.progress;
      $("work-words").textContent = words(state, (performance.now() - began) / 1000);
      await wait(300);
      if (current === here) state = await (await ask("GET", here.job)).json();
    }
    if (current !== here) return;
    if (state.state !== "done") throw new Error(state.error || `The work was ${state.state}.`);
    await loadViewer();
    if (current === here) show(here, state.result);
  } catch (error) {
    if (current !== here) return;
    $("work").hidden = true;
    $("closely-error").textContent = error.message;
    $("closely-error").hidden = false;
  }
}

function words(state, seconds) {
  if (state.state === "waiting") return "Waiting for its turn";
  if (state.progress < 0.02) return "Computing the map";
  const left = seconds * (1 / state.progress - 1);
  return `Computing the map: ${percent(state.progress)}${left > 2 ? `, about ${Math.round(left)} s left` : ""}`;
}

function show(here, result) {
  here.result = result;
  $("work").hidden = true;
  $("deep").hidden = false;
  const counts = new Map(result.classes.map((label) => [label, 0]));
  for (const peak of result.peaks) counts.set(peak.class, counts.get(peak.class) + 1);
  const order = [...result.classes].sort((a, b) => counts.get(b) - counts.get(a));
  $("deep-class").replaceChildren(...order.map((label) => new Option(`${label} (${counts.get(label)})`, label)));
  $("downloads").replaceChildren(...result.files.flatMap((file) => [download(here, file), " "]));
  here.viewer = globalThis.OpenSeadragon({
    element: $("viewer"),
    tileSources: `${here.job}/image.dzi`,
    showNavigationControl: false,
    ajaxHeaders: headers(),
    loadTilesWithAjax: true,
    drawer: "canvas",
    animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.6,
    maxZoomPixelRatio: 4,
    gestureSettingsMouse: { scrollToZoom: true },
  });
  here.viewer.addHandler("open", () => showClass(here));
  here.viewer.addHandler("open-failed", () => {
    $("closely-error").textContent = "The picture's tiles cannot be shown.";
    $("closely-error").hidden = false;
  });
  $("deep-class").focus();
}

function download(here, file) {
  const link = Object.assign(document.createElement("a"), { href: `${here.job}/${file}`, download: file, textContent: file });
  link.addEventListener("click", async (event) => { // a token cannot be given with a link
    event.preventDefault();
    const blob = await (await ask("GET", link.getAttribute("href"))).blob();
    const url = URL.createObjectURL(blob);
    Object.assign(document.createElement("a"), { href: url, download: file }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
  return link;
}

async function showClass(here) {
  const label = $("deep-class").value, { result, viewer } = here;
  const turn = ++here.map;
  const level = result.levels[0];
  const drawn = await (await ask("GET", `${here.job}/map?${query({ class: label })}`)).blob();
  if (current !== here || turn !== here.map) return;
  const url = URL.createObjectURL(drawn);
  here.urls.push(url);
  while (viewer.world.getItemCount() > 1) viewer.world.removeItem(viewer.world.getItemAt(1));
  viewer.addSimpleImage({
    url,
    x: level.left / result.width,
    y: level.top / result.width,
    width: level.width / result.width,
    opacity: $("deep-opacity").value / 100,
  });
  const peaks = result.peaks.filter((peak) => peak.class === label);
  viewer.clearOverlays();
  $("peaks-none").hidden = peaks.length > 0;
  $("peaks-title").textContent = peaks.length > SHOWN ? `Peaks: the highest ${SHOWN} of ${peaks.length}` : `Peaks: ${peaks.length}`;
  $("peaks").replaceChildren(...peaks.slice(0, SHOWN).map((peak) => peakButton(here, peak)));
}

function peakButton(here, peak) {
  const { viewer, result } = here;
  const place = new globalThis.OpenSeadragon.Rect(
    (peak.x - peak.width / 2) / result.width, (peak.y - peak.height / 2) / result.width,
    peak.width / result.width, peak.height / result.width,
  );
  const frame = Object.assign(document.createElement("div"), { className: "peak" });
  viewer.addOverlay({ element: frame, location: place });
  const item = document.createElement("li");
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.textContent = `${percent(peak.value)} at ${Math.round(peak.x)}, ${Math.round(peak.y)}`;
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll(".peak.chosen")) other.classList.remove("chosen");
    frame.classList.add("chosen");
    const side = 3 * place.width;
    const center = place.getCenter();
    viewer.viewport.fitBounds(new globalThis.OpenSeadragon.Rect(center.x - side / 2, center.y - side / 2, side, side));
  });
  item.append(button);
  return item;
}

async function forget(here) {
  if (!here.job) return;
  const job = here.job;
  here.job = null;
  try {
    await ask("DELETE", job);
  } catch { /* it is deleted in time */ }
}

$("closely").addEventListener("close", () => {
  const here = current;
  current = null;
  if (!here) return;
  here.viewer?.destroy();
  for (const url of here.urls) URL.revokeObjectURL(url);
  forget(here);
});
$("close").addEventListener("click", () => $("closely").close());
$("cancel").addEventListener("click", () => $("closely").close());
$("deep-class").addEventListener("change", () => showClass(current));
$("deep-opacity").addEventListener("input", () => {
  const viewer = current?.viewer;
  if (viewer?.world.getItemCount() > 1) viewer.world.getItemAt(1).setOpacity($("deep-opacity").value / 100);
});
const zoom = (factor) => {
  current?.viewer?.viewport.zoomBy(factor);
  current?.viewer?.viewport.applyConstraints();
};
$("zoom-in").addEventListener("click", () => zoom(1.6));
$("zoom-out").addEventListener("click", () => zoom(1 / 1.6));
$("zoom-home").addEventListener("click", () => current?.viewer?.viewport.goHome());
