"use strict";
// All that comes from the server is set as text, never as HTML.

const PAGE = 24;
const MOST = 192;
const PREVIEWS_AT_ONCE = 4;
const $ = (id) => document.getElementById(id);
const state = { about: null, like: null, k: PAGE, running: null, previews: [], loading: 0 };

function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "text") element.textContent = value;
    else if (key === "class") element.className = value;
    else if (key === "on") for (const [event, work] of Object.entries(value)) element.addEventListener(event, work);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const plural = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
const spoken = (name) => name.replaceAll("_", " ");

async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  let value;
  try {
    value = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(`The server answered with status ${answer.status}.`);
  }
  if (!answer.ok) throw new Error(value.error);
  return value;
}

function fill(select, names, shown = spoken) {
  for (const name of names) select.append(make("option", { value: name, text: shown(name) }));
}

function setUp(about) {
  state.about = about;
  const studies = Object.values(about.splits).reduce((a, b) => a + b, 0);
  $("about").textContent = `${plural(studies, "study", "studies")} of ${about.name}, embedded by ${about.encoder}; ` +
    `licence ${about.licence}${about.terms.length ? `: ${about.terms.join(", ")}` : ""}`;
  document.title = `Search ${about.name}`;
  for (const note of about.notes) $("notes").append(make("p", { text: note }));
  fill($("target"), Object.keys(about.modalities), (m) => `${m} (${about.modalities[m].toLocaleString("en")})`);
  if ("image" in about.modalities) $("target").value = "image";
  fill($("split"), Object.keys(about.splits), (s) => `${s} (${about.splits[s].toLocaleString("en")})`);
  fill($("label"), about.labels);
  fill($("state"), about.states);
  $("text").maxLength = about.max_text;
  $("text-field").hidden = !about.text;
  $("files-field").hidden = !about.files.length;
  $("joint-hint").hidden = !about.text && !about.files.length;
  $("files-hint").textContent = `Accepted: ${about.files.join("; or ")}. At most ${about.max_upload_mb} MB. ` +
    "The server deletes files once it has read them.";
  $("label-fields").hidden = !about.labels.length;
}

function encoded(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done({ name: file.name, data: reader.result.slice(reader.result.indexOf(",") + 1) });
    reader.onerror = () => failed(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}

async function query() {
  const files = [...$("files").files];
  const size = files.reduce((sum, f) => sum + f.size, 0);
  if (size > state.about.max_upload_mb * 2 ** 20) {
    throw new Error(`The files have ${(size / 2 ** 20).toFixed(1)} MB; at most ${state.about.max_upload_mb} are taken.`);
  }
  if (files.length > state.about.max_files) throw new Error(`At most ${state.about.max_files} files are taken.`);
  const out = { target: $("target").value, k: state.k, split: $("split").value, label: $("label").value };
  if (out.label) out.state = $("state").value;
  if ($("text").value.trim()) out.text = $("text").value.trim();
  if (files.length) out.files = await Promise.all(files.map(encoded));
  if (state.like) out.like = { number: state.like.number, modality: $("like-modality").value };
  return out;
}

async function search(focus = false) {
  state.running?.abort();
  const running = state.running = new AbortController();
  $("error").hidden = true;
  $("results").classList.add("busy");
  $("results").setAttribute("aria-busy", "true");
  $("status").textContent = "Searching…";
  try {
    const body = JSON.stringify(await query());
    const headers = { "Content-Type": "application/json" };
    show(await ask("/api/search", { method: "POST", headers, body, signal: running.signal }));
    if (focus) $("results").focus({ preventScroll: true });
  } catch (error) {
    if (error.name === "AbortError") return;
    fail(error);
  } finally {
    if (state.running === running) {
      $("results").classList.remove("busy");
      $("results").removeAttribute("aria-busy");
    }
  }
}

function fail(error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
  $("status").textContent = "";
  $("rule").textContent = "";
  $("cards").replaceChildren();
  $("more").hidden = true;
}

function show(found) {
  const among = plural(found.matching, "study", "studies");
  const what = `${among} with ${found.target}${filtered() ? " in these filters" : ""}`;
  if (!found.results.length) $("status").textContent = `Nothing found: no other study with ${found.target} fits the filters.`;
  else if (found.rule === "none") $("status").textContent = `The first ${found.results.length} of ${what}`;
  else $("status").textContent = `The best ${found.results.length} of ${what}, by ${found.query.map(spoken).join(" + ")}`;
  $("rule").textContent = !found.results.length ? "" : found.rule === "none" ?
    "Without a query nothing is scored: enter one, or choose a study to see those like it." : `Score: ${found.explanation}.`;
  state.previews = [];
  $("cards").replaceChildren(...found.results.map((study, i) => card(study, i + 1, found.target)));
  $("more").hidden = found.results.length >= Math.min(found.matching, MOST);
}

const filtered = () => $("split").value || $("label").value;

function card(study, rank, target) {
  const picture = previewBox(study.number, target);
  const chips = make("ul", { class: "chips", "aria-label": "Findings" });
  if (study.same_patient) chips.append(make("li", { class: "same", text: "same patient" }));
  for (const label of study.labels) chips.append(make("li", { text: spoken(label) }));
  const facts = Object.entries(study.attributes).map(([name, value]) => `${spoken(name)} ${value}`);
  const score = study.score === null ? "" : study.score.toFixed(3);
  const parts = [
    make("div", { class: "card-head" }, make("span", { class: "rank", text: `${rank}.` }),
      make("span", { class: "score", text: score, title: "score" })),
    picture,
    make("div", { class: "ids" }, make("code", { text: study.id }), make("div", { text: [study.split, ...facts].join(" · ") })),
  ];
  if (chips.childElementCount) parts.push(chips);
  const others = study.modalities.filter((m) => m !== target);
  if (others.length && state.about.pictures) parts.push(whole(study, others));
  const similar = make("button", { type: "button", class: "plain", text: "Find studies like this",
    "aria-label": `Find studies like number ${rank}`, on: { click: () => likeThis(study, target) } });
  parts.push(make("div", { class: "card-foot" }, similar));
  return make("li", { class: "card", "data-number": study.number }, ...parts);
}

function whole(study, others) {
  const details = make("details", {}, make("summary", { text: `Also ${others.map(spoken).join(", ")}` }));
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("h3")) return;
    for (const m of others) details.append(make("h3", { text: spoken(m) }), previewBox(study.number, m));
  });
  return details;
}

