// The pipeline as its processes report it, every two seconds.

import { get } from "./api.js";
import { h, svg } from "./dom.js";
import { exact, moment, span } from "./format.js";
import { sign } from "./health.js";
import { missing, table } from "./table.js";

const STAGES = {
  scheduler: ["Scheduler", "claims accounts that are due"],
  fetcher: ["Fetcher", "reads the providers’ pages"],
  normalizer: ["Normalizer", "turns pages into records"],
  writer: ["Writer", "commits records to Postgres"],
};
const KEPT = 60, FEWEST = 15; // points of a spark line: two minutes, and how many fill its width

export class Pipeline {
  constructor(host, app) {
    this.app = app;
    this.past = {};
    this.flow = h("ol", { class: "flow" }, Object.keys(STAGES).map((stage) => this.card(stage)),
      h("li", { class: "sink" }, h("h2", null, "Postgres"), h("p", null, "usage_metrics")));
    this.when = h("p", { class: "sub", role: "status" }, "Loading");
    this.instances = h("div", { class: "panel tall" });
    host.replaceChildren(h("div", { class: "head" }, h("h1", null, "Pipeline"), this.when),
      this.flow, h("h2", { class: "apart" }, "Processes"), this.instances);
  }

  destroy() {
    this.aborter?.abort();
  }

  every() {
    return 2e3;
  }

  card(stage) {
    const [name, does] = STAGES[stage];
    const body = h("div", { class: "stage-body" });
    this.past[stage] = [];
    return h("li", { class: "stage", id: `stage-${stage}` }, h("h2", null, name), h("p", { class: "does" }, does), body);
  }

  async load(state) {
    this.aborter?.abort();
    this.aborter = new AbortController();
    try {
      const answer = await get("stages", {}, this.aborter.signal);
      this.show(answer, state);
    } catch (e) {
      if (e.name !== "AbortError") this.when.textContent = e.message;
    }
  }

  show({ at, stages, instances }, state) {
    this.when.textContent = `As of ${moment(at, state.tz, true)}`;
    for (const s of stages) {
      const past = this.past[s.stage];
      if (!past) continue;
      past.push(s.work_10s);
      if (past.length > KEPT) past.shift();
      const item = document.getElementById(`stage-${s.stage}`);
      item.className = `stage ${s.ready ? "up" : "down"}`;
      item.querySelector(".stage-body").replaceChildren(
        h("p", { class: `badge ${s.ready ? "good" : "bad"}` }, sign(s.ready ? "tick" : "cross"), s.ready ? `${s.fresh} running` : "none running"),
        spark(past),
        h("dl", { class: "pairs" },
          pair(`${title(s.work_of)} a second`, rate(s.work_10s)),
          pair(s.queue_of ? title(s.queue_of) : "Queue", s.queue === null ? missing("not known") : exact(String(s.queue))),
          pair("Errors", h("span", { class: s.errors > 0 ? "bad-text" : null }, exact(String(s.errors)))),
          pair("Warnings", exact(String(s.warnings)))));
    }
    const rows = JSON.stringify(instances.map((i) => [i, 0]));
    if (rows === this.seen) return;
    this.seen = rows;
    const scroll = this.instances.querySelector(".scroll")?.scrollLeft ?? 0;
    const focused = this.instances.contains(document.activeElement);
    this.instances.replaceChildren(table({
      caption: "Processes, in the order of the pipeline",
      columns: [
        { key: "instance", label: "Process", className: "name" }, { key: "stage", label: "Stage" },
        { key: "fresh", label: "State", cell: (r) => h("span", { class: `badge ${r.fresh ? "good" : "warn"}` }, sign(r.fresh ? "tick" : "clock"), r.fresh ? "up" : `silent for ${span(r.silent_ms / 1000)}`) },
        { key: "uptime_s", label: "Up for", kind: "time", cell: (r) => span(r.uptime_s) },
        { key: "queue", label: "Queue", kind: "count" },
        { key: "work_10s", label: "A second, now", kind: "rate", cell: (r) => rate(r.work_10s) },
        { key: "work_60s", label: "over a minute", kind: "rate", cell: (r) => rate(r.work_60s) },
        { key: "errors", label: "Errors", kind: "count" }, { key: "warnings", label: "Warnings", kind: "count" },
        { key: "version", label: "Version" },
      ],
      rows: instances, empty: "No process has been heard of. Are the stages running, with the same UF_PULSE as the gateway?",
    }));
    const box = this.instances.querySelector(".scroll");
    box.scrollLeft = scroll;
    if (focused) box.focus();
  }
}

function title(words) {
  return words.replaceAll("_", " ").replace(/^./, (c) => c.toUpperCase());
}

function rate(n) {
  if (n === null || n === undefined) return missing("not known");
  return n === 0 ? "0" : n >= 100 ? exact(String(Math.round(n))) : n >= 10 ? n.toFixed(1) : n.toFixed(2);
}

function pair(name, value) {
  return h("div", null, h("dt", null, name), h("dd", null, value));
}

// The rate of the last two minutes, drawn; in words it stands below.
function spark(past) {
  const top = Math.max(...past, 1e-9);
  const step = 100 / (Math.max(past.length, FEWEST) - 1);
  const points = past.map((v, i) => `${(100 - (past.length - 1 - i) * step).toFixed(2)},${(27 - (v / top) * 24).toFixed(2)}`);
  return svg("svg", { class: "spark", viewBox: "0 0 100 28", preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
    svg("polyline", { points: past.length > 1 ? points.join(" ") : `${points[0]} 100,${points[0].split(",")[1]}` }));
}
