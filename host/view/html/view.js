"use strict";
// Timelines are drawn whole; what is seen of one is its viewBox.
(() => {
  const whole = 1000000, least = 200;
  const say = ns => ns < 1e6 ? (ns / 1e3).toFixed(1) + " µs" : ns < 1e9 ? (ns / 1e6).toFixed(2) + " ms" : (ns / 1e9).toFixed(3) + " s";
  function timeline(figure) {
    const svg = figure.querySelector(".bars"), from = figure.querySelector(".from"), to = figure.querySelector(".to");
    const span = Number(figure.dataset.span), height = svg.viewBox.baseVal.height;
    let left = 0, wide = whole;
    function show() {
      wide = Math.min(whole, Math.max(least, wide));
      left = Math.min(whole - wide, Math.max(0, left));
      svg.setAttribute("viewBox", `${left} 0 ${wide} ${height}`);
      from.textContent = say(left / whole * span);
      to.textContent = say((left + wide) / whole * span);
    }
    function zoom(by, at = 0.5) {
      const before = wide;
      wide = Math.min(whole, Math.max(least, wide * by));
      left += (before - wide) * at;
      show();
    }
    function all() { left = 0; wide = whole; show(); }
    const keys = {
      "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), "0": all, Home: () => { left = 0; show(); }, End: () => { left = whole; show(); },
      ArrowLeft: () => { left -= wide / 5; show(); }, ArrowRight: () => { left += wide / 5; show(); },
    };
    svg.addEventListener("keydown", e => {
      if (keys[e.key] && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); keys[e.key](); }
    });
    svg.addEventListener("wheel", e => {
      if (!e.ctrlKey) return; // the page's own
      e.preventDefault();
      const box = svg.getBoundingClientRect();
      zoom(e.deltaY > 0 ? 1.25 : 0.8, (e.clientX - box.left) / box.width);
    }, { passive: false });
    svg.addEventListener("pointerdown", e => { svg.setPointerCapture(e.pointerId); });
    svg.addEventListener("pointermove", e => {
      if (!svg.hasPointerCapture(e.pointerId)) return;
      left -= e.movementX / svg.getBoundingClientRect().width * wide;
      show();
    });
    for (const b of figure.querySelectorAll("[data-zoom]")) {
      b.addEventListener("click", () => ({ in: () => zoom(0.5), out: () => zoom(2), all })[b.dataset.zoom]());
    }
  }
  window.labctlTimelines = root => { for (const f of root.querySelectorAll(".times")) timeline(f); };
  window.labctlTimelines(document);
})();
