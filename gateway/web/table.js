// Tables: a caption, headings with a scope, figures set so that their points stand one below the other.

import { h } from "./dom.js";
import { digits, exact } from "./format.js";

// columns: [{key, label, kind, cell(row)}]; `kind` is "count" or "money" for digits, another
// word for what is to stand at the right; what `cell` gives (text, or an element) stands in place of row[key].
//
// `cards`: on a narrow screen each row stands as a card; the roles keep it a table for those who listen.
export function table({ caption, columns, rows, empty, cards = false }) {
  const role = (name) => (cards ? name : null);
  const places = Object.fromEntries(columns.filter((c) => c.kind === "money").map((c) => [
    c.key, Math.max(0, ...rows.map((r) => (r[c.key] === null || r[c.key] === undefined ? 0 : digits(String(r[c.key])).part.length)))]));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { class: cards ? "cards-narrow" : null, role: role("table") },
      h("caption", { class: "sr" }, caption),
      h("thead", { role: role("rowgroup") }, h("tr", { role: role("row") }, columns.map((c) => h("th", { scope: "col", role: role("columnheader"), class: c.kind ? "num" : c.className }, c.label)))),
      h("tbody", { role: role("rowgroup") },
        rows.map((row) => h("tr", { role: role("row") }, columns.map((c, i) => cell(c, row, i === 0, places[c.key], cards)))),
        rows.length === 0 && h("tr", { role: role("row") }, h("td", { colspan: columns.length, class: "none", role: role("cell") }, empty ?? "Nothing here.")))));
}

function cell(column, row, first, places, cards) {
  const tag = first ? "th" : "td";
  const attributes = { scope: first ? "row" : null, class: column.className ?? null,
    role: cards ? (first ? "rowheader" : "cell") : null, "data-label": cards ? column.label : null };
  if (column.cell) {
    if (column.kind) attributes.class = "num";
    return h(tag, attributes, column.cell(row));
  }
  const value = row[column.key];
  if (value === null || value === undefined) return h(tag, { ...attributes, class: column.kind ? "num" : null }, missing());
  if (column.kind === "count") return h(tag, { ...attributes, class: "num" }, exact(String(value)));
  if (column.kind === "money") return h(tag, { ...attributes, class: "num" }, money(String(value), places));
  return h(tag, attributes, String(value));
}

// What nobody reported, told from a zero.
export function missing(words = "not reported") {
  return h("span", { class: "missing", title: words }, h("span", { "aria-hidden": "true" }, "–"), h("span", { class: "sr" }, words));
}

// All digits; those after the cents are there and stand back.
export function money(text, places = 0) {
  const { sign, whole, part } = digits(text);
  const cents = part.slice(0, 2).padEnd(places ? 2 : part.length, "0");
  const rest = part.slice(2);
  const tail = h("span", { class: "fine" }, rest);
  tail.style.minWidth = `${Math.max(0, places - 2)}ch`;
  return h("span", { class: "money" }, sign + whole + (cents ? "." + cents : ""), tail);
}
