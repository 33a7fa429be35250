// A family of tasks as a graph: what comes first stands at the left.

import { h, svg } from "./dom.js";
import { tail } from "./format.js";
import { tone } from "./ui.js";

const [WIDTH, HEIGHT, ACROSS, DOWN, EDGE] = [172, 46, 56, 14, 12];
/** Tasks that are drawn; a family may have a hundred thousand. */
const MOST = 200;

/** Draws `{tasks, edges: [{from, to, how}]}`, `self` marked. */
export function dag({ tasks, edges }, self) {
  const drawn = tasks.slice(0, MOST);
  const known = new Map(drawn.map((task) => [task.id, task]));
  const lines = edges.filter(({ from, to }) => known.has(from) && known.has(to));
  const place = places(drawn, lines);
  const columns = Math.max(...[...place.values()].map((p) => p.column)) + 1;
  const rows = Math.max(...[...place.values()].map((p) => p.row)) + 1;
  const [width, height] = [EDGE * 2 + columns * WIDTH + (columns - 1) * ACROSS, EDGE * 2 + rows * HEIGHT + rows * DOWN];
  const at = (id) => {
    const { column, row } = place.get(id);
    return [EDGE + column * (WIDTH + ACROSS), EDGE + row * (HEIGHT + DOWN)];
  };
  return h(
    "div",
    { class: "scroll dag" },
    svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "The tasks of the family, and which comes after which" },
      lines.map((line) => edge(at(line.from), at(line.to), line.how)),
      drawn.map((task) => box(task, at(task.id), task.id === self)),
    ),
    h("p", { class: "faint dag-note" }, h("i", { class: "swatch-line" }), "comes after ", h("i", { class: "swatch-line dashed" }), "submitted by the turn of"),
    tasks.length > MOST && h("p", { class: "faint" }, `${MOST} of ${tasks.length} are drawn.`),
  );
}

// A column for each step from the first; rows in the order of acceptance. Circles cannot be, and would end.
function places(tasks, lines) {
  const column = new Map(tasks.map((task) => [task.id, 0]));
  for (let n = 0; n < tasks.length; n += 1) {
    let moved = false;
    for (const { from, to } of lines) {
      const wanted = column.get(from) + 1;
      if (column.get(to) < wanted && wanted < tasks.length) {
        column.set(to, wanted);
        moved = true;
      }
    }
    if (!moved) break;
  }
  const used = new Map();
  const found = new Map();
  for (const { id } of [...tasks].sort((a, b) => (a.id < b.id ? -1 : 1))) {
    const at = column.get(id);
    const row = used.get(at) ?? 0;
    used.set(at, row + 1);
    found.set(id, { column: at, row });
  }
  return found;
}

// What leads past a column runs between its rows, not through its boxes.
function edge([fx, fy], [tx, ty], how) {
  const [x1, y1, x2, y2] = [fx + WIDTH, fy + HEIGHT / 2, tx, ty + HEIGHT / 2];
  const bend = ACROSS / 2;
  const between = ty > fy ? ty - DOWN / 2 : fy + HEIGHT + DOWN / 2;
  const direct = `C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`;
  const around = `C${x1 + bend},${y1} ${x1 + bend},${between} ${x1 + ACROSS},${between} H${x2 - ACROSS} C${x2 - bend},${between} ${x2 - bend},${y2} ${x2},${y2}`;
  const line = x2 - x1 > ACROSS ? around : direct;
  return svg("path", { d: `M${x1},${y1} ${line}`, class: how === "submitted" ? "dag-edge dashed" : "dag-edge" });
}

function box(task, [x, y], self) {
  const name = task.message ?? task.target.replace(/^tool:/, "");
  const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  return svg(
    "a",
    { href: `#/tasks/${task.id}`, "aria-label": `${name} for ${task.target}, ${task.state}` },
    svg("title", {}, `${task.target} ${task.message ?? ""} ${task.state} ${task.id}`),
    svg("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 8, class: self ? "dag-box self" : "dag-box" }),
    svg("circle", { cx: x + 14, cy: y + 17, r: 4, class: `dag-dot ${tone(task.state)}` }),
    svg("text", { x: x + 26, y: y + 21, class: "dag-name" }, cut(name, 20)),
    svg("text", { x: x + 26, y: y + 36, class: "dag-sub" }, `${cut(task.state, 15)} · ${tail(task.id)}`),
  );
}
