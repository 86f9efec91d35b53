/* One button opens all folded code of a page, and shuts it again. Without scripts each cell opens alone. */
"use strict";

addEventListener("DOMContentLoaded", () => {
  const folded = [...document.querySelectorAll("details.hide")];
  const button = document.querySelector(".code-button");
  if (!button || !folded.length) return;
  button.hidden = false;
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") !== "true";
    for (const cell of folded) cell.open = open;
    button.setAttribute("aria-pressed", String(open));
  });
});
