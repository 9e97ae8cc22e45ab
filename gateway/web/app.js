// The page: which view is shown, when it is read again, theme and time zone.

import { Accounts } from "./accounts.js";
import { h } from "./dom.js";
import { plural } from "./format.js";
import { loadHealth } from "./health.js";
import { History } from "./history.js";
import { Overview } from "./overview.js";
import { Pipeline } from "./pipeline.js";
import { browserZone, read, write } from "./state.js";

const CLASSES = { overview: Overview, accounts: Accounts, pipeline: Pipeline, history: History };
const TITLES = { overview: "Overview", accounts: "Accounts", pipeline: "Pipeline", history: "History" };

const app = {
  state: read(location.search),

  // Changes the state, and with it the address. A choice within a view is no step to go back to.
  go(change) {
    const before = app.state;
    app.state = { ...before, ...change };
    const address = write(app.state);
    if (app.state.view !== before.view) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
    show(app.state.view !== before.view);
  },

  // A link that works as one (open in a new tab, copy), and without a new page.
  link(change, ...children) {
    const state = { ...app.state, ...change };
    return h("a", { href: write(state), onclick: (e) => {
      if (e.metaKey || e.ctrlKey || e.shiftKey || e.button !== 0) return;
      e.preventDefault();
      app.go(change);
      if (change.view) document.getElementById("main").focus({ preventScroll: true });
      scrollTo({ top: 0 });
    } }, children);
  },

  // The accounts' health in one line, in every view.
  told(health) {
    const pulse = document.getElementById("pulse");
    const n = health.nBad;
    const words = n > 0 ? `${plural(n, "account")} ${n === 1 ? "needs" : "need"} a look` : health.all > 0 ? "All accounts well" : "No account yet";
    if (pulse.textContent !== words) pulse.textContent = words;
    pulse.className = `pulse ${n > 0 ? "bad" : "good"}`;
  },
};

let view = null, shown = null, timer = 0;

function show(moved) {
  const { state } = app;
  const main = document.getElementById("main");
  if (shown !== state.view) {
    view?.destroy();
    shown = state.view;
    view = new CLASSES[shown](main, app);
  }
  for (const link of document.querySelectorAll(".top [data-view]"))
    if (link.closest("nav")) {
      if (link.dataset.view === shown) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  document.title = `${TITLES[shown]} · Usage Fetcher`;
  document.getElementById("zone").value = state.tz;
  if (moved) scrollTo({ top: 0 });
  refresh();
}

// Reads again while someone looks; a page in the background rests.
async function refresh() {
  clearTimeout(timer);
  const mine = view;
  try {
    await mine.load(app.state);
  } finally {
    if (mine === view) {
      clearTimeout(timer);
      timer = setTimeout(() => (document.hidden ? null : refresh()), mine.every());
    }
  }
}
document.addEventListener("visibilitychange", () => document.hidden || refresh());
addEventListener("popstate", () => {
  app.state = read(location.search);
  show(false);
});

function zones() {
  const select = document.getElementById("zone");
  select.addEventListener("change", () => app.go({ tz: select.value }));
  const here = browserZone();
  const all = Intl.supportedValuesOf?.("timeZone") ?? [];
  const first = [...new Set(["UTC", here, app.state.tz])];
  select.append(...first.map((value) => h("option", { value }, value === "UTC" ? "UTC" : value.replaceAll("_", " "))),
    h("optgroup", { label: "All zones" }, all.filter((z) => !first.includes(z)).map((value) => h("option", { value }, value.replaceAll("_", " ")))));
}

function themes() {
  const select = document.getElementById("theme");
  select.value = document.documentElement.dataset.theme ?? "auto";
  select.addEventListener("change", () => {
    const theme = select.value;
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      if (theme === "auto") localStorage.removeItem("theme");
      else localStorage.setItem("theme", theme);
    } catch {
      // Storage may be forbidden; then the choice lasts as long as the page.
    }
    dispatchEvent(new Event("themechange"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));
}

zones();
themes();
for (const link of document.querySelectorAll(".top [data-view]"))
  link.addEventListener("click", (e) => {
    if (e.metaKey || e.ctrlKey || e.shiftKey || e.button !== 0) return;
    e.preventDefault();
    app.go({ view: link.dataset.view });
  });
history.replaceState(null, "", write(app.state));
show(false);
// There is a form to log in only where a token is set; then there is something to log out of.
fetch("/login", { method: "HEAD", redirect: "manual" }).then((answer) => {
  document.getElementById("logout").hidden = !answer.ok;
}, () => null);
if (app.state.view !== "overview") loadHealth().then(app.told, () => null);
