// A formula wider than its column scrolls, and what scrolls must take the keyboard's focus.
function focusWideFormulas() {
  for (const formula of document.querySelectorAll("mjx-container[display=true]")) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    else formula.removeAttribute("tabindex");
  }
}
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  focusWideFormulas();
});
addEventListener("resize", focusWideFormulas);
