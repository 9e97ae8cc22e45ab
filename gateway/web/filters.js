// The controls over the figures. Each writes the state; the address and the figures follow.

import { h } from "./dom.js";
import { dateIn } from "./format.js";
import { DIMENSIONS, RANGES } from "./state.js";
import { get } from "./api.js";

const NAMES = Object.fromEntries(DIMENSIONS);

// How a value of a dimension reads. Null is the provider's "none", and a filter writes it as "".
export function valueName(dimension, value) {
  if (value !== null && value !== undefined && value !== "") return value;
  return { project: "no project", key: "no key", model: "no model", line_item: "no line item" }[dimension] ?? "none";
}

export class Filters {
  constructor(change) {
    this.change = change;
    this.range = h("select", { id: "range", onchange: () => this.ranged() }, RANGES.map(([value, label]) => h("option", { value }, label)));
    this.from = h("input", { type: "date", id: "from", required: true, onchange: () => this.dated() });
    this.to = h("input", { type: "date", id: "to", required: true, onchange: () => this.dated() });
    this.dates = h("div", { class: "dates" }, h("label", { for: "from" }, "from"), this.from, h("label", { for: "to" }, "to"), this.to);
    this.by = h("fieldset", { class: "segments" }, h("legend", null, "Break down by"),
      h("div", null, DIMENSIONS.map(([value, label]) => h("label", null,
        h("input", { type: "radio", name: "by", value, onchange: () => change({ by: value }) }), h("span", null, label)))));
    this.chips = h("ul", { class: "chips", "aria-label": "Filters in force" });
    this.dimension = h("select", { id: "dimension", onchange: () => this.suggest() }, DIMENSIONS.map(([value, label]) => h("option", { value }, label)));
    this.value = h("input", { id: "value", list: "values", autocomplete: "off", spellcheck: "false", placeholder: "any", onfocus: () => this.suggest() });
    this.values = h("datalist", { id: "values" });
    this.add = h("form", { class: "add", onsubmit: (e) => this.added(e) },
      h("label", { for: "dimension" }, "Only"), this.dimension, h("label", { class: "sr", for: "value" }, "Value"), this.value, this.values,
      h("button", { type: "submit" }, "Filter"));
    this.root = h("section", { class: "filters", "aria-label": "Range and filters" },
      h("div", { class: "field" }, h("label", { for: "range" }, "Range"), this.range), this.dates, this.by, this.add, this.chips);
  }

  show(state) {
    this.state = state;
    this.range.value = state.range;
    this.dates.hidden = state.range !== "custom";
    if (state.range === "custom") {
      this.from.value = state.from;
      this.to.value = state.to;
    }
    for (const input of this.by.querySelectorAll("input")) input.checked = input.value === state.by;
    this.chips.replaceChildren(...Object.entries(state.filters).map(([name, value]) => h("li", null,
      h("button", { type: "button", "aria-label": `Remove the filter ${NAMES[name]} ${valueName(name, value)}`, onclick: () => this.removed(name) },
        h("span", { class: "chip-name" }, NAMES[name]), " ", h("bdi", null, valueName(name, value)), h("span", { class: "x", "aria-hidden": "true" }, "×")))));
    this.chips.hidden = this.chips.children.length === 0;
  }

  ranged() {
    const range = this.range.value;
    if (range !== "custom") this.change({ range });
    else {
      const today = dateIn(this.state.tz);
      this.change({ range, from: today.slice(0, 8) + "01", to: today });
      this.from.focus();
    }
  }

  dated() {
    if (this.from.validity.valid && this.to.validity.valid) {
      const [from, to] = [this.from.value, this.to.value].sort();
      this.change({ from, to });
    }
  }

  // Names to choose from: those that had the most requests in the range, asked for once a dimension.
  async suggest() {
    const dimension = this.dimension.value;
    if (this.values.dataset.of === dimension) return;
    this.values.dataset.of = dimension;
    this.values.replaceChildren();
    try {
      const { rows } = await get("usage", { group_by: dimension, from: "90d", sort: "-num_requests", limit: 200 });
      if (this.values.dataset.of !== dimension) return;
      const names = [...new Set(rows.map((r) => r[dimension]).filter((v) => v !== null))];
      this.values.replaceChildren(...names.map((value) => h("option", { value })));
    } catch {
      this.values.dataset.of = ""; // without suggestions one can still type
    }
  }

  added(event) {
    event.preventDefault();
    const value = this.value.value.trim();
    if (!value) {
      this.value.focus();
      return;
    }
    this.value.value = "";
    this.change({ filters: { ...this.state.filters, [this.dimension.value]: value } });
  }

  removed(name) {
    const filters = { ...this.state.filters };
    delete filters[name];
    this.change({ filters });
    this.range.focus();
  }
}
