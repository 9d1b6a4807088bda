"use strict";

const at = (id) => document.getElementById(id);
const root = document.documentElement;
const isDark = matchMedia("(prefers-color-scheme: dark)");
at("theme").addEventListener("click", () => {
  const now = root.dataset.theme || (isDark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
});

let groups = [];
let clip = null;
let fit = [0, 1];
let asked = 0;

const fill = (select, names, values = names) =>
  select.replaceChildren(...names.map((name, i) => new Option(name, values[i])));
const say = (element, text) => { element.textContent = text || ""; element.hidden = !text; };
const milliseconds = (sample) => `${((1000 * sample) / clip.rate).toFixed(3)} ms`;

async function get(name, values = {}) {
  const answer = await fetch(`${name}?${new URLSearchParams(values)}`);
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

function within(input, low, high) {
  const value = Math.min(Math.max(Math.round(+input.value) || low, low), high);
  input.value = value;
  return value;
}

function wanted(kind) {
  return {
    group: at("group").value,
    clip: at("clip").value,
    kind,
    instant: at("instant").value,
    length: within(at("length"), 1, clip.longest),
    bins: within(at("bins"), 1, clip.samples),
    black: at("black").value,
    white: Math.max(+at("white").value, +at("black").value + 1),
  };
}

async function draw(image, caption, kind, round) {
  const answer = await get("picture", wanted(kind));
  const blob = await answer.blob();
  if (round !== asked) return null;
  const url = URL.createObjectURL(blob);
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.src = url;
  image.alt = `${kind} at sample ${at("instant").value}`;
  await image.decode().catch(() => {});
  image.classList.toggle("pixels", image.naturalWidth <= 640);
  size(image);
  const about = JSON.parse(answer.headers.get("X-Facts"));
  const [start, stop] = about.samples;
  const of = stop - start === 1 ? `sample ${start}` : `samples ${start} to ${stop - 1}`;
  caption.textContent = `${kind}, ${image.naturalWidth}×${image.naturalHeight} pixels, of ${of}`;
  return about;
}

function size(image) {
  const zoom = +at("zoom").value;
  image.parentElement.className = `scroll zoom-${zoom}`;
  image.style.width = zoom === 1 ? "" : `${100 * zoom}%`;
}

function showFacts(about) {
  const rows = [
    ["file", groups[at("group").value].name],
    ["time", clip.rate
      ? `${milliseconds(at("instant").value)} from the first sample` +
        (clip.begins === null ? "" : `; ${(clip.begins + at("instant").value / clip.rate).toFixed(6)} s on the recording's clock`)
      : "not known: no rate was given"],
    ["window", `samples ${about.window[0]} to ${about.window[1] - 1}` + (clip.rate ? `, ${milliseconds(about.window[1] - about.window[0])}` : "")],
    ["spikes", `${clip.shape[0]}×${clip.shape[1]} pixels, ${clip.samples} samples${clip.rate ? ` at ${clip.rate} Hz` : ""}`],
    ["mean rate", `${about.mean_rate.toFixed(4)} spikes a sample in the window`],
    ["gain", clip.gain ? `${+clip.gain.toPrecision(6)} spikes a sample at unit luminance` : "not known: white is the brightest 0.5 %"],
  ];
  at("facts").replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("div");
    for (const [tag, text] of [["dt", name], ["dd", value]]) {
      const cell = document.createElement(tag);
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  }));
  const { step, pixels } = about.rates;
  const most = Math.max(...pixels, 1);
  at("rates").replaceChildren(...pixels.map((n, i) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = (40 * n) / most;
    const sides = { x: (100 * i) / pixels.length, y: 40 - height, width: 90 / pixels.length, height };
    for (const side in sides) bar.setAttribute(side, sides[side]);
    return bar;
  }));
  at("rates-caption").textContent =
    `pixels by rate in the window: 0 to ${(step * pixels.length).toFixed(3)} spikes a sample, at most ${most} pixels a bar`;
}

function fileName() {
  const parts = [groups[at("group").value].name, at("clip").selectedOptions[0].text, at("kind").value, clip.rate ? milliseconds(at("instant").value) : `sample_${at("instant").value}`];
  return `${parts.join("_").replace(/^.*\/(?=.*\/)/, "").replace(/[^\w.-]+/g, "_")}.png`;
}

