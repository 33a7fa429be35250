// A line that shows how a figure went.

import { svg } from "./dom.js";

const [WIDTH, HEIGHT] = [160, 32];

/** `values`, oldest first, at the right of a place for `most` of them. */
export function sparkline(values, most) {
  const top = Math.max(1, ...values);
  const step = WIDTH / (most - 1);
  const from = WIDTH - step * (values.length - 1);
  const y = (value) => HEIGHT - 2 - (value / top) * (HEIGHT - 4);
  const points = values.map((value, n) => `${(from + n * step).toFixed(1)},${y(value).toFixed(1)}`);
  const area = points.length > 1 ? `${from.toFixed(1)},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}` : "";
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "spark", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("polygon", { points: area, class: "spark-area" }),
    svg("polyline", { points: points.join(" "), class: "spark-line", "vector-effect": "non-scaling-stroke" }),
  );
}
