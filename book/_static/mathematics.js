/* MathJax is half of a page's weight: it comes once the page's text has been painted. */
"use strict";

/* What is wider than its column scrolls, and what scrolls must take the keyboard's focus. The theme asks too seldom. */
const SCROLLS = "mjx-container[display=true], pre, .pst-scrollable-table-container";

const focusable = new ResizeObserver((changed) => {
  for (const { target } of changed) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});

const mathjax = document.createElement("script");
mathjax.src = new URL("mathjax/startup.js", document.currentScript.src);
requestAnimationFrame(() => setTimeout(() => document.head.append(mathjax)));

/* Fulfilled when every formula is set. */
window.mathematicsReady = new Promise((done) => { mathjax.onload = done; })
  .then(() => MathJax.startup.promise)
  .then(() => document.querySelectorAll(SCROLLS).forEach((each) => focusable.observe(each)));
