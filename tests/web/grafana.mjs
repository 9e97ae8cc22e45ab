// Whether a dashboard is what Grafana's own types allow: deploy/grafana/*.json, told apart by panels, is
// checked as TypeScript, where a member that is unknown, missing or of another type is an error.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const HERE = dirname(fileURLToPath(import.meta.url));
const FOLDER = join(HERE, "..", "..", "deploy", "grafana");
const TYPES = join(HERE, "node_modules", "@grafana", "schema", "dist", "types", "raw");

// JSON has the words of an enum, not its names.
const PLAIN = "type Plain<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T : T extends Array<infer U> ? Array<Plain<U>> "
  + ": T extends object ? { [K in keyof T]: Plain<T[K]> } : T;";

function source({ panels, ...dashboard }) {
  const lines = [PLAIN, `import type { Dashboard, Panel, RowPanel } from ${JSON.stringify(join(TYPES, "dashboard", "x", "types.gen"))};`];
  const check = (type, value) => lines.push(`export const v${lines.length}: Plain<${type}> = ${JSON.stringify(value)};`);
  for (const kind of new Set(panels.map((p) => p.type)))
    if (kind !== "row") lines.push(`import type * as ${kind} from ${JSON.stringify(join(TYPES, "composable", kind, "panelcfg", "x", "types.gen"))};`);
  for (const { options = {}, ...panel } of panels) {
    check(panel.type === "row" ? "RowPanel" : "Panel", panel);
    if (panel.type !== "row") check(`Partial<${panel.type}.Options>`, options);
  }
  check("Dashboard", dashboard);
  return lines.join("\n");
}

// What is wrong with a dashboard, one text each.
export function faults(dashboard) {
  const name = join(HERE, "dashboard.ts"); // where names of packages are looked for from; it is not on disk
  const text = source(dashboard);
  const options = { noEmit: true, strict: true, skipLibCheck: true, target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.getSourceFile = (file, ...rest) => (file === name ? ts.createSourceFile(name, text, options.target) : getSourceFile.call(host, file, ...rest));
  host.fileExists = (file) => file === name || fileExists.call(host, file);
  host.readFile = (file) => (file === name ? text : readFile.call(host, file));
  return ts.getPreEmitDiagnostics(ts.createProgram([name], options, host)).map((d) => ts.flattenDiagnosticMessageText(d.messageText, "\n"));
}

export function dashboards() {
  return readdirSync(FOLDER).filter((f) => f.endsWith(".json")).map((f) => [f, JSON.parse(readFileSync(join(FOLDER, f), "utf8"))]);
}
