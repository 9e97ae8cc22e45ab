// One kind of figure (cost as billed, cost as estimated, usage): a chart over time, who makes it up, and
// every row behind it.

import { ApiError, get, url } from "./api.js";
import { Chart, COLOURS } from "./chart.js";
import { sum, minus } from "./decimal.js";
import { h } from "./dom.js";
import { valueName } from "./filters.js";
import { brief, day, exact, plural, rounded, share, dateAdd, dateIn } from "./format.js";
import { bounds, daysIn, DIMENSIONS } from "./state.js";
import { table } from "./table.js";

const NAMES = { ...Object.fromEntries(DIMENSIONS.map(([d, label]) => [d, label === "API key" ? label : label.toLowerCase()])), line_item: "line item" };
const RANKED = 100; // rows of the list; the CSV has all
const PAGE = 200;   // rows of the table behind the chart, at a time
const TOP = COLOURS - 1;

// What differs between the three. `key` is the measure; `unit` the column that keeps sums apart.
export const BILLED = {
  id: "billed", title: "Cost as billed", path: "cost", fixed: { basis: "billed" }, key: "cost_amount", unit: "currency",
  sort: "-cost", days: "days of UTC, as providers bill", utc: true, dimensions: null, instead: { model: "line_item" },
  text: (value, unit) => `${exact(String(value))} ${unit}`, brief: (value, unit) => `${rounded(String(value))} ${unit}`,
  columns: [{ key: "cost_amount", label: "Cost", kind: "money" }, { key: "currency", label: "Currency" }],
  nothing: "No cost was reported for this range.",
};
export const ESTIMATED = {
  id: "estimated", title: "Cost as estimated", path: "cost", fixed: { basis: "estimated" }, key: "estimated_cost", unit: "currency",
  sort: "-cost", days: "days of UTC", utc: true, dimensions: ["account", "provider", "model"],
  text: BILLED.text, brief: BILLED.brief,
  columns: [{ key: "estimated_cost", label: "Estimate", kind: "money" }, { key: "currency", label: "Currency" },
    { key: "status", label: "Prices" }, { key: "unpriced_tokens", label: "Unpriced tokens", kind: "count" }],
  nothing: "There is nothing to estimate in this range.",
};
export const USAGE = {
  id: "usage", title: "Tokens and requests", path: "usage", fixed: {}, key: "input_tokens", unit: "quantity_unit",
  sort: "-input_tokens", days: "days", utc: false, dimensions: null,
  text: (value, unit) => exact(String(value)) + (unit ? ` ${unit}` : ""), brief: (value, unit) => brief(value) + (unit ? ` ${unit}` : ""),
  columns: [{ key: "input_tokens", label: "Input tokens", kind: "count" }, { key: "cached_input_tokens", label: "of them cached", kind: "count" },
    { key: "output_tokens", label: "Output tokens", kind: "count" }, { key: "num_requests", label: "Requests", kind: "count" },
    { key: "quantity", label: "Quantity", kind: "count" }, { key: "quantity_unit", label: "Unit" }],
  nothing: "No usage was reported for this range.",
};
const COVERAGE = { reported: "complete", partial: "not complete yet", zero: "zero", no_data_yet: "no data yet" }; // as the API says it
const MEASURES = [["input_tokens", "Input tokens"], ["output_tokens", "Output tokens"], ["num_requests", "Requests"]];

// The figures of one section as the address asks for them.
export function query(kind, state) {
  const known = kind.dimensions ?? DIMENSIONS.map(([d]) => d);
  const by = kind.instead?.[state.by] ?? (known.includes(state.by) ? state.by : "model");
  const filters = Object.fromEntries(Object.entries(state.filters).filter(([name]) => known.includes(name)));
  const ignored = Object.keys(state.filters).filter((name) => !known.includes(name));
  const tz = kind.utc ? "UTC" : state.tz;
  const [from, to] = bounds(state, tz);
  const n = daysIn([from, to]);
  const period = n > 100 ? "month" : !kind.utc && n <= 2 ? "hour" : "day";
  return { by, period, ignored, from, to, parameters: { ...kind.fixed, from, to, tz, ...filters } };
}

