// node validate.js <DOCUMENTS: Kubernetes objects as one JSON array, on standard input. Prints one line for each thing wrong.
// A schema says nothing of fields that it does not know, so an object is handed over wrapped: what was never asked for is unknown.
"use strict";
const { readFileSync } = require("fs");

function watched(value, path, unread) {
  if (value === null || typeof value !== "object") return value;
  const inner = {};
  for (const key of Object.keys(value)) {
    inner[key] = watched(value[key], `${path}/${key}`, unread);
    unread.add(`${path}/${key}`);
  }
  const target = Array.isArray(value) ? Object.values(inner) : inner;
  return new Proxy(target, {
    get(from, key) {
      if (typeof key === "string") unread.delete(`${path}/${key}`);
      return from[key];
    },
  });
}

for (const [number, document] of JSON.parse(readFileSync(0)).entries()) {
  const where = `${document.kind || "document " + number} ${document.metadata?.name || ""}`;
  const module = `kubernetes-models/${document.apiVersion}`;
  let model;
  try {
    model = require(module)[document.kind];
  } catch {
    model = undefined;
  }
  if (!model) {
    console.log(`${where}: Kubernetes has no ${document.kind} in ${document.apiVersion}`);
    continue;
  }
  const unread = new Set();
  try {
    model.prototype.validate.call(watched(document, "", unread));
  } catch (error) {
    console.log(`${where}: ${error.message}`);
  }
  for (const path of unread) {
    if (![...unread].some((other) => path.startsWith(other + "/"))) console.log(`${where}: ${path} is no field`);
  }
}
