"use strict";
// Zoom and details. The page is whole without: all that is here only changes the view of what is drawn.
(() => {
  const WIDE = 1e6, TALL = 1e4; // the plot's own units
  const STEPS = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 345600, 604800,
    1209600, 2592000, 7776000, 15552000, 31536000, 157680000, 315360000].map((seconds) => seconds * 1000);
  const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
  const SVG = "http://www.w3.org/2000/svg";
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
  const digits = (v) => (v === null ? "–" : String(Math.abs(v) >= 1e5 && Math.abs(v) < 1e9 ? Math.round(v) : Number(v.toPrecision(5))));
  const moment = (ms) => new Date(ms).toISOString().replace("T", " ").replace(/(:00)?\.000Z$|Z$/, "");

  function tickLabel(ms, step) {
    const text = new Date(ms).toISOString();
    if (step >= 28 * 864e5) return text.slice(0, 7);
    if (ms % 864e5 === 0) return `${Number(text.slice(8, 10))} ${MONTHS[Number(text.slice(5, 7)) - 1]}`;
    return step < 6e4 ? text.slice(11, 19) : text.slice(11, 16);
  }

  function roundStep(span, most) {
    const rough = span / most, power = 10 ** Math.floor(Math.log10(rough));
    return ([1, 2, 2.5, 5].find((f) => f * power >= rough) ?? 10) * power;
  }

  const draw = (parent, name, attributes, text) => {
    const node = document.createElementNS(SVG, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
  };

  for (const card of document.querySelectorAll(".card.series")) {
    const data = JSON.parse(card.querySelector("script").textContent);
    const { first, span, low, high, t, v, e, u, l, f, o } = data;
    if (t.length < 2) continue;
    const find = (name) => card.querySelector(name);
    const chart = find(".chart"), overview = find(".overview"), plot = find(".chart .plot");
    const ticks = find(".ticks"), brush = find(".overview .brush"), cross = find(".cross"), tip = find(".tip");
    const box = ["x", "y", "width", "height"].map((name) => Number(plot.getAttribute(name)));
    const [left, top, width, height] = box;
    const across = (ms) => (ms / span) * WIDE, down = (value) => ((high - value) / (high - low)) * TALL;
    const shortest = Math.min(span, Math.max((span / t.length) * 12, 1));
    let from = 0, to = span, bottom = low, ceiling = high;
    // The strip shows the line and the marks of the chart once more, without what makes a mark a record's.
    for (const name of ["value", "rim"]) {
      draw(overview.querySelector(".plot"), "path", { class: name, d: plot.querySelector(`.${name}`).getAttribute("d") });
    }
    card.classList.add("live");

    // The first point at or after a time.
    function at(ms) {
      let a = 0, b = t.length;
      while (a < b) {
        const middle = (a + b) >> 1;
        if (t[middle] < ms) a = middle + 1; else b = middle;
      }
      return a;
    }

    function show(a, b) {
      const length = clamp(b - a, shortest, span);
      from = clamp(a + (b - a - length) / 2, 0, span - length);
      to = from + length;
      [bottom, ceiling] = [low, high];
      if (length < span) {
        let least = Infinity, most = -Infinity;
        for (let i = at(from); i < t.length && t[i] <= to; i++) {
          for (const value of [v[i], e[i], u[i], l[i]]) {
            if (value === null) continue;
            least = Math.min(least, value);
            most = Math.max(most, value);
          }
        }
        if (least <= most) {
          const air = (most - least) * 0.08 || (high - low) * 0.05;
          [bottom, ceiling] = [Math.max(least - air, low), Math.min(most + air, high)];
        }
      }
      plot.setAttribute("viewBox", [across(from), down(ceiling), across(to) - across(from), down(bottom) - down(ceiling)].join(" "));
      brush.setAttribute("x", left + (from / span) * width);
      brush.setAttribute("width", Math.max(((to - from) / span) * width, 2));
      axes();
    }

    function axes() {
      ticks.replaceChildren();
      const step = roundStep(ceiling - bottom, 6);
      for (let n = Math.ceil(bottom / step); n * step <= ceiling; n++) {
        const y = top + ((ceiling - n * step) / (ceiling - bottom)) * height;
        draw(ticks, "line", { class: "grid", x1: left, x2: left + width, y1: y, y2: y });
        draw(ticks, "text", { x: left - 10, y: y + 4, "text-anchor": "end" }, digits(n * step));
      }
      const pace = STEPS.find((s) => s >= (to - from) / 10) ?? (to - from) / 10;
      for (let n = Math.ceil((first + from) / pace); n * pace <= first + to; n++) {
        const x = left + ((n * pace - first - from) / (to - from)) * width;
        draw(ticks, "line", { class: "grid", x1: x, x2: x, y1: top, y2: top + height });
        draw(ticks, "text", { x, y: top + height + 20, "text-anchor": "middle" }, tickLabel(n * pace, pace));
      }
    }

    // Where the pointer is: from 0 at the plot's left edge to 1 at its right one.
    function share(event, svg) {
      const seen = svg.getBoundingClientRect();
      return clamp((((event.clientX - seen.left) / seen.width) * svg.viewBox.baseVal.width - left) / width, 0, 1);
    }

    function details(event) {
      const ms = from + share(event, chart) * (to - from);
      let i = Math.min(at(ms), t.length - 1);
      if (i > 0 && ms - t[i - 1] < t[i] - ms) i--;
      const x = left + ((t[i] - from) / (to - from)) * width;
      cross.setAttribute("x1", x);
      cross.setAttribute("x2", x);
      cross.style.visibility = "visible";
      const lines = [moment(first + t[i]), `value\t${digits(v[i])}`];
      if (f[i] !== "-") lines.push(`expected\t${digits(e[i])}`, `band\t${digits(l[i])} to ${digits(u[i])}`);
      if (o[i] !== null) lines.push(`offset\t${o[i]}`);
      lines.push({ "-": "not judged", ".": "normal", h: "anomaly, high", l: "anomaly, low" }[f[i]]);
      tip.textContent = lines.join("\n");
      tip.style.visibility = "visible";
      const sheet = card.getBoundingClientRect(), seen = chart.getBoundingClientRect();
      const place = seen.left - sheet.left + (x / 1200) * seen.width;
      tip.style.left = `${place + tip.offsetWidth + 24 > sheet.width ? place - tip.offsetWidth - 14 : place + 14}px`;
      tip.style.top = `${seen.top - sheet.top + 26}px`;
    }

    function hide() {
      cross.style.visibility = tip.style.visibility = "hidden";
    }

    // Dragging: over the chart it selects what to show; over the overview it moves what is shown, or selects.
    function dragging(svg, begin) {
      svg.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        const move = begin(share(event, svg));
        svg.setPointerCapture(event.pointerId);
        const moved = (next) => move(share(next, svg), false);
        const ended = (next) => {
          svg.removeEventListener("pointermove", moved);
          move(share(next, svg), true);
        };
        svg.addEventListener("pointermove", moved);
        svg.addEventListener("pointerup", ended, { once: true });
        svg.addEventListener("pointercancel", ended, { once: true });
      });
    }

    const selection = find(".selection");
    dragging(chart, (start) => (end, isLast) => {
      const [a, b] = [Math.min(start, end), Math.max(start, end)];
      selection.setAttribute("x", left + a * width);
      selection.setAttribute("width", isLast ? 0 : (b - a) * width);
      if (isLast && b - a > 0.005) show(from + a * (to - from), from + b * (to - from));
    });
    dragging(overview, (start) => {
      const [a, b, here] = [from, to, start * span];
      const isInside = here >= a && here <= b && b - a < span;
      return (end) => {
        if (isInside) show(clamp(a + (end - start) * span, 0, span - (b - a)), clamp(b + (end - start) * span, b - a, span));
        else if (Math.abs(end - start) > 0.005) show(Math.min(start, end) * span, Math.max(start, end) * span);
      };
    });
    chart.addEventListener("pointermove", details);
    chart.addEventListener("pointerleave", hide);
    for (const svg of [chart, overview]) svg.addEventListener("dblclick", () => show(0, span));

    for (const row of document.querySelectorAll("tr[data-at]")) {
      if (row.dataset.series !== card.dataset.series) continue;
      row.addEventListener("click", () => {
        const middle = Date.parse(row.dataset.at) - first, half = Math.max(span / 28, shortest / 2);
        show(middle - half, middle + half);
        card.scrollIntoView({ behavior: "smooth", block: "start" });
      });
    }
  }
})();
