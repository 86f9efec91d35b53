/* MathJax is half of a page's weight: it comes once the page's text has been painted. */
"use strict";

/* A formula wider than its column scrolls, and what scrolls must take the keyboard's focus. */
function focusWideFormulas() {
  for (const formula of document.querySelectorAll("mjx-container[display=true]")) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    else formula.removeAttribute("tabindex");
  }
}

const mathjax = document.createElement("script");
mathjax.src = new URL("mathjax/startup.js", document.currentScript.src);
requestAnimationFrame(() => setTimeout(() => document.head.append(mathjax)));

/* Fulfilled when every formula is set. */
window.mathematicsReady = new Promise((done) => { mathjax.onload = done; })
  .then(() => MathJax.startup.promise)
  .then(focusWideFormulas);
addEventListener("resize", focusWideFormulas);
