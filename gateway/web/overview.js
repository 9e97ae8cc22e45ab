// The first look: what it costs, how much is used, whether the figures are fresh, and who makes them up.

import { get } from "./api.js";
import { attention, loadHealth, stateCounts } from "./health.js";
import { sum } from "./decimal.js";
import { h } from "./dom.js";
import { BILLED, ESTIMATED, Figures, USAGE, query } from "./figures.js";
import { Filters } from "./filters.js";
import { age, brief, change, dateAdd, dateIn, day, exact, moment, monthStart, plural, rounded } from "./format.js";
import { missing } from "./table.js";

const STALE_MS = 26 * 3600e3;

export class Overview {
  constructor(host, app) {
    this.app = app;
    const filter = (change) => {
      const { state } = app;
      const names = Object.keys(change);
      if (names.length === 1 && ["account", "provider", "model", "project", "key"].includes(names[0]))
        app.go({ filters: { ...state.filters, ...change } });
      else if (names.length === 0) this.reload();
      else app.go(change);
    };
    this.filters = new Filters((change) => app.go(change));
    this.attention = h("div", { class: "attention", hidden: true });
    this.cards = {
      billed: new Card("Cost as billed", "billed"), estimated: new Card("Cost as estimated", "estimated"),
      usage: new Card("Tokens", "usage"), health: new Card("Accounts", "health"),
    };
    this.figures = [new Figures(BILLED, filter), new Figures(ESTIMATED, filter), new Figures(USAGE, filter)];
    // What needs a look stands above all, and must not push down what has been seen already: the page
    // waits for it, but not for ever. What comes too late is told by the page's head, and stands here with
    // the next reading.
    host.classList.add("waiting");
    this.reveal = () => host.classList.remove("waiting");
    setTimeout(this.reveal, 4000);
    host.replaceChildren(
      h("h1", { class: "sr" }, "Overview"), this.attention,
      h("section", { class: "cards", "aria-label": "At a glance" }, Object.values(this.cards).map((c) => c.root)),
      this.filters.root, ...this.figures.map((f) => f.root));
  }

  destroy() {
    this.aborter?.abort();
    this.reveal();
    for (const f of this.figures) f.destroy();
  }

  every() {
    return 60e3;
  }

  reload() {
    return this.load(this.app.state);
  }

  async load(state) {
    this.aborter?.abort();
    this.aborter = new AbortController();
    const { signal } = this.aborter;
    this.filters.show(state);
    // What is on the screen comes first; what is below it would only take the database's time from that. A chart
    // asks twice, one after the other, so it begins before the cards.
    const seen = this.figures.filter((f) => f.root.getBoundingClientRect().top < innerHeight);
    const below = this.figures.filter((f) => !seen.includes(f));
    for (const f of below) f.ask(state);
    await Promise.all([
      ...seen.map((f) => f.load(state, signal)), this.health(state, signal), this.glance(state, signal)]);
    await Promise.all(below.map((f) => f.load(state, signal)));
  }

  async glance(state, signal) {
    await Promise.all([
      this.costCard("billed", BILLED, state, signal), this.costCard("estimated", ESTIMATED, state, signal),
      this.tokensCard(state, signal)]);
  }

  // One answer by day; what the card says of today and the months comes from it.
  async costCard(name, kind, state, signal) {
    const today = dateIn("UTC");
    await this.card(name, async () => cost(await this.sums(kind, state, signal, monthStart(today, -1), today, "UTC", "day"), kind, today));
  }

  // Three sums: days of a zone are cheaper to add up than to tell apart.
  async tokensCard(state, signal) {
    const { tz } = state;
    const today = dateIn(tz);
    await this.card("usage", async () => tokens(...await Promise.all([
      this.sums(USAGE, state, signal, monthStart(today), today, tz),
      this.sums(USAGE, state, signal, monthStart(today, -1), lastMonthSameDay(today), tz),
      this.sums(USAGE, state, signal, today, today, tz)]), today, tz));
  }

  sums(kind, state, signal, first, last, tz, by = "") {
    const { parameters } = query(kind, { ...state, range: "month" });
    return get(kind.path, { ...parameters, group_by: by, from: first, to: dateAdd(last, 1), tz, limit: 100000 }, signal);
  }

  async card(name, content) {
    try {
      this.cards[name].show(await content());
    } catch (e) {
      if (e.name !== "AbortError") this.cards[name].fail(e);
    }
  }

  async health(state, signal) {
    const card = this.cards.health;
    try {
      const health = await loadHealth(signal);
      this.app.told(health);
      if (this.told || document.getElementById("main").classList.contains("waiting")) {
        this.attention.replaceChildren(...attention(health, state, this.app));
        this.attention.hidden = this.attention.children.length === 0;
      }
      this.told = true;
      const { oldest, enabled, well } = health;
      card.show([
        h("p", { class: "big" }, exact(String(well)), h("span", { class: "unit" }, ` of ${exact(String(enabled))} complete and fresh`)),
        h("p", { class: "delta" }, oldest ? ["furthest behind: ", h("b", null, h("bdi", null, oldest.account)), `, ${age(oldest.complete_until)}`] : "no account has been read to the end yet"),
        stateCounts(health, this.app)]);
    } catch (e) {
      if (e.name !== "AbortError") card.fail(e);
    } finally {
      this.reveal();
    }
  }
}

class Card {
  constructor(title, id) {
    this.body = h("div", { class: "card-body", "aria-live": "off" }, h("p", { class: "big wait", "aria-hidden": "true" }, " "), h("p", { class: "delta wait" }, "Loading"));
    this.root = h("article", { class: `card ${id}`, "aria-labelledby": `card-${id}` }, h("h2", { id: `card-${id}` }, title), this.body);
  }

