// How the accounts are: the states told apart in words and shape, not in colour alone.

import { get } from "./api.js";
import { h, svg } from "./dom.js";
import { age, exact, moment, plural } from "./format.js";

// Worst first. `tone` is a colour; `sign` a shape, for those who do not see the colour.
export const STATES = {
  failing: { name: "failing", tone: "bad", sign: "cross", words: "every reading ends in an error" },
  partly_failing: { name: "partly failing", tone: "bad", sign: "cross", words: "some feeds end in an error" },
  late: { name: "late", tone: "warn", sign: "clock", words: "due for more than half an hour" },
  no_data_yet: { name: "no data yet", tone: "idle", sign: "ring", words: "a feed was never read" },
  catching_up: { name: "catching up", tone: "idle", sign: "ring", words: "older windows are still being read" },
  zero: { name: "zero", tone: "good", sign: "zero", words: "complete, and nothing was used lately" },
  reported: { name: "reported", tone: "good", sign: "tick", words: "complete" },
  disabled: { name: "disabled", tone: "off", sign: "dash", words: "switched off by its owner" },
};

const SIGNS = {
  cross: ["M4 4l8 8M12 4l-8 8"], clock: ["M8 4v4l3 2", "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13"], ring: ["M8 3a5 5 0 1 0 0 10a5 5 0 1 0 0-10"],
  zero: ["M8 3.5c-4 0-4 9 0 9s4-9 0-9"], tick: ["M3 8.5l3.5 3.5L13 5"], dash: ["M3 8h10"],
};

export function sign(name) {
  return svg("svg", { class: "sign", viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, SIGNS[name].map((d) => svg("path", { d })));
}

export function badge(state) {
  const s = STATES[state] ?? { name: state, tone: "idle", sign: "ring", words: "" };
  return h("span", { class: `badge ${s.tone}`, title: s.words }, sign(s.sign), s.name);
}

const BAD = ["failing", "partly_failing", "late"];
const SHOWN = 3;

// {counts: {state: n}, all, enabled, well, oldest: the account that is furthest behind, nBad, bad: the first rows, worst first}
export async function loadHealth(signal) {
  const page = await get("accounts", { state: BAD, limit: 200 }, signal);
  const bad = page.rows.sort((a, b) => BAD.indexOf(a.state) - BAD.indexOf(b.state)); // by name within a state
  const counts = page.states;
  const of = (...states) => states.reduce((n, s) => n + (counts[s] ?? 0), 0);
  const all = of(...Object.keys(counts));
  return { counts, all, enabled: all - of("disabled"), well: of("reported", "zero"), oldest: page.furthest_behind, nBad: of(...BAD), bad: bad.slice(0, SHOWN) };
}

export function stateCounts(health, app) {
  return h("ul", { class: "counts" }, Object.entries(STATES).filter(([state]) => health.counts[state]).map(([state, s]) => h("li", null,
    app.link({ view: "accounts", status: state }, h("span", { class: `badge ${s.tone}` }, sign(s.sign), s.name), h("b", null, exact(String(health.counts[state])))))));
}

// What a person on call has to know first: who fails, why, and what to do.
export function attention(health, state, app) {
  const shown = health.bad;
  if (shown.length === 0) return [];
  return [h("section", { class: "panel alarm", "aria-labelledby": "attention-title" },
    h("h2", { id: "attention-title" }, `${plural(health.nBad, "account")} ${health.nBad === 1 ? "needs" : "need"} a look`),
    h("ul", null, shown.map((row) => h("li", null,
      h("p", { class: "who-line" }, h("strong", null, h("bdi", null, row.account)), badge(row.state), h("small", null, row.complete_until
        ? `complete until ${moment(row.complete_until, state.tz)}, ${age(row.complete_until)} ago` : "never read to the end")),
      h("p", { class: "advice" }, row.trouble && h("code", null, row.trouble), row.advice ?? "Its reading is overdue. Is a fetcher running? See the pipeline.")))),
    health.nBad > shown.length && h("p", { class: "all" }, app.link({ view: "accounts", status: "" }, `Look at all ${health.nBad}`)))];
}