function previewBox(number, modality) {
  const box = make("div", { class: "preview" }, make("p", { class: "quiet", text: state.about.pictures ? "Loading…" : modality }));
  if (state.about.pictures) {
    state.previews.push([box, number, modality]);
    loadPreviews();
  }
  return box;
}

async function loadPreviews() {
  if (state.loading >= PREVIEWS_AT_ONCE || !state.previews.length) return;
  state.loading += 1;
  const [box, number, modality] = state.previews.shift();
  try {
    const found = await ask(`/api/preview?${new URLSearchParams({ number, modality })}`);
    if (found.picture) box.replaceChildren(make("img", { src: found.picture, alt: `${modality} of this study` }));
    else box.replaceChildren(make("p", found.text ? { text: found.text } : { class: "quiet", text: found.withheld || "empty" }));
  } catch (error) {
    box.replaceChildren(make("p", { class: "quiet", text: error.message }));
  }
  state.loading -= 1;
  loadPreviews();
}

function likeThis(study, modality) {
  state.like = study;
  $("like-id").textContent = study.id;
  $("like-modality").replaceChildren();
  fill($("like-modality"), study.modalities);
  $("like-modality").value = modality;
  $("text").value = "";
  clearFiles();
  $("like").hidden = false;
  $("like-preview").hidden = !state.about.pictures;
  fresh();
  window.scrollTo({ top: 0 });
  search(true).then(showLike);
}

function showLike() {
  if (state.like && state.about.pictures) $("like-preview").replaceChildren(previewBox(state.like.number, $("like-modality").value));
}

function dropLike() {
  state.like = null;
  $("like").hidden = true;
}

function clearFiles() {
  $("files").value = "";
  $("files-list").replaceChildren();
}

const fresh = () => { state.k = PAGE; };

function listen() {
  $("form").addEventListener("submit", (event) => { event.preventDefault(); fresh(); search(); });
  $("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("form").requestSubmit(); }
  });
  $("files").addEventListener("change", () => {
    $("files-list").replaceChildren(...[...$("files").files].map((f) => make("li", { text: `${f.name}, ${(f.size / 2 ** 20).toFixed(2)} MB` })));
  });
  for (const id of ["target", "split", "label", "state"]) {
    $(id).addEventListener("change", () => { $("state").disabled = !$("label").value; fresh(); search(); });
  }
  $("like-modality").addEventListener("change", () => { fresh(); search().then(showLike); });
  $("like-clear").addEventListener("click", () => { dropLike(); fresh(); search(); $("text").focus(); });
  $("clear").addEventListener("click", () => { dropLike(); $("form").reset(); clearFiles(); start(); });
  $("more").addEventListener("click", () => { state.k = Math.min(MOST, state.k * 2); search(); });
}

function start() {
  if ("image" in state.about.modalities) $("target").value = "image";
  $("state").disabled = true;
  fresh();
  search();
}

listen();
ask("/api/about").then((about) => { setUp(about); start(); }, (error) => {
  $("about").textContent = "The index cannot be shown.";
  fail(error);
});
