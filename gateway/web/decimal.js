// Sums of money, exact: on digits, never on floats.

// "12.50" -> [1250n, 2].
function parse(text) {
  const [whole, part = ""] = text.split(".");
  return [BigInt(whole + part), part.length];
}

function format(units, places) {
  const sign = units < 0n ? "-" : "";
  const text = (units < 0n ? -units : units).toString().padStart(places + 1, "0");
  const part = text.slice(text.length - places).replace(/0+$/, "");
  return sign + text.slice(0, text.length - places) + (places && part ? "." + part : "");
}

// null and undefined are what nobody reported: they add nothing, and a sum of nothing else is null.
export function sum(texts) {
  let units = 0n, places = 0, any = false;
  for (const text of texts) {
    if (text === null || text === undefined) continue;
    const [u, p] = parse(String(text));
    if (p > places) {
      units *= 10n ** BigInt(p - places);
      places = p;
    }
    units += u * 10n ** BigInt(places - p);
    any = true;
  }
  return any ? format(units, places) : null;
}

export function minus(a, b) {
  return sum([a, String(b).startsWith("-") ? String(b).slice(1) : "-" + b]);
}
