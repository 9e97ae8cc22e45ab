// What is looked at, kept in the address, so that a link shows the other person the same.

import { dateAdd, dateIn, monthStart } from "./format.js";

export const VIEWS = ["overview", "accounts", "pipeline", "history"];
export const DIMENSIONS = [
  ["account", "Account"], ["provider", "Provider"], ["model", "Model"], ["project", "Project"], ["key", "API key"],
];
export const RANGES = [
  ["today", "Today"], ["7d", "Last 7 days"], ["30d", "Last 30 days"], ["month", "Month to date"],
  ["last-month", "Last month"], ["90d", "Last 90 days"], ["year", "Last 12 months"], ["custom", "From … to …"],
];
const DEFAULTS = { view: "overview", range: "month", by: "account" };
const DATE = /^\d{4}-\d{2}-\d{2}$/;

export function browserZone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

export function validZone(zone) {
  try {
    new Intl.DateTimeFormat("en", { timeZone: zone });
    return true;
  } catch {
    return false;
  }
}

// Whatever an address says, the answer is usable: what is unknown falls back to the default.
export function read(search) {
  const q = new URLSearchParams(search);
  const pick = (name, allowed) => (allowed.includes(q.get(name)) ? q.get(name) : DEFAULTS[name]);
  const state = {
    view: pick("view", VIEWS),
    range: pick("range", RANGES.map(([r]) => r)),
    by: pick("by", DIMENSIONS.map(([d]) => d)),
    tz: validZone(q.get("tz") ?? "") ? q.get("tz") : browserZone(),
    filters: {},
    status: q.get("status") ?? "",
    tab: q.get("tab") ?? "",
  };
  for (const [name] of DIMENSIONS) if (q.has(name)) state.filters[name] = q.get(name);
  if (state.range === "custom") {
    const today = dateIn(state.tz);
    state.from = DATE.test(q.get("from") ?? "") ? q.get("from") : dateAdd(today, -6);
    state.to = DATE.test(q.get("to") ?? "") ? q.get("to") : today;
    if (state.to < state.from) [state.from, state.to] = [state.to, state.from];
  }
  return state;
}

export function write(state) {
  const q = new URLSearchParams();
  q.set("view", state.view);
  if (state.view === "overview") {
    q.set("range", state.range);
    if (state.range === "custom") {
      q.set("from", state.from);
      q.set("to", state.to);
    }
    q.set("by", state.by);
    for (const [name] of DIMENSIONS) if (state.filters[name] !== undefined) q.set(name, state.filters[name]);
  }
  if (state.view === "accounts" && state.status) q.set("status", state.status);
  if (state.view === "history" && state.tab) q.set("tab", state.tab);
  q.set("tz", state.tz);
  return "/?" + q.toString();
}

// The first day of the range and the day after its last, on the clock of `zone`.
export function bounds(state, zone = state.tz) {
  const today = dateIn(zone);
  const tomorrow = dateAdd(today, 1);
  switch (state.range) {
    case "today": return [today, tomorrow];
    case "7d": return [dateAdd(today, -6), tomorrow];
    case "30d": return [dateAdd(today, -29), tomorrow];
    case "90d": return [dateAdd(today, -89), tomorrow];
    case "year": return [dateAdd(monthStart(today, -11), 0), tomorrow];
    case "last-month": return [monthStart(today, -1), monthStart(today)];
    case "custom": return [state.from, dateAdd(state.to, 1)];
    default: return [monthStart(today), tomorrow];
  }
}

export function daysIn([from, to]) {
  return Math.round((Date.parse(to) - Date.parse(from)) / 86400e3);
}
