"use strict";
// Comfort only: every page works without this file. It writes text, never markup.
(() => {
  const lines = () => [...document.querySelectorAll(".list tbody th[scope=row] a:not([hidden])")];

  function move(by) {
    const all = lines();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement);
    const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by))];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  }

  const follow = (rel) => document.querySelector(`a[rel=${rel}]`)?.click();
  const keys = {
    j: () => move(1),
    k: () => move(-1),
    n: () => follow("next"),
    p: () => follow("prev"),
    "/": () => document.querySelector("input[type=search]")?.focus(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input, select, textarea, [contenteditable]")) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  const box = document.querySelector("[data-live]");
  if (!box) return;
  let entries = null;
  const source = new EventSource(box.dataset.live);
  source.onmessage = (event) => {
    const told = JSON.parse(event.data);
    for (const field of box.querySelectorAll("[data-field]")) {
      const text = told[field.dataset.field];
      if (text !== undefined) field.textContent = text || "—";
    }
    if (entries !== null && told.entries !== undefined && told.entries !== entries) {
      source.close();
      location.reload(); // a stage began or ended: the rest of the page is old
    }
    entries = told.entries ?? entries;
  };
  addEventListener("pagehide", () => source.close());
})();
