// Every account: how it is, complete until when, and what to do when it is not.

import { get, url } from "./api.js";
import { h } from "./dom.js";
import { age, moment, plural } from "./format.js";
import { badge, STATES } from "./health.js";
import { missing, table } from "./table.js";

const STALE_MS = 26 * 3600e3; // no feed is that slow: costs, the slowest, come by the day
const WORST = Object.keys(STATES);

export class Accounts {
  constructor(host, app) {
    this.app = app;
    this.seen = "";
    this.filter = h("select", { id: "status", onchange: () => app.go({ status: this.filter.value }) },
      h("option", { value: "" }, "all"), Object.entries(STATES).map(([value, s]) => h("option", { value }, s.name)));
    this.body = h("div", { class: "panel tall" }, h("p", { class: "state", role: "status" }, "Loading"));
    this.csv = h("a", { download: "accounts.csv" }, "CSV");
    this.older = h("p", { class: "paging" });
    host.replaceChildren(h("div", { class: "head" }, h("h1", null, "Accounts"),
      h("div", { class: "field" }, h("label", { for: "status" }, "State"), this.filter), h("p", { class: "links" }, this.csv)),
      this.body, this.older);
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
    this.filter.value = state.status;
    const parameters = { state: state.status || undefined, limit: 500 };
    this.csv.href = url("accounts", { state: state.status || undefined, format: "csv" });
    try {
      const page = await get("accounts", parameters, this.aborter.signal);
      const minute = Math.floor(Date.now() / 60e3); // ages grow, too
      const now = JSON.stringify([state, minute, page]);
      if (now === this.seen) return;
      this.seen = now;
      this.rows = page.rows;
      if (!page.next) this.rows.sort((a, b) => WORST.indexOf(a.state) - WORST.indexOf(b.state)); // by name within a state
      this.show(state, page);
    } catch (e) {
      if (e.name === "AbortError") return;
      this.seen = "";
      this.body.replaceChildren(h("p", { class: "notice bad", role: "alert" }, e.message));
    }
  }

  show(state, page) {
    const { tz } = state;
    this.body.replaceChildren(table({
      caption: `Accounts${state.status ? " that are " + (STATES[state.status]?.name ?? state.status) : ""}, the worst first; times of ${tz}`, cards: true,
      columns: [
        { key: "account", label: "Account", className: "name", cell: (r) => this.app.link({ view: "overview", filters: { account: r.account } }, h("bdi", null, r.account)) },
        { key: "provider", label: "Provider" },
        { key: "state", label: "State", cell: (r) => badge(r.state) },
        { key: "complete_until", label: "Complete until", className: "when", cell: (r) => until(r, tz) },
        { key: "last_success_at", label: "Last success", className: "when", cell: (r) => time(r.last_success_at, tz) },
        { key: "advice", label: "What is wrong, and what to do", className: "wide", cell: (r) => r.trouble || r.advice
          ? h("div", null, r.trouble && h("code", null, r.trouble), h("p", { class: "advice" }, r.advice)) : h("span", { class: "quiet-text" }, STATES[r.state]?.words ?? "") },
      ],
      rows: this.rows,
      empty: state.status ? "No account is in this state." : "No account yet. Add one: usagectl account add NAME --provider P (usagectl providers names them)",
    }));
    this.older.replaceChildren(plural(this.rows.length, "account"), page.next ? h("button", { type: "button", onclick: () => this.more(state, page.next) }, "Show more") : "");
  }

  async more(state, cursor) {
    try {
      const page = await get("accounts", { state: state.status || undefined, limit: 500, cursor });
      this.rows = this.rows.concat(page.rows);
      this.show(state, page);
    } catch (e) {
      this.older.replaceChildren(e.message);
    }
  }
}

function until(row, tz) {
  if (row.complete_until === null) return missing("no data yet");
  const old = row.enabled && Date.now() - Date.parse(row.complete_until) > STALE_MS;
  return h("span", { class: old ? "stale" : null }, h("time", { datetime: row.complete_until }, moment(row.complete_until, tz)), h("small", null, `${age(row.complete_until)} ago`));
}

function time(text, tz) {
  if (text === null) return missing("never");
  return h("span", null, h("time", { datetime: text }, moment(text, tz)), h("small", null, `${age(text)} ago`));
}
