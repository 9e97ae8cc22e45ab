// How figures read. Money and counts stay the digits that the server sent; a float is for drawing only.

const THIN = ",";

// "-1234567.890" -> {sign: "−", whole: "1,234,567", part: "890"}.
export function digits(text) {
  const [, sign, whole, part = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text) ?? [null, "", text, ""];
  return { sign: sign ? "−" : "", whole: whole.replace(/\B(?=(\d{3})+$)/g, THIN), part };
}

// All digits, with thousands separated.
export function exact(text) {
  const { sign, whole, part } = digits(text);
  return sign + whole + (part ? "." + part : "");
}

// To the cent, half away from zero, by the digits and not by a float. What is not zero and would read
// as 0.00 says so.
export function rounded(text, places = 2) {
  const [, sign, whole, part = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text) ?? [];
  if (whole === undefined) return text;
  const kept = BigInt(whole + part.slice(0, places).padEnd(places, "0")) + (part[places] >= "5" ? 1n : 0n);
  const all = kept.toString().padStart(places + 1, "0");
  const minus = sign ? "−" : "";
  if (kept === 0n && /[1-9]/.test(part)) return `${sign ? ">−" : "<"}0.${"0".repeat(places - 1)}1`;
  const head = all.slice(0, all.length - places).replace(/\B(?=(\d{3})+$)/g, THIN);
  return (kept === 0n ? "" : minus) + head + (places ? "." + all.slice(all.length - places) : "");
}

// A count for a glance: "12.3 M". The table has all digits.
export function brief(value) {
  const n = Number(value);
  const size = Math.abs(n);
  const [unit, by] = size >= 999.5e9 ? ["T", 1e12] : size >= 999.5e6 ? ["B", 1e9] : size >= 999.5e3 ? ["M", 1e6]
    : size >= 9999.5 ? ["k", 1e3] : ["", 1];
  if (!unit) return exact(String(Math.round(n)).replace("+", ""));
  const scaled = n / by;
  return scaled.toFixed(Math.abs(scaled) < 9.995 ? 2 : Math.abs(scaled) < 99.95 ? 1 : 0).replace("-", "−") + " " + unit;
}

// For the axis of a chart.
export function axis(n) {
  const size = Math.abs(n);
  if (size >= 1e12) return trim(n / 1e12) + "T";
  if (size >= 1e9) return trim(n / 1e9) + "B";
  if (size >= 1e6) return trim(n / 1e6) + "M";
  if (size >= 1e3) return trim(n / 1e3) + "k";
  return trim(n);
}
function trim(n) {
  return String(Math.round(n * 1000) / 1000).replace("-", "−");
}

// "+14.5 %", or null where there is nothing to compare with.
export function change(now, before) {
  const a = Number(now), b = Number(before);
  if (!(b > 0)) return null;
  const percent = (a / b - 1) * 100;
  const text = Math.abs(percent) >= 999.5 ? (a / b).toFixed(1) + "×" : Math.abs(percent).toFixed(1) + " %";
  if (Math.abs(percent) >= 999.5) return text;
  return (percent < 0 ? "−" : "+") + text;
}

export function share(part, all) {
  const percent = (Number(part) / Number(all)) * 100;
  if (!Number.isFinite(percent)) return "";
  if (percent !== 0 && Math.abs(percent) < 0.05) return "<0.1 %";
  return percent.toFixed(1).replace("-", "−") + " %";
}

export function plural(n, one, many = one + "s") {
  return `${exact(String(n))} ${Number(n) === 1 ? one : many}`;
}

// ---- time ----

// The date of a moment on the clock of a zone, "2026-11-25".
export function dateIn(zone, when = new Date()) {
  return new Intl.DateTimeFormat("en-CA", { timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit" }).format(when);
}

export function dateAdd(date, days) {
  const d = new Date(date + "T00:00:00Z");
  d.setUTCDate(d.getUTCDate() + days);
  return d.toISOString().slice(0, 10);
}

export function monthStart(date, months = 0) {
  const d = new Date(date.slice(0, 7) + "-01T00:00:00Z");
  d.setUTCMonth(d.getUTCMonth() + months);
  return d.toISOString().slice(0, 10);
}

// A moment on the clock of a zone: "25 Nov 2026, 14:05".
export function moment(text, zone, seconds = false) {
  return new Intl.DateTimeFormat("en-GB", {
    timeZone: zone, day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit",
    second: seconds ? "2-digit" : undefined, hourCycle: "h23",
  }).format(new Date(text));
}

// A day as the server names it, "2026-11-25" -> "Wed, 25 Nov".
export function day(date, long = false) {
  return new Intl.DateTimeFormat("en-GB", {
    timeZone: "UTC", weekday: long ? "long" : "short", day: "numeric", month: long ? "long" : "short",
    year: long ? "numeric" : undefined,
  }).format(new Date(date + "T00:00:00Z"));
}

export function age(text, now = Date.now()) {
  return span((now - new Date(text).getTime()) / 1000);
}

export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 36 * 3600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}
