/* Sliders and points of the book's figures. The markup comes from bookkit.touch; without this file
   the start of each figure shows and its controls stay hidden. */
"use strict";

/* A slider: `show(index)` puts a frame in the place of the present one. */
function slider(root, show) {
  const input = root.querySelector("input[type=range]");
  const output = root.querySelector("output");
  const labels = input.dataset.labels.split("\n");
  const start = Number(input.getAttribute("value"));
  const go = (index) => {
    output.value = labels[index];
    input.setAttribute("aria-valuetext", labels[index]);
    show(index);
  };
  input.addEventListener("input", () => go(Number(input.value)));
  addEventListener("beforeprint", () => go(start));
  addEventListener("afterprint", () => go(Number(input.value)));
  root.querySelector(".touch-controls").hidden = false;
  if (Number(input.value) !== start) go(Number(input.value)); // a browser may restore it
}

/* Drawings: each is fetched when it is first needed, and its neighbours once the slider is used. */
function frames(root) {
  const images = ["light", "dark"].map((ink) => root.querySelector(`img.only-${ink}`));
  const items = [...root.querySelectorAll("ul > li")];
  const note = root.querySelector(".touch-note");
  const dark = () => images[1].offsetParent !== null;
  slider(root, (index) => {
    const { light, dark: night, alt } = items[index].dataset;
    images.forEach((image, i) => { image.src = i ? night : light; image.alt = alt; });
    note.textContent = items[index].textContent;
    for (const next of [items[index - 1], items[index + 1]]) {
      if (next) new Image().src = dark() ? next.dataset.dark : next.dataset.light;
    }
  });
}

/* Pieces of the page: all lie on one another, so that the tallest gives the height. */
function pages(root) {
  const all = [...root.querySelectorAll(".touch-page")];
  root.classList.add("touch-on");
  slider(root, (index) => all.forEach((page, i) => { page.hidden = i !== index; }));
}

/* Points: the nearest to the pointer, or the one with the focus, says what it is. */
function points(root) {
  const canvas = root.querySelector(".touch-canvas");
  const marks = [...root.querySelectorAll(".touch-point")];
  const note = root.querySelector(".touch-note");
  let chosen = null;
  const choose = (mark) => {
    if (mark === chosen) return;
    if (chosen) chosen.classList.remove("chosen");
    if (mark) mark.classList.add("chosen");
    chosen = mark;
    note.textContent = mark ? mark.getAttribute("aria-label") : note.dataset.start;
  };
  const nearest = (event) => {
    let found = null, least = 24;
    for (const mark of marks) {
      const box = mark.getBoundingClientRect();
      const far = Math.hypot(event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2);
      if (far < least) [found, least] = [mark, far];
    }
    return found;
  };
  const focus = (mark) => {
    marks.forEach((each) => { each.tabIndex = each === mark ? 0 : -1; });
    mark.focus();
  };
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  canvas.addEventListener("pointermove", (event) => { const mark = nearest(event); if (mark) choose(mark); });
  canvas.addEventListener("pointerdown", (event) => choose(nearest(event)));
  canvas.addEventListener("focusin", (event) => { if (marks.includes(event.target)) choose(event.target); });
  canvas.addEventListener("click", (event) => { if (marks.includes(event.target)) choose(event.target); });
  root.addEventListener("keydown", (event) => {
    const at = marks.indexOf(document.activeElement);
    if (at < 0) return;
    let next = steps[event.key] && (at + steps[event.key] + marks.length) % marks.length;
    if (event.key === "Home") next = 0;
    if (event.key === "End") next = marks.length - 1;
    if (next === undefined) return;
    event.preventDefault();
    focus(marks[next]);
  });
  addEventListener("keydown", (event) => { if (event.key === "Escape") choose(null); });
  addEventListener("beforeprint", () => choose(null));
  root.querySelector(".touch-points").hidden = false;
  note.hidden = false;
}

for (const root of document.querySelectorAll(".touch:not([data-ready])")) {
  root.dataset.ready = "";
  ({ frames, pages, points })[root.dataset.touch](root);
}
