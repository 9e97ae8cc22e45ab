// What happened: runs, dead letters, revisions; newest first.

import { get, url } from "./api.js";
import { h } from "./dom.js";
import { exact, moment, span } from "./format.js";
import { sign } from "./health.js";
import { missing, table } from "./table.js";

const PAGE = 50;
const TABS = {
  runs: {
    name: "Runs", path: "runs", fixed: { worked: 1 }, empty: "No run yet. Start one: usagectl run --wait",
    about: "Cycles in which an account was read: by the clock, by a trigger, or for an older window.",
    columns: (tz) => [
      { key: "requested_at", label: "Asked for", className: "when", cell: (r) => time(r.requested_at, tz) },
      { key: "kind", label: "Kind" },
      { key: "state", label: "How it went", cell: outcome },
      { key: "seconds", label: "Took", kind: "time", cell: (r) => (r.seconds === null ? "running" : span(Number(r.seconds))) },
      { key: "accounts_ok", label: "Accounts ok", kind: "count" }, { key: "accounts_failed", label: "failed", kind: "count" },
      { key: "pages", label: "Pages", kind: "count" }, { key: "pages_unchanged", label: "equal", kind: "count" },
      { key: "rows_inserted", label: "Rows new", kind: "count" }, { key: "rows_updated", label: "changed", kind: "count" },
      { key: "rows_removed", label: "removed", kind: "count" }, { key: "rows_unchanged", label: "equal", kind: "count" },
    ],
  },
  dead: {
    name: "Dead letters", path: "dead", fixed: {}, empty: "None. Every page was understood.",
    about: "Pages, or rows of pages, that could not be understood. Their window stays owed; usagectl dead show ID, then usagectl dead replay ID.",
    columns: (tz) => [
      { key: "last_seen_at", label: "Last seen", className: "when", cell: (r) => time(r.last_seen_at, tz) },
      { key: "letter_id", label: "Id", kind: "count" },
      { key: "account", label: "Account", className: "name" }, { key: "feed", label: "Feed" },
      { key: "reason", label: "Reason", className: "wide", cell: (r) => h("div", null, h("p", { class: "advice" }, r.reason), r.json_path && h("code", null, r.json_path)) },
      { key: "occurrences", label: "Times", kind: "count" },
      { key: "window_from", label: "Window from", className: "when", cell: (r) => time(r.window_from, tz) },
    ],
  },
  revisions: {
    name: "Revisions", path: "revisions", fixed: {}, empty: "None. No provider has changed a figure that was complete.",
    about: "Figures that a provider changed after they had been complete.",
    columns: (tz) => [
      { key: "revised_at", label: "Seen", className: "when", cell: (r) => time(r.revised_at, tz) },
      { key: "account", label: "Account", className: "name" }, { key: "feed", label: "Feed" },
      { key: "bucket_start", label: "Bucket", className: "when", cell: (r) => time(r.bucket_start, r.bucket_seconds >= 86400 ? "UTC" : tz) },
      { key: "change", label: "Change" },
      { key: "what", label: "Before → after", className: "wide", cell: differences },
    ],
  },
};

export class History {
  constructor(host, app) {
    this.app = app;
    this.tabs = h("nav", { class: "tabs", "aria-label": "History" });
    this.about = h("p", { class: "sub" });
    this.csv = h("a", null, "CSV");
    this.body = h("div", { class: "panel tall" }, h("p", { class: "state", role: "status" }, "Loading"));
    this.older = h("p", { class: "paging" });
    host.replaceChildren(h("div", { class: "head" }, h("h1", null, "History"), this.tabs), h("div", { class: "head" }, this.about, h("p", { class: "links" }, this.csv)), this.body, this.older);
  }

  destroy() {
    this.aborter?.abort();
  }

  every() {
    return 15e3;
  }

  async load(state) {
    this.aborter?.abort();
    this.aborter = new AbortController();
    const name = TABS[state.tab] ? state.tab : "runs";
    const tab = TABS[name];
    if (this.name !== name) {
      this.rows = null;
      this.name = name;
      this.seen = "";
    }
    this.tabs.replaceChildren(...Object.entries(TABS).map(([key, t]) => {
      const link = this.app.link({ view: "history", tab: key }, t.name);
      if (key === name) link.setAttribute("aria-current", "page");
      return link;
    }));
    this.about.textContent = tab.about;
    this.csv.href = url(tab.path, { ...tab.fixed, format: "csv" });
    this.csv.setAttribute("download", `${name}.csv`);
    try {
      const page = await get(tab.path, { ...tab.fixed, limit: PAGE }, this.aborter.signal);
      const now = JSON.stringify([state.tz, page]);
      if (now === this.seen) return;
      this.seen = now;
      this.rows = page.rows;
      this.show(tab, state, page.next);
    } catch (e) {
      if (e.name === "AbortError") return;
      this.seen = "";
      this.body.replaceChildren(h("p", { class: "notice bad", role: "alert" }, e.message));
    }
  }

  show(tab, state, next) {
    this.body.replaceChildren(table({ caption: `${tab.name}, newest first; times of ${state.tz}`, columns: tab.columns(state.tz), rows: this.rows, empty: tab.empty }));
    this.older.replaceChildren(`${exact(String(this.rows.length))} shown`, next ? h("button", { type: "button", onclick: () => this.more(tab, state, next) }, "Show older") : "");
  }

  async more(tab, state, cursor) {
    try {
      const page = await get(tab.path, { ...tab.fixed, limit: PAGE, cursor });
      this.rows = this.rows.concat(page.rows);
      this.show(tab, state, page.next);
    } catch (e) {
      this.older.replaceChildren(e.message);
    }
  }
}

function time(text, tz) {
  if (text === null) return missing();
  return h("time", { datetime: text }, moment(text, tz));
}

function outcome(run) {
  if (run.state !== "done") return h("span", { class: "badge idle" }, sign("ring"), "running");
  if (!run.accounts_failed) return h("span", { class: "badge good" }, sign("tick"), "all read");
  return h("details", { class: "inline" }, h("summary", null, h("span", { class: "badge bad" }, sign("cross"), "with failures")),
    h("ul", null, run.failures.map((f) => h("li", null, h("strong", null, h("bdi", null, f.account)), " ", h("code", null, f.error ?? "not finished"), f.detail && h("p", { class: "advice" }, f.detail)))));
}

const DIMENSIONS = ["project_id", "user_id", "api_key_id", "model", "service_tier", "batch", "line_item", "dims"];

// Whose figure it is, and each measure that differs.
function differences(r) {
  const one = { ...r.old_row, ...r.old_row?.extra }, two = { ...r.new_row, ...r.new_row?.extra };
  const whose = DIMENSIONS.map((d) => two[d] ?? one[d]).filter((v) => v !== null && v !== undefined).map((v) => (typeof v === "object" ? JSON.stringify(v) : String(v)));
  const names = [...new Set([...Object.keys(one), ...Object.keys(two)])].filter((n) => !DIMENSIONS.includes(n) && n !== "extra" && JSON.stringify(one[n]) !== JSON.stringify(two[n]));
  return h("div", null, whose.length > 0 && h("p", { class: "quiet-text" }, h("bdi", null, whose.join(" · "))),
    h("ul", { class: "diff" }, names.map((n) => h("li", null, n.replaceAll("_", " "), " ", value(one[n]), " → ", value(two[n])))));
}

function value(v) {
  if (v === null || v === undefined) return missing("nothing");
  const text = typeof v === "object" ? JSON.stringify(v) : String(v);
  return h("span", { class: "figure" }, /^-?\d+(\.\d+)?$/.test(text) ? exact(text) : text);
}
