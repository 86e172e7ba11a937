"use strict";
(() => {
  let sent = false; // one decision a page: a second key or click before the next page is not for an item unseen
  addEventListener("pageshow", () => { sent = false; });
  addEventListener("submit", (event) => { if (sent) event.preventDefault(); sent = true; });
  addEventListener("keydown", (event) => {
    if (sent || event.repeat || event.isComposing || event.ctrlKey || event.altKey || event.metaKey) return;
    const at = event.target;
    if (at instanceof HTMLInputElement && at.type === "text") { if (event.key === "Escape") at.blur(); return; }
    const found = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === event.key.toLowerCase());
    if (!found) return;
    event.preventDefault();
    if (found instanceof HTMLInputElement) found.focus(); else found.click();
  });
})();
