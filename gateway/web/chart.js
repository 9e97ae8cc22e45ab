// Stacked columns over hours, days or months, by uPlot. Floats are for drawing only; every figure that
// can be read comes as text from the caller.

import { h } from "./dom.js";
import { axis } from "./format.js";

/* global uPlot */

export const COLOURS = 8; // --c0 .. --c7 in style.css; the last is for "all others"

// host: an empty element of fixed height. data: {labels, long, series: [{name, values, texts, colour}],
// known: [bool], open: [bool], unit, ticks(i)}.
export class Chart {
  constructor(host) {
    this.host = host;
    this.tip = h("div", { class: "tip", hidden: true });
    this.plot = null;
    this.data = null;
    this.resize = new ResizeObserver(() => this.fit());
    this.resize.observe(host);
    // The theme may be switched by the control or by the system.
    this.theme = () => this.data && this.draw(this.data);
    addEventListener("themechange", this.theme);
  }

  destroy() {
    this.resize.disconnect();
    removeEventListener("themechange", this.theme);
    this.plot?.destroy();
    this.plot = null;
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.host;
    if (this.plot && width > 0 && (width !== this.plot.width || height !== this.plot.height)) this.plot.setSize({ width, height });
  }

  draw(data) {
    this.data = data;
    this.plot?.destroy();
    this.host.replaceChildren(this.tip);
    const css = getComputedStyle(document.documentElement);
    const colour = (name) => css.getPropertyValue(name).trim();
    const x = data.labels.map((_, i) => i);
    const stacked = stack(data.series);
    // From the top of the stack down: each lower column is drawn over the one before.
    const order = data.series.map((_, i) => i).reverse();
    const bars = uPlot.paths.bars({ size: [0.72, 44, 1], align: 0, radius: 0 });
    const text = colour("--ink-2"), line = colour("--line"), font = `12px ${colour("--sans")}`;
    this.plot = new uPlot({
      width: this.host.clientWidth, height: this.host.clientHeight,
      padding: [8, 4, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: {
        x: { time: false, range: [-0.5, Math.max(x.length, 1) - 0.5] },
        y: { range: (u, low, high) => yRange(low, high) },
      },
      axes: [
        { stroke: text, font, size: 28, gap: 6, grid: { show: false }, ticks: { show: false },
          splits: (u) => wholeSteps(x.length, Math.max(2, Math.floor(u.bbox.width / devicePixelRatio / 84))),
          values: (u, splits) => splits.map((i) => data.labels[i] ?? "") },
        { stroke: text, font, size: 56, gap: 6, grid: { stroke: line, width: 1 }, ticks: { show: false },
          space: 44, values: (u, splits) => splits.map((v) => axis(v)) },
      ],
      series: [{}, ...order.map((i) => ({
        label: data.series[i].name, paths: bars, points: { show: false }, width: 0,
        fill: colour(`--c${data.series[i].colour}`), stroke: colour(`--c${data.series[i].colour}`),
      }))],
      hooks: {
        drawClear: [(u) => hatch(u, data, colour)],
        setCursor: [(u) => this.point(u)],
      },
    }, [x, ...order.map((i) => stacked[i])], this.host);
    this.host.append(this.tip);
    this.plot.root.querySelector("canvas").setAttribute("aria-hidden", "true");
  }

  // The figures of the column under the pointer.
  point(u) {
    const i = u.cursor.idx;
    const { data, tip } = this;
    if (i === null || i === undefined || u.cursor.left < 0) {
      tip.hidden = true;
      return;
    }
    const lines = data.series.map((s) => ({ s, text: s.texts[i] })).filter(({ text }) => text !== null && text !== undefined);
    tip.replaceChildren(
      h("p", { class: "tip-head" }, data.long[i]),
      lines.length === 0 && h("p", null, data.known[i] ? "zero" : "no data yet"),
      ...lines.map(({ s, text }) => h("p", { class: "tip-line" }, h("span", { class: `swatch c${s.colour}` }), h("span", { class: "tip-name" }, s.name), h("b", null, text))),
      data.open[i] && lines.length > 0 ? h("p", { class: "tip-foot" }, "not complete yet") : "");
    tip.hidden = false;
    const left = u.over.offsetLeft + u.cursor.left;
    const room = this.host.clientWidth - tip.offsetWidth - 4;
    tip.style.left = `${Math.max(4, Math.min(room, left + (left > this.host.clientWidth / 2 ? -tip.offsetWidth - 16 : 16)))}px`;
  }
}

// Positive parts pile up from zero, negative ones (credits, refunds) down from it.
function stack(series) {
  const n = series[0]?.values.length ?? 0;
  const up = new Float64Array(n), down = new Float64Array(n);
  return series.map((s) => s.values.map((v, i) => {
    if (v === null) return null;
    if (v < 0) return (down[i] += v);
    return (up[i] += v);
  }));
}

function yRange(low, high) {
  const top = Math.max(high ?? 0, 0), bottom = Math.min(low ?? 0, 0);
  if (top === 0 && bottom === 0) return [0, 1];
  return [bottom * 1.08, top * 1.06];
}

function wholeSteps(n, most) {
  const step = Math.max(1, Math.ceil(n / most));
  return Array.from({ length: Math.ceil(n / step) }, (_, i) => i * step);
}

// A slot without data is hatched, so that it never looks like a zero. A slot that still grows has a
// lighter ground.
function hatch(u, data, colour) {
  const { ctx } = u, { top, height, left, width } = u.bbox;
  const slot = width / Math.max(data.labels.length, 1);
  ctx.save();
  data.labels.forEach((_, i) => {
    const nothing = !data.known[i] && data.series.every((s) => s.values[i] === null);
    if (!nothing && !data.open[i]) return;
    const x = left + i * slot;
    if (!nothing) {
      ctx.fillStyle = colour("--open");
      ctx.fillRect(x, top, slot, height);
      return;
    }
    ctx.save();
    ctx.beginPath();
    ctx.rect(x, top, slot, height);
    ctx.clip();
    ctx.strokeStyle = colour("--hatch");
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    const gap = 8 * devicePixelRatio;
    for (let d = Math.floor((x - height) / gap) * gap; d < x + slot; d += gap) {
      ctx.moveTo(d, top + height);
      ctx.lineTo(d + height, top);
    }
    ctx.stroke();
    ctx.restore();
  });
  ctx.restore();
}