// Hours, days or months from `from` to `to`, named as the server names them; none that is still to come.
function periods(period, { from, to }, tz, range) {
  const names = [];
  if (period === "hour") {
    const end = Math.min(Date.parse(range.to ?? ""), Date.now());
    const clock = new Intl.DateTimeFormat("en-GB", { timeZone: tz, hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    // By the half hour, for zones that are half an hour off; an hour that the clock skips does not come up.
    for (let t = Date.parse(range.from); t < end; t += 1800e3) {
      const name = `${dateIn(tz, new Date(t))} ${clock.format(t).slice(0, 2)}:00`;
      if (names.at(-1) !== name) names.push(name);
    }
    return names;
  }
  const today = dateIn(tz);
  for (let d = from; d < to && d <= today; d = dateAdd(d, 1)) {
    const name = period === "day" ? d : d.slice(0, 7);
    if (names.at(-1) !== name) names.push(name);
  }
  return names;
}

function local(text, tz) {
  if (!text) return null;
  const time = new Intl.DateTimeFormat("en-GB", { timeZone: tz, hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(new Date(text));
  return `${dateIn(tz, new Date(text))} ${time}`;
}

function endOf(name, period) {
  if (period === "hour") return `${name.slice(0, 13)}:59`;
  if (period === "day") return dateAdd(name, 1) + " 00:00";
  return dateAdd(`${name}-01`, 31).slice(0, 7) + "-01 00:00";
}

// "zero" and "no data yet" are told apart by how far the accounts are complete, never by a missing row.
export function coverage(names, period, cover, tz) {
  const from = local(cover.complete_from, tz), until = local(cover.complete_until, tz);
  return names.map((name) => {
    const start = name.length === 10 ? name + " 00:00" : name.length === 7 ? name + "-01 00:00" : name;
    return from !== null && until !== null && start >= from && endOf(name, period) <= until;
  });
}

function short(name, period) {
  if (period === "hour") return name.slice(11);
  if (period === "day") return day(name).replace(/^\w+, /, "");
  return new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", month: "short", year: "2-digit" }).format(new Date(name + "-01T00:00:00Z"));
}
function long(name, period) {
  if (period === "hour") return `${day(name.slice(0, 10))}, ${name.slice(11)}`;
  if (period === "day") return day(name, true);
  return new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", month: "long", year: "numeric" }).format(new Date(name + "-01T00:00:00Z"));
}

export class Figures {
  constructor(kind, filter) {
    this.kind = kind;
    this.filter = filter;
    this.measure = kind.key;
    this.unit = undefined; // which currency is drawn, when there are several
    this.seen = "";
    this.sub = h("p", { class: "sub" });
    this.links = h("p", { class: "links" });
    this.choice = h("div", { class: "choice" });
    this.plot = h("div", { class: "chart", role: "img", "aria-label": kind.title });
    this.state = h("div", { class: "state", role: "status" });
    this.rank = h("div", { class: "rank" });
    this.note = h("p", { class: "note" });
    this.rows = h("div", { class: "rows" });
    this.summary = h("summary", null, "Every figure of this chart");
    this.details = h("details", { ontoggle: () => this.details.open && this.more(true) }, this.summary, this.rows);
    this.chart = new Chart(this.plot);
    this.root = h("section", { class: "panel figures", "aria-labelledby": `${kind.id}-title`, id: kind.id },
      h("header", null, h("div", null, h("h2", { id: `${kind.id}-title` }, kind.title), this.sub, this.note), this.choice, this.links),
      h("div", { class: "split" }, h("div", { class: "plot" }, this.plot, this.state), this.rank),
      this.details);
    this.busy("Loading");
  }

  destroy() {
    this.chart.destroy();
  }

  busy(words) {
    this.state.textContent = words;
    this.root.setAttribute("aria-busy", "true");
  }

  // What is to be shown from now on; what is shown until it has come is marked as on its way.
  ask(state) {
    const kind = { ...this.kind, key: this.measure, sort: this.kind.path === "usage" ? "-" + this.measure : this.kind.sort };
    const q = query(kind, state);
    const key = JSON.stringify([q, this.measure]);
    if (key !== this.asked) this.busy("Loading");
    this.asked = key;
    this.state0 = state;
    return { kind, q, key };
  }

  async load(state, signal) {
    const { kind, q, key } = this.ask(state);
    try {
      const ranking = await get(kind.path, { ...q.parameters, group_by: q.by, sort: kind.sort, limit: RANKED }, signal);
      const units = [...new Set(ranking.rows.filter((r) => r[kind.key] !== null).map((r) => r[kind.unit]))];
      const unit = kind.path === "usage" ? null : units.includes(this.unit) ? this.unit : units[0] ?? null;
      const ranked = ranking.rows.filter((r) => r[kind.unit] === unit && r[kind.key] !== null);
      const top = ranked.slice(0, ranked.length > COLOURS || ranking.more ? TOP : COLOURS);
      const whole = top.length === ranked.length && !ranking.more;
      // A value is asked for in the place of a filter on the same dimension, which let it through.
      const [parts, totals] = await Promise.all([
        get(kind.path, { ...q.parameters, group_by: `${q.period},${q.by}`, limit: 100000, ...(whole ? {} : { [q.by]: top.map((r) => r[q.by] ?? "") }) }, signal),
        whole ? null : get(kind.path, { ...q.parameters, group_by: q.period, limit: 100000 }, signal)]);
      if (key !== this.asked) return;
      const now = JSON.stringify([key, unit, ranking, parts, totals]);
      if (now !== this.seen) {
        this.seen = now;
        this.show(kind, q, { ranking, ranked, units, unit, top, parts, totals });
      }
      this.root.removeAttribute("aria-busy");
    } catch (e) {
      if (e.name === "AbortError") return;
      this.seen = "";
      this.root.removeAttribute("aria-busy");
      this.state.replaceChildren(h("strong", null, "These figures could not be read."), " ", e instanceof ApiError ? e.message : String(e));
      this.plot.classList.add("off");
      if (!(e instanceof ApiError)) throw e;
    }
  }

  show(kind, q, answer) {
    const { ranking, units, unit, ranked } = answer;
    const tz = q.parameters.tz;
    const by = NAMES[q.by];
    const each = { hour: "hour", day: "day", month: "month" }[q.period];
    this.sub.textContent = `By ${by} and ${each} · ${kind.utc ? kind.days : `clock of ${tz}`}` + (unit ? ` · ${unit}` : "") +
      (ranking.coverage.accounts_without_data ? ` · ${ranking.coverage.accounts_without_data} of ${plural(ranking.coverage.accounts, "account")} not read to the end yet` : "");
    this.links.replaceChildren(
      h("a", { href: url(kind.path, { ...q.parameters, group_by: q.by, sort: kind.sort, format: "csv" }), download: `${kind.id}-by-${q.by}.csv` }, `CSV by ${by}`),
      h("a", { href: url(kind.path, { ...q.parameters, group_by: `${q.period},${q.by}`, fill: 1, format: "csv" }), download: `${kind.id}-by-${q.period}-and-${q.by}.csv` }, `CSV by ${each} and ${by}`));
    this.choices(kind, units, unit);
    this.notes(kind, q, ranking);
    const data = this.series(kind, q, answer);
    const nothing = ranked.length === 0;
    this.plot.classList.toggle("off", nothing);
    const cover = ranking.coverage;
    this.state.textContent = !nothing ? "" : cover.accounts === 0 ? "No account matches." : cover.complete_until === null ? "No data yet: no account has been read to the end." : kind.nothing;
    if (nothing) this.chart.plot?.destroy(), (this.chart.plot = null), (this.chart.data = null);
    else this.chart.draw(data);
    this.plot.setAttribute("aria-label", describe(kind, q, data, answer));
    this.rank.replaceChildren(this.ranking(kind, q, answer));
    this.summary.textContent = `Every figure, by ${each} and ${by}`;
    this.behind = { path: kind.path, columns: this.columns(kind, q), parameters: { ...q.parameters, group_by: `${q.period},${q.by}`, fill: 1, limit: PAGE },
      caption: `${kind.title} by ${each} and ${by}, ${q.from} to ${dateAdd(q.to, -1)}, clock of ${tz}` };
    if (this.details.open) this.more(true);
    else this.rows.replaceChildren();
  }

  choices(kind, units, unit) {
    const options = kind.path === "usage" ? MEASURES : units.length > 1 ? units.map((u) => [u, u ?? "without a price"]) : [];
    const chosen = kind.path === "usage" ? this.measure : unit;
    const shown = JSON.stringify([options, chosen]);
    if (shown === this.offered) return;
    this.offered = shown;
    this.choice.replaceChildren(options.length === 0 ? "" : h("label", null, h("span", { class: "sr" }, `What the chart “${kind.title}” shows`),
      h("select", { onchange: (e) => {
        if (kind.path === "usage") this.measure = e.target.value;
        else this.unit = e.target.value;
        this.filter({});
      } }, options.map(([value, label]) => h("option", { value, selected: value === chosen }, label)))));
  }

  notes(kind, q, ranking) {
    const notes = [];
    if (kind.id === "estimated" && this.state0.by !== q.by) notes.push(`An estimate is known by account, provider and model; this is by ${NAMES[q.by]}.`);
    if (kind.id === "billed" && q.by === "line_item") notes.push("Bills name line items where usage names models.");
    if (kind.id === "billed" && q.parameters.model !== undefined) notes.push("Not every provider’s bill names models: what has none is left out.");
    if (q.ignored.length) notes.push(`The filter on ${q.ignored.map((d) => NAMES[d]).join(" and ")} does not apply to an estimate.`);
    if (kind.id === "estimated") {
      const without = ranking.rows.filter((r) => r.status !== "priced");
      const tokens = sum(without.map((r) => r.unpriced_tokens));
      if (tokens !== null && tokens !== "0") notes.push(`${exact(tokens)} tokens have no list price and are not in the estimate: usagectl prices import FILE.`);
    }
    if (ranking.left_out?.length) notes.push(`Left out, so that nothing counts twice: ${ranking.left_out.join(", ")}.`);
    this.note.textContent = notes.join(" ");
  }

  // The columns of the chart: the largest ones each, and all others as the exact rest of the totals.
  series(kind, q, { top, parts, totals, unit, ranking }) {
    const tz = q.parameters.tz;
    const names = periods(q.period, q, tz, parts.range);
    const place = new Map(names.map((name, i) => [name, i]));
    const series = top.map((r, colour) => ({ name: valueName(q.by, r[q.by]), value: r[q.by], colour, exact: names.map(() => null) }));
    const bySeries = new Map(series.map((s) => [s.value, s]));
    for (const r of parts.rows) {
      if (r[kind.unit] !== unit || r[kind.key] === null) continue;
      const s = bySeries.get(r[q.by]), i = place.get(r[q.period]);
      if (s && i !== undefined) s.exact[i] = String(r[kind.key]);
    }
    if (totals) {
      const rest = { name: "all others", colour: TOP, exact: names.map(() => null) };
      for (const r of totals.rows) {
        const i = place.get(r[q.period]);
        if (i === undefined || r[kind.unit] !== unit || r[kind.key] === null) continue;
        const known = sum(series.map((s) => s.exact[i]));
        rest.exact[i] = known === null ? String(r[kind.key]) : minus(String(r[kind.key]), known);
      }
      series.push(rest);
    }
    for (const s of series) {
      s.values = s.exact.map((v) => (v === null ? null : Number(v)));
      s.texts = s.exact.map((v) => (v === null || v === "0" ? v && "0" : kind.brief(v, kind.path === "usage" ? "" : unit)));
    }
    const known = coverage(names, q.period, ranking.coverage, tz);
    const reported = names.map((_, i) => series.some((s) => s.exact[i] !== null));
    return { names, labels: names.map((n) => short(n, q.period)), long: names.map((n) => long(n, q.period)), series, known, reported,
      open: names.map((_, i) => reported[i] && !known[i]) };
  }

  columns(kind, q) {
    return [
      { key: q.period, label: { hour: "Hour", day: "Day", month: "Month" }[q.period], className: "when" },
      { key: q.by, label: NAMES[q.by].replace(/^./, (c) => c.toUpperCase()), className: "name", cell: (r) => h("bdi", null, valueName(q.by, r[q.by])) },
      ...kind.columns,
      { key: "coverage", label: "Known", cell: (r) => COVERAGE[r.coverage] }];
  }

  ranking(kind, q, { ranking, top, unit, ranked }) {
    const colours = new Map(top.map((r, i) => [r, i]));
    const total = ranking.more ? null : sum(ranked.map((r) => (String(r[kind.key]).startsWith("-") ? null : r[kind.key])));
    const columns = [
      { key: q.by, label: NAMES[q.by].replace(/^./, (c) => c.toUpperCase()), className: "name", cell: (r) => h("span", { class: "who" },
        h("span", { class: `swatch ${colours.has(r) ? "c" + colours.get(r) : r[kind.unit] === unit && r[kind.key] !== null ? "c" + TOP : ""}`, "aria-hidden": "true" }),
        this.only(q.by, r[q.by])) },
      ...this.rankedColumns(kind, ranking.rows)];
    if (total !== null && total !== "0" && kind.path === "cost")
      columns.splice(2, 0, { key: "share", label: "Share", kind: "share", cell: (r) => (r[kind.unit] === unit && r[kind.key] !== null ? share(r[kind.key], total) : "") });
    return table({ caption: `${kind.title} by ${NAMES[q.by]}, largest first` + (ranking.more ? `; the first ${RANKED}, the CSV has all` : ""),
      columns, rows: ranking.rows, empty: kind.nothing });
  }

  // A currency that is everyone's stands in the heading; columns in which nobody has a figure stay away.
  rankedColumns(kind, rows) {
    const units = new Set(rows.map((r) => r[kind.unit]));
    const [unit] = units;
    const single = kind.path === "cost" && units.size === 1 && unit !== null;
    return kind.columns
      .filter((c) => !(single && c.key === kind.unit) && c.key !== "cached_input_tokens")
      .filter((c) => !["quantity", "quantity_unit"].includes(c.key) || rows.some((r) => r[c.key] !== null))
      .map((c) => (single && c.kind === "money" ? { ...c, label: `${c.label}, ${unit}` } : c));
  }

  // A name that narrows everything to itself.
  only(dimension, value) {
    const text = valueName(dimension, value);
    if (!DIMENSIONS.some(([d]) => d === dimension)) return h("span", { class: "only" }, h("bdi", null, text));
    return h("button", { type: "button", class: "only" + (value === null ? " none" : ""), title: `Only ${text}`, onclick: () => this.filter({ [dimension]: value ?? "" }) }, h("bdi", null, text));
  }

  // The table behind the chart, page by page: the rows of the CSV, in its order.
  async more(first) {
    const { behind } = this;
    if (!behind) return;
    if (first) this.pages = { rows: [], next: undefined };
    try {
      const page = await get(behind.path, { ...behind.parameters, cursor: this.pages.next });
      if (behind !== this.behind) return;
      this.pages = { rows: this.pages.rows.concat(page.rows), next: page.next };
      const { rows, next } = this.pages;
      this.rows.replaceChildren(
        table({ caption: behind.caption, columns: behind.columns, rows, empty: this.kind.nothing }),
        h("p", { class: "paging" }, `${exact(String(rows.length))} rows`, next ? h("button", { type: "button", onclick: () => this.more(false) }, "Show more") : " · these are all"));
    } catch (e) {
      this.rows.replaceChildren(h("p", { class: "notice bad", role: "alert" }, e.message));
    }
  }
}

// The chart in words.
function describe(kind, q, data, { ranked, ranking, unit }) {
  const measure = kind.path === "usage" ? MEASURES.find(([m]) => m === kind.key)[1] : kind.title;
  if (ranked.length === 0) return `${measure}: nothing to draw.`;
  const largest = ranked.slice(0, 3).map((r) => `${valueName(q.by, r[q.by])} ${kind.brief(r[kind.key], unit ?? "")}`).join(", ");
  const blank = data.names.filter((_, i) => !data.reported[i] && !data.known[i]).length;
  return `Stacked columns: ${measure} by ${q.period} and ${NAMES[q.by]}, ${data.long[0]} to ${data.long.at(-1)}. Largest: ${largest}.` +
    (ranking.more ? "" : ` ${ranked.length} in all.`) + (blank ? ` ${blank} without data yet.` : "") + " The tables that follow have every figure.";
}
