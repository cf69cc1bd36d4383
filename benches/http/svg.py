"""Charts as SVG, without any library: bars with their spread, and lines over powers of ten."""

import math
from xml.sax.saxutils import escape

INK, FAINT, PALE = "#24292f", "#6e7781", "#d0d7de"
COLOURS = ["#0969da", "#bc4c00", "#8250df", "#1a7f37", "#9a6700"]
STYLE = ("text{font:13px system-ui,'DejaVu Sans',sans-serif;fill:%s}.small{font-size:11px;fill:%s}"
         ".title{font-size:17px;font-weight:600}.head{font-size:14px;font-weight:600}" % (INK, FAINT))


def _text(x, y, text, kind="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(str(text))}</text>'


def _line(x1, y1, x2, y2, colour=PALE, width=1):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _write(file, width, height, parts):
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" '
            f'viewBox="0 0 {width} {height:.0f}"><style>{STYLE}</style>'
            f'<rect width="100%" height="100%" fill="#ffffff"/>')
    file.write_text("\n".join([head, *parts, "</svg>"]) + "\n")


def number(value):
    """Short: 3 digits, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def bars(file, title, subtitle, panels):
    """Panels of (heading, [(label, median, lowest, highest, remark)]); the longest bar fills the width."""
    width, left, right, row = 900, 180, 260, 26
    parts, y = [_text(24, 32, title, "title"), _text(24, 52, subtitle, "small")], 84
    for heading, rows in panels:
        parts.append(_text(24, y, heading, "head"))
        y += 12
        most = max(high for _, _, _, high, _ in rows) or 1
        scale = (width - left - right) / most
        for nth, (label, value, low, high, remark) in enumerate(rows):
            colour = COLOURS[0] if nth == 0 else PALE
            middle = y + row / 2
            parts.append(_text(left - 10, middle + 4, label, anchor="end"))
            parts.append(f'<rect x="{left}" y="{y + 4}" width="{value * scale:.1f}" height="{row - 8}" fill="{colour}"/>')
            parts.append(_line(left + low * scale, middle, left + high * scale, middle, INK, 1.5))
            parts.append(_text(left + high * scale + 10, middle + 4, number(value)))
            parts.append(_text(width - 24, middle + 4, remark, "small", "end"))
            y += row
        y += 30
    _write(file, width, y, parts)


def lines(file, title, panels):
    """Panels of (what and unit, name of x, xs, [(label, ys)]), two in a line; x is logarithmic, y from 0."""
    width, cell, tall = 900, 438, 290
    parts = [_text(24, 32, title, "title")]
    for nth, (heading, below, xs, series) in enumerate(panels):
        x0, y0 = 24 + (nth % 2) * cell + 46, 66 + (nth // 2) * tall
        parts += _panel(x0, y0, cell - 80, 170, heading, below, xs, series)
    _write(file, width, 66 + math.ceil(len(panels) / 2) * tall - 10, parts)


def _panel(x0, y0, wide, high, heading, below, xs, series):
    most = _above(max(max(ys) for _, ys in series))
    first, last = math.log10(xs[0]), math.log10(xs[-1])
    at_x = lambda x: x0 + (math.log10(x) - first) / ((last - first) or 1) * wide
    at_y = lambda y: y0 + 16 + high - y / most * high
    parts = [_text(x0 - 46, y0, heading, "head")]
    for step in range(5):
        value = most * step / 4
        parts.append(_line(x0, at_y(value), x0 + wide, at_y(value)))
        parts.append(_text(x0 - 6, at_y(value) + 4, number(value), "small", "end"))
    for x in xs:
        parts.append(_text(at_x(x), at_y(0) + 16, f"{x:,.0f}", "small", "middle"))
    parts.append(_text(x0 + wide / 2, at_y(0) + 32, below, "small", "middle"))
    for nth, (label, ys) in enumerate(series):
        colour = COLOURS[nth]
        points = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in zip(xs, ys))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{colour}"/>' for x, y in zip(xs, ys)]
        if len(series) > 1:
            key = at_y(0) + 52
            x = x0 + nth * (wide / 2 + 10) - 20
            parts.append(_line(x, key - 4, x + 18, key - 4, colour, 3))
            parts.append(_text(x + 24, key, label, "small"))
    return parts


def _above(value):
    """A round number at or above it."""
    if value <= 0:
        return 1
    power = 10 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if power * step >= value)
