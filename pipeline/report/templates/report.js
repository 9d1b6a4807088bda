"use strict";

const root = document.documentElement;
const isDark = matchMedia("(prefers-color-scheme: dark)");
document.getElementById("theme").addEventListener("click", () => {
  const now = root.dataset.theme || (isDark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
});

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const valueOf = (row, i) => row.cells[i].dataset.value;
  headings.forEach((heading, i) => {
    heading.querySelector("button").addEventListener("click", () => {
      const rows = [...body.rows];
      const numeric = rows.every((row) => valueOf(row, i) !== "" && !isNaN(valueOf(row, i)));
      const first = numeric ? "descending" : "ascending";
      const other = numeric ? "ascending" : "descending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((a, b) => sign * (numeric
        ? valueOf(a, i) - valueOf(b, i)
        : valueOf(a, i).localeCompare(valueOf(b, i), undefined, { numeric: true })));
      body.append(...rows);
    });
  });
}

const explained = JSON.parse(document.getElementById("explained").textContent);

function zoomedPart(image, [left, top, width, height]) {
  const part = document.createElement("div");
  part.className = "part";
  part.style.aspectRatio = `${width * image.getAttribute("width")} / ${height * image.getAttribute("height")}`;
  const copy = new Image();
  copy.alt = `${image.alt}, zoomed part`;
  copy.className = "pixels";
  copy.style.width = `${100 / width}%`;
  copy.style.left = `${(-100 * left) / width}%`;
  copy.style.top = `${(-100 * top) / height}%`;
  copy.src = image.src;
  part.append(copy);
  return part;
}

function marked([left, top, width, height]) {
  const box = document.createElement("span");
  box.className = "box";
  const sides = { left, top, width, height };
  for (const side in sides) box.style[side] = `${100 * sides[side]}%`;
  return box;
}

for (const strip of document.querySelectorAll(".strip")) {
  const figure = document.querySelector(".compare");
  const part = JSON.parse(figure.dataset.part);
  const images = figure.querySelectorAll(".stage img");
  for (const i of JSON.parse(strip.dataset.panels)) {
    const panel = document.createElement("div");
    panel.className = "panel";
    const caption = document.createElement("p");
    caption.textContent = images[i].dataset.caption;
    const whole = document.createElement("div");
    whole.className = "whole";
    const copy = new Image();
    copy.width = images[i].getAttribute("width");
    copy.height = images[i].getAttribute("height");
    copy.alt = images[i].alt;
    copy.src = images[i].src;
    if (images[i].parentElement.classList.contains("small")) copy.className = "pixels";
    whole.append(copy);
    panel.append(caption, whole);
    if (part.length) {
      whole.append(marked(part));
      panel.append(zoomedPart(images[i], part));
    }
    strip.append(panel);
  }
}

for (const figure of document.querySelectorAll(".compare")) {
  const stage = figure.querySelector(".stage");
  const panels = [...stage.querySelectorAll("img")];
  const sides = ["left", "right"];
  const part = JSON.parse(figure.dataset.part);
  const parts = document.createElement("div");
  parts.className = "parts";
  if (part.length) {
    stage.append(marked(part));
    stage.after(parts);
  }
  figure.querySelectorAll("select").forEach((select, side) => {
    panels.forEach((panel, i) => select.add(new Option(panel.alt, i)));
    const show = () => {
      panels.forEach((panel, i) => panel.classList.toggle(`is-${sides[side]}`, i === +select.value));
      stage.querySelector(`output.${sides[side]}`).value = panels[+select.value].dataset.caption;
      const chosen = [...figure.querySelectorAll("select")].map((each) => panels[+each.value]);
      if (part.length) parts.replaceChildren(...chosen.map((panel) => zoomedPart(panel, part)));
      const names = [...new Set(chosen.map((panel) => panel.alt))].filter((name) => Object.hasOwn(explained, name));
      figure.querySelector(".what").textContent =
        names.map((name) => `${name}: ${explained[name]}`).join(" ");
    };
    const model = Math.max(panels.length - 2, 0);
    select.value = side === 0 ? figure.dataset.left : model;
    select.addEventListener("change", show);
    show();
  });
  const range = stage.querySelector("input");
  const cut = () => stage.style.setProperty("--cut", `${range.value}%`);
  range.addEventListener("input", cut);
  cut();
}

const views = {};
const charts = JSON.parse(document.getElementById("charts").textContent);
const options = { actions: false, renderer: "svg", tooltip: { theme: "custom" } };
const drawn = [...document.querySelectorAll("[data-chart]")].map((place) =>
  vegaEmbed(place, charts[place.dataset.chart], options).then(({ view }) => {
    views[place.dataset.chart] = view;
  }));
Promise.all(drawn).then(() => { root.dataset.drawn = drawn.length; });

for (const player of document.querySelectorAll(".player")) {
  const times = JSON.parse(player.dataset.times);
  const columns = +player.dataset.columns;
  const rows = +player.dataset.rows;
  const screen = player.querySelector(".screen");
  const range = player.querySelector("input");
  const button = player.querySelector("button");
  screen.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
  const share = (i, n) => (n > 1 ? (100 * i) / (n - 1) : 0);
  const show = () => {
    const i = +range.value;
    screen.style.backgroundPosition =
      `${share(i % columns, columns)}% ${share(Math.floor(i / columns), rows)}%`;
    player.querySelector("output").value = `${times[i].toFixed(2)} ms`;
    if (views.raster) views.raster.signal("instant", times[i]).runAsync();
  };
  let timer = null;
  button.addEventListener("click", () => {
    const playing = timer === null;
    if (playing) {
      timer = setInterval(() => { range.value = (+range.value + 1) % times.length; show(); }, 80);
    } else {
      clearInterval(timer);
      timer = null;
    }
    button.setAttribute("aria-pressed", playing);
    button.textContent = playing ? "Pause" : "Play";
  });
  range.addEventListener("input", show);
  show();
}