async function show() {
  if (!clip) return;
  const round = ++asked;
  const beside = at("beside").value;
  at("panes").classList.toggle("two", beside !== "");
  at("second").closest("figure").hidden = beside === "";
  at("time").textContent = `${clip.rate ? `${milliseconds(at("instant").value)}, ` : ""}sample ${at("instant").value} of ${clip.samples}`;
  for (const id of ["black", "white"]) at(id).nextElementSibling.textContent = `${at(id).value} %`;
  at("save").href = `picture?${new URLSearchParams(wanted(at("kind").value))}`;
  at("save").download = fileName();
  const waits = setTimeout(() => at("panes").classList.add("waiting"), 400);
  try {
    const about = await draw(at("picture"), at("caption"), at("kind").value, round);
    if (about) {
      fit = about.fit;
      showFacts(about);
    }
    if (beside && round === asked) await draw(at("second"), at("second-caption"), beside, round);
    if (round === asked) {
      say(at("error"), "");
      root.dataset.shown = round;
    }
  } catch (error) {
    if (round === asked) say(at("error"), error.message);
  }
  clearTimeout(waits);
  if (round === asked) at("panes").classList.remove("waiting");
}

async function chooseClip() {
  try {
    clip = await (await get("clip", { group: at("group").value, clip: at("clip").value })).json();
  } catch (error) {
    say(at("error"), error.message);
    return;
  }
  const [kind, beside] = [at("kind").value || "TFP", at("beside").value];
  const first = clip.kinds.includes("blur") ? "blur" : "";
  fill(at("kind"), clip.kinds);
  fill(at("beside"), ["nothing", ...clip.kinds], ["", ...clip.kinds]);
  at("kind").value = clip.kinds.includes(kind) ? kind : "TFP";
  at("beside").value = at("beside").dataset.chosen && clip.kinds.concat("").includes(beside) ? beside : first;
  at("instant").max = clip.samples - 1;
  at("instant").value = Math.floor(clip.samples / 2);
  at("length").max = clip.longest;
  at("bins").max = clip.samples;
  await show();
}

async function chooseGroup() {
  const group = groups[at("group").value];
  at("name").textContent = group.name;
  document.title = `${group.name} · spikedeblur view`;
  say(at("finding"), group.finding);
  fill(at("clip"), group.clips, group.clips.map((_, i) => i));
  at("of-clip").hidden = group.clips.length < 2;
  await chooseClip();
}

function move(by) {
  at("instant").value = (+at("instant").value + by + clip.samples) % clip.samples;
  return show();
}

let playing = false;
at("play").addEventListener("click", async () => {
  playing = !playing;
  at("play").textContent = playing ? "Pause" : "Play";
  at("play").setAttribute("aria-pressed", playing);
  while (playing) {
    await move(1);
    await new Promise((done) => { setTimeout(done, 60); });
  }
});
at("back").addEventListener("click", () => move(-1));
at("on").addEventListener("click", () => move(1));
for (const id of ["instant", "black", "white"]) at(id).addEventListener("input", show);
for (const id of ["kind", "length", "bins"]) at(id).addEventListener("change", show);
at("beside").addEventListener("change", () => { at("beside").dataset.chosen = "yes"; show(); });
at("zoom").addEventListener("change", () => [at("picture"), at("second")].forEach(size));
at("group").addEventListener("change", chooseGroup);
at("clip").addEventListener("change", chooseClip);
at("fit").addEventListener("click", () => {
  at("black").value = Math.max(Math.round(100 * fit[0]), 0);
  at("white").value = Math.max(Math.round(100 * fit[1]), +at("black").value + 1);
  show();
});
at("reset").addEventListener("click", () => {
  at("black").value = 0;
  at("white").value = 100;
  show();
});
const scrolls = [...document.querySelectorAll(".scroll")];
scrolls.forEach((one, i) => one.addEventListener("scroll", () => {
  const other = scrolls[1 - i];
  const share = (end, whole) => (whole > 0 ? end / whole : 0);
  const top = share(one.scrollTop, one.scrollHeight - one.clientHeight) * (other.scrollHeight - other.clientHeight);
  const left = share(one.scrollLeft, one.scrollWidth - one.clientWidth) * (other.scrollWidth - other.clientWidth);
  if (Math.abs(other.scrollTop - top) > 1) other.scrollTop = top;
  if (Math.abs(other.scrollLeft - left) > 1) other.scrollLeft = left;
}));

get("groups").then((answer) => answer.json()).then((found) => {
  groups = found.groups;
  fill(at("group"), groups.map((group) => group.name), groups.map((_, i) => i));
  at("of-group").hidden = groups.length < 2;
  return chooseGroup();
}).catch((error) => say(at("error"), error.message));