  show(children) {
    this.body.replaceChildren(...children);
  }

  fail(error) {
    this.body.replaceChildren(h("p", { class: "notice bad", role: "alert" }, error.message));
  }
}

function monthName(date, withYear = false) {
  return new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", month: "long", year: withYear ? "numeric" : undefined }).format(new Date(date + "T00:00:00Z"));
}

// Last month's day to compare with: on 31 March that is the last of February.
function lastMonthSameDay(today) {
  const start = monthStart(today, -1);
  const same = start.slice(0, 8) + today.slice(8);
  const end = dateAdd(monthStart(today), -1);
  return same > end ? end : same;
}

function cost(answer, kind, today) {
  const month = monthStart(today), last = monthStart(today, -1), same = lastMonthSameDay(today);
  const units = [...new Set(answer.rows.map((r) => r.currency).filter((u) => u !== null))];
  const of = (unit, from, to) => sum(answer.rows.filter((r) => r.currency === unit && r.day >= from && r.day <= to).map((r) => r[kind.key]));
  const children = [];
  const words = kind.id === "billed" ? "no data yet" : "no estimate";
  const figure = (found, unit, from, to) => {
    const value = found ?? (kind.id === "billed" && covered(answer, from, to, "UTC") ? "0" : null);
    return value === null ? missing(words) : h("data", { value, title: `${exact(value)} ${unit}` }, rounded(value), h("span", { class: "unit" }, ` ${unit}`));
  };
  if (units.length === 0) {
    return [h("p", { class: "big" }, missing("no data yet")), h("p", { class: "delta" }, kind.id === "billed" ? "no cost has been reported since " + day(last) : "no model has a list price: usagectl prices import FILE")];
  }
  for (const unit of units) {
    const now = of(unit, month, today), before = of(unit, last, same);
    children.push(
      h("p", { class: units.length > 1 ? "big several" : "big" }, figure(now, unit, month, today)),
      h("p", { class: "delta" }, ...versus(answer.coverage, "UTC", today, same, now, before)),
      h("dl", { class: "pairs" },
        pair("Today, UTC", figure(of(unit, today, today), unit, today, today)),
        pair(`1–${Number(same.slice(8))} ${monthName(last)}`, figure(before, unit, last, same)),
        pair(`${monthName(last)}, all of it`, figure(of(unit, last, dateAdd(month, -1)), unit, last, dateAdd(month, -1))),
        units.length === 1 && pair("Complete until", completeUntil(answer, "UTC"))));
  }
  return children;
}

// Of the month to date, of the last month until the same day, and of today.
function tokens(month, last, day, today, tz) {
  const of = (answer, key) => sum(answer.rows.map((r) => r[key]));
  const both = (answer) => sum([of(answer, "input_tokens"), of(answer, "output_tokens")]);
  const figure = (found, from) => {
    const value = found ?? (covered(month, from, today, tz) ? "0" : null);
    return value === null ? missing("no data yet") : h("data", { value, title: exact(value) }, brief(value));
  };
  const now = both(month);
  return [
    h("p", { class: "big" }, figure(now, monthStart(today))),
    h("p", { class: "delta" }, ...versus(last.coverage, tz, today, lastMonthSameDay(today), now, both(last))),
    h("dl", { class: "pairs" },
      pair("Today, input", figure(of(day, "input_tokens"), today)),
      pair("Today, output", figure(of(day, "output_tokens"), today)),
      pair("Today, requests", figure(of(day, "num_requests"), today)),
      pair("Complete until", completeUntil(month, tz)))];
}

// "November to date · +12.2 % vs 1–25 Oct". `cover` is of figures from the last month's first day on. What has
// been read from a later day on only is missing in the comparison, and named beside it; where that is everything,
// nothing is compared.
function versus(cover, tz, today, same, now, before) {
  const from = cover.complete_from === null ? null : dateIn(tz, new Date(cover.complete_from));
  if (from !== null && cover.feeds_partial === cover.feeds)
    return from > monthStart(today) ? [`read since ${day(from)}`] : [`${monthName(today)} to date · ${monthName(same)} is not whole`];
  const moved = now === null || before === null || from === null ? null : change(now, before);
  if (moved === null) return [`${monthName(today)} to date`];
  const first = cover.first_partial;
  return [`${monthName(today)} to date`, " · ", h("b", null, moved), ` vs 1–${Number(same.slice(8))} ${monthName(same).slice(0, 3)}`,
    first && h("span", { class: "stale", title: "Read from a later day on: earlier figures are missing in the comparison." },
      " · not whole: ", h("bdi", null, first.account), ` ${first.feed}`, cover.feeds_partial > 1 && ` and ${plural(cover.feeds_partial - 1, "more feed")}`)];
}

// Whether all days of `from` to `to` have been read, the last at least in part: then what has no row was zero.
function covered(answer, from, to, tz) {
  const { complete_from: first, complete_until: until } = answer.coverage;
  return first !== null && until !== null && dateIn(tz, new Date(first)) <= from && dateIn(tz, new Date(until)) >= to;
}

// Until when the figures are whole, over all accounts; old ones are marked.
function completeUntil(answer, tz) {
  const until = answer.coverage.complete_until;
  if (until === null) return missing("not read yet");
  const old = Date.now() - Date.parse(until) > STALE_MS;
  return h("time", { datetime: until, class: old ? "stale" : null, title: `${moment(until, tz)}, ${age(until)} ago` }, moment(until, tz).replace(/ \d{4},/, ",") + (tz === "UTC" ? " UTC" : ""));
}

function pair(name, value) {
  return h("div", null, h("dt", null, name), h("dd", null, value));
}
