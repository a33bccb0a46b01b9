"""Curves as a page that is read with the pointer: no server, no download, no library."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup

from slotcon_plugin.page import fill, html_page
from slotcon_plugin.visualization.curves import FROM_ZERO, LOGARITHMIC, line_style, smooth
from slotcon_plugin.visualization.run_figures import LIMITS, Run, split_head, title_of

# figure -> what it is like in a good run, (lowest, highest); None = open. As in docs/healthy_run.md, and where that
# gives no number the bounds of engine/health_alarms.py. Some depend on the number of prototypes.
_Bounds = tuple[float | None, float | None]
HEALTHY: dict[str, _Bounds] = {"num_queries": (2, None), "effective_rank": (10, None), "data_time_share": (0, 0.1)}
HEALTHY_OF_K: dict[str, Callable[[float], _Bounds]] = {
    "teacher_entropy": lambda k: (0.05 * math.log(k), 0.97 * math.log(k)),
    "usage_entropy": lambda k: (math.log(max(min(3, k / 2), k / 16)), math.log(k)),
    "live_prototypes_epoch": lambda k: (k / 2, k),
}
_BODY = """\
<p class="legend">{% for run in runs %}<span><svg width="26" height="10"><line x1="2" x2="24" y1="5" y2="5"
stroke="{{ run.color }}" stroke-width="2.5" stroke-linecap="round" stroke-dasharray="{{ run.dash }}"/></svg>
{{ run.name }}</span>{% endfor %}
{% if healthy %}<span><i class="good"></i>range of a healthy run</span>{% endif %}</p>
<p class="note">Move the pointer over a chart: the values of all runs there, in all charts.</p>
<div id="charts"></div>
<noscript><p>The curves are drawn by the page's own script, which this browser does not run.</p></noscript>
<style>
.legend { display: flex; flex-wrap: wrap; gap: .3em 1.4em; }
.legend i { display: inline-block; width: 1.2em; height: .8em; margin-right: .4em; } .good { background: #2a9d5030; }
#charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 1.2em; }
#charts figure { margin: 0; }
#charts figcaption { font-size: .85em; min-height: 2.6em; display: flex; align-items: end; }
#charts svg { width: 100%; overflow: visible; font: 11px system-ui, sans-serif; } svg text { fill: currentColor; }
.values { font-size: .8em; min-height: 1.6em; font-variant-numeric: tabular-nums; }
</style>
<script type="application/json" id="data">{{ data }}</script>
<script>{{ script }}</script>
"""
_SCRIPT = """
const {x: xName, charts} = JSON.parse(document.getElementById('data').textContent);
const W = 400, H = 220, L = 46, R = 8, T = 8, B = 26, NS = 'http://www.w3.org/2000/svg';
const text = v => v === null ? '–' : Math.abs(v) >= 1e5 || (v && Math.abs(v) < 1e-3) ? v.toExponential(2)
  : String(+v.toPrecision(4));
function add(parent, name, attributes, content) {
  const node = document.createElementNS(NS, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (content !== undefined) node.textContent = content;
  return parent.appendChild(node);
}
function ticks(low, high) {
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(m => m * power >= rough), found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high; i++) found.push(+(i * step).toPrecision(10));
  return found;
}
const cursors = [];
for (const chart of charts) {
  const figure = document.createElement('figure'), caption = document.createElement('figcaption');
  caption.textContent = chart.title;
  const values = document.createElement('div');
  values.className = 'values';
  const svg = document.createElementNS(NS, 'svg');
  svg.setAttribute('viewBox', `0 0 ${W} ${H}`);
  figure.append(caption, svg, values);
  document.getElementById('charts').append(figure);
  const to = chart.log ? v => v > 0 ? Math.log10(v) : null : v => v;
  const xs = chart.runs.flatMap(r => r.x), ys = chart.runs.flatMap(r => r.raw || r.y).concat(chart.limits)
    .map(v => v === null ? null : to(v)).filter(v => v !== null);
  let [x0, x1] = [Math.min(...xs), Math.max(...xs)], [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  if (chart.zero) y0 = Math.min(0, y0);
  if (!ys.length) { values.textContent = 'no finite value'; continue; }
  if (x0 === x1) { x0 -= .5; x1 += .5; }
  const pad = (y1 - y0) * .06 || Math.abs(y1) * .1 || 1;
  y1 += pad;
  if (!chart.zero) y0 -= pad;
  const px = v => L + (v - x0) / (x1 - x0) * (W - L - R), py = v => T + (y1 - v) / (y1 - y0) * (H - T - B);
  if (chart.healthy) {
    const [low, high] = chart.healthy.map(v => v === null ? null : to(v));
    const top = Math.max(T, high === null ? T : py(high)), bottom = Math.min(H - B, low === null ? H - B : py(low));
    if (bottom > top) add(svg, 'rect', {x: L, y: top, width: W - L - R, height: bottom - top, fill: '#2a9d50',
      'fill-opacity': .15, class: 'healthy'});
  }
  const marks = !chart.log ? ticks(y0, y1) : y1 - y0 > 1.5 ? ticks(Math.ceil(y0), y1)
    : ticks(10 ** y0, 10 ** y1).filter(v => v > 0).map(Math.log10);
  for (const v of marks) {
    add(svg, 'line', {x1: L, x2: W - R, y1: py(v), y2: py(v), stroke: 'currentColor', 'stroke-opacity': .12});
    add(svg, 'text', {x: L - 5, y: py(v) + 4, 'text-anchor': 'end'}, text(chart.log ? 10 ** v : v));
  }
  for (const v of ticks(x0, x1)) add(svg, 'text', {x: px(v), y: H - B + 15, 'text-anchor': 'middle'}, text(v));
  add(svg, 'text', {x: W - R, y: H - 1, 'text-anchor': 'end', opacity: .6}, xName);
  for (const v of chart.limits.map(to)) add(svg, 'line', {x1: L, x2: W - R, y1: py(v), y2: py(v),
    stroke: 'currentColor', 'stroke-dasharray': '5 4', 'stroke-opacity': .5});
  for (const run of chart.runs) for (const [key, width, opacity] of [['raw', .8, .35], ['y', 1.8, 1]]) {
    if (!run[key]) continue;
    let d = '', pen = false;
    run[key].forEach((v, i) => {
      const y = v === null ? null : to(v);
      if (y === null) { pen = false; return; }
      d += `${pen ? 'L' : 'M'}${px(run.x[i]).toFixed(1)} ${py(y).toFixed(1)}`;
      pen = true;
    });
    add(svg, 'path', {d, fill: 'none', stroke: run.color, 'stroke-width': width, 'stroke-opacity': opacity,
      'stroke-dasharray': run.dash, 'stroke-linejoin': 'round', 'stroke-linecap': 'round',
      class: key === 'y' ? 'line' : 'raw'});
  }
  const rule = add(svg, 'line', {y1: T, y2: H - B, stroke: 'currentColor', 'stroke-opacity': 0});
  cursors.push(x => {
    rule.setAttribute('stroke-opacity', x === null ? 0 : .5);
    values.textContent = '';
    if (x === null) return;
    rule.setAttribute('x1', px(Math.min(Math.max(x, x0), x1)));
    rule.setAttribute('x2', rule.getAttribute('x1'));
    const parts = chart.runs.filter(run => run.x.length).map(run => {
      const i = run.x.reduce((best, v, j) => Math.abs(v - x) < Math.abs(run.x[best] - x) ? j : best, 0);
      const name = chart.runs.length > 1 ? run.name + ': ' : '';
      return `${name}${text(run.y[i])} at ${xName} ${text(run.x[i])}`;
    });
    values.textContent = parts.join('  ·  ');
  });
  svg.addEventListener('pointermove', event => {
    const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * W;
    const x = x0 + (at - L) / (W - L - R) * (x1 - x0);
    cursors.forEach(move => move(x));
  });
  svg.addEventListener('pointerleave', () => cursors.forEach(move => move(null)));
}
"""


def curves_page(
    title: str, runs: Sequence[Run], figures: Sequence[str], by_epoch: bool = False, window: int = 1
) -> str:
    """A page of charts, a chart for each figure and a line for each run; arguments as :func:`.curves.plot_runs` has."""
    looks = []
    for number, run in enumerate(runs):
        color, _, dash = line_style(number)
        looks.append({"name": run.name, "color": color, "dash": dash})
    charts = []
    for name in figures:
        lines = []
        for run, look in zip(runs, looks):
            x, y = run.curve(name, by_epoch)
            line = look | {"x": x.tolist(), "y": _plain(smooth(y, window))}
            lines.append(line | ({"raw": _plain(y)} if window > 1 else {}))
        base, _ = split_head(name)
        sizes = sorted({size for run in runs if (size := run.num_prototypes(name))})
        charts.append(
            {
                "title": title_of(name),
                "runs": lines,
                "limits": [LIMITS[base](size) for size in sizes] if base in LIMITS else [],
                "healthy": _healthy(base, sizes),
                "log": base in LOGARITHMIC,
                "zero": base in FROM_ZERO,
            }
        )
    data = json.dumps({"x": "epoch" if by_epoch else "iteration", "charts": charts}, allow_nan=False)
    body = fill(
        _BODY,
        runs=looks,
        healthy=any(chart["healthy"] for chart in charts),
        data=Markup(data.replace("<", "\\u003c")),
        script=Markup(_SCRIPT),
    )
    return html_page(title, [body])


def _healthy(base: str, sizes: Sequence[float]) -> _Bounds | None:
    """The range of a figure in a good run; None where there is none, or K decides and not one K is known."""
    if base in HEALTHY_OF_K:
        return HEALTHY_OF_K[base](sizes[0]) if len(sizes) == 1 else None
    return HEALTHY.get(base)


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]
