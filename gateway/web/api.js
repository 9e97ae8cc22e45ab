// The gateway's API: addresses, answers, and errors that say what to do.

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// url("cost", {group_by: "day", account: ["a", "b"]}) -> "/api/v1/cost?group_by=day&account=a&account=b".
export function url(path, parameters = {}) {
  const q = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined || value === null) continue;
    for (const one of Array.isArray(value) ? value : [value]) q.append(name, one);
  }
  const text = q.toString();
  return "/api/v1/" + path + (text ? "?" + text : "");
}

// A sum may pass 2^53. Then it is kept as the digits that came, where the browser lets us see them.
function keepDigits(key, value, context) {
  return typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
    ? context.source : value;
}

export async function get(path, parameters, signal) {
  let answer, text;
  try {
    answer = await fetch(url(path, parameters), { signal, headers: { accept: "application/json" }, cache: "no-store" });
    text = await answer.text();
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new ApiError(0, "unreachable", "The gateway does not answer. Is uf-gateway running? The page tries again by itself.");
  }
  if (answer.status === 401) {
    location.assign("/login");
    throw new ApiError(401, "unauthorized", "The session has ended. Log in again.");
  }
  let body;
  try {
    body = JSON.parse(text, keepDigits);
  } catch {
    throw new ApiError(answer.status, "broken", `The gateway's answer (HTTP ${answer.status}) broke off or is not JSON. The page tries again by itself.`);
  }
  if (!answer.ok) throw new ApiError(answer.status, body.error ?? "error", body.message ?? `HTTP ${answer.status}`);
  return body;
}
