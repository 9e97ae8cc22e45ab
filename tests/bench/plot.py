"""A plot of what an account costs, over the number of accounts, as SVG: a line for each name, log scale to the right."""

import math

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 360, 64, 200, 16, 44
COLOURS = ("#0072b2", "#d55e00", "#009e73")  # told apart by the colour-blind as well


def plot(path, title, lines):
    """`lines`: {name: {accounts: microseconds}}."""
    counts = sorted({n for points in lines.values() for n in points})
    low, high = math.log10(counts[0]), math.log10(counts[-1])
    step = 10 ** math.floor(math.log10(max(us for points in lines.values() for us in points.values())))
    top = step * math.ceil(max(us for points in lines.values() for us in points.values()) / step)

    def x(n):
        return LEFT + (math.log10(n) - low) / (high - low or 1) * (WIDTH - LEFT - RIGHT)

    def y(us):
        return HEIGHT - BOTTOM - us / top * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f"<title>{title}</title>", f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    us = 0
    while us <= top:
        out.append(f'<path d="M{LEFT} {y(us):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 6}" y="{y(us) + 4:.1f}" text-anchor="end">{us / 1000:g} ms</text>')
        us += step
    for n in counts:
        out.append(f'<text x="{x(n):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{n:,}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{title}</text>')
    for colour, (name, points) in zip(COLOURS, lines.items()):
        at = [(x(n), y(us)) for n, us in sorted(points.items())]
        out.append(f'<path d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in at)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in at]
        out.append(f'<text x="{at[-1][0] + 8:.1f}" y="{at[-1][1] + 4:.1f}" fill="{colour}">{name}</text>')
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join([*out, "</svg>", ""]))
