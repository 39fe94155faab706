// Values under the pointer. Everything else of this page is there without this.
"use strict";
(() => {
  const values = new Map();
  for (const line of document.querySelectorAll(".curve[data-v]")) {
    values.set(line.dataset.t, line.dataset.v.split(";").filter(Boolean).map((value) => value.split(",")));
  }
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  for (const svg of document.querySelectorAll("figure.curves > svg")) {
    const lines = [...svg.querySelectorAll("polyline.curve")].map((line) => {
      const name = line.querySelector("title").textContent;
      line.querySelector("title").remove();
      const points = line.getAttribute("points").split(" ").map((point) => point.split(",").map(Number));
      return { line, name, points, layer: line.closest("g.lin, g.log") };
    });
    let near = null;
    const forget = () => {
      if (near) near.line.classList.remove("near");
      near = null;
      tip.hidden = true;
    };
    svg.addEventListener("pointerleave", forget);
    const show = (event) => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let least = 25, found = null, index = 0;
      for (const one of lines) {
        if (getComputedStyle(one.layer).display === "none") continue;
        one.points.forEach(([x, y], i) => {
          const distance = Math.hypot(x - place.x, y - place.y);
          if (distance < least) { least = distance; found = one; index = i; }
        });
      }
      forget();
      const known = found && values.get(found.line.dataset.t);
      if (!known) return;
      // A logarithmic axis has no place for step 0: what is missing is missing at the beginning.
      const at = known[Math.min(index + Math.max(known.length - found.points.length, 0), known.length - 1)];
      near = found;
      near.line.classList.add("near");
      tip.textContent = `${found.name}: loss ${at[1]} at step ${Number(at[0]).toLocaleString("en")}, ${at[2]} s`;
      tip.hidden = false;
      const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 6);
      tip.style.left = `${Math.max(left, 6)}px`;
      tip.style.top = `${Math.max(event.clientY - tip.offsetHeight - 12, 6)}px`;
    };
    // A finger does not move before it touches.
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
  }
  // A page that reads itself again keeps its axes, and what is unfolded.
  try {
    for (const part of document.querySelectorAll("details")) {
      const key = `unfolded: ${part.querySelector("summary").textContent}`;
      if (sessionStorage.getItem(key)) part.open = true;
      part.addEventListener("toggle", () => {
        if (part.open) sessionStorage.setItem(key, "yes");
        else sessionStorage.removeItem(key);
      });
    }
    const kept = sessionStorage.getItem("scale");
    const axes = document.getElementById("logarithmic");
    if (axes && kept === axes.id) axes.checked = true;
    for (const choice of document.querySelectorAll("input[name=scale]")) {
      choice.addEventListener("change", () => sessionStorage.setItem("scale", choice.id));
    }
  } catch (error) { /* Nothing can be kept here. */ }
})();
