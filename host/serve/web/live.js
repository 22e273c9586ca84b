// The live machine: its tasks, and what there is to see of the chosen one.
import { $, el, look, on, post, words, lang } from "./base.js";

let chosen = 0, rows = new Map(), latest = null, frame = 0;

function name(t) { return t.pid !== t.tid ? `{${t.name}}` : t.name; }

// ids says the three numbers as the kernel keeps them.
function ids(t) { return `pid ${t.pid}  tid ${t.tid}  ppid ${t.ppid}`; }

function draw() {
  frame = 0;
  if (!latest) return;
  const tree = $("tree"), kernel = $("kthreads").checked;
  const shown = latest.tasks.filter(t => kernel || !t.kernel || t.new);
  const base = Math.min(...shown.map(t => t.depth));
  const keyOf = t => `${t.tid}/${t.name}/${t.pid}`;
  // First out with what has gone: a row that stays in the way has all behind it moved.
  const wanted = new Set(shown.map(keyOf));
  for (const [key, row] of rows) if (!wanted.has(key)) row.e.remove();
  let at = tree.firstChild;
  const keep = new Map();
  for (const t of shown) {
    const key = keyOf(t);
    let row = rows.get(key);
    if (!row) {
      row = { e: el("div", { role: "option", class: "task", id: "task-" + t.tid }), said: "" };
      row.e.append(el("span", { class: "branch", "aria-hidden": "true" }), el("span", { class: "comm" }), el("span", { class: "ids" }), el("span", { class: "state" }), el("span", { class: "mark" }));
      row.e.dataset.tid = t.tid;
      rows.set(key, row);
    }
    keep.set(key, row);
    const said = JSON.stringify([t.depth - base, t.pid, t.ppid, t.state, t.new, t.gone, t.runs, t.left, chosen === t.tid]);
    if (row.said !== said) {
      row.said = said;
      const [branch, comm, num, state, mark] = row.e.children;
      branch.textContent = "  ".repeat(Math.max(0, t.depth - base - 1)) + (t.depth > base ? "└ " : "");
      comm.textContent = name(t);
      num.textContent = ids(t);
      state.textContent = t.gone ? "" : t.runs ? `${t.state} cpu${t.cpu}` : t.state;
      mark.textContent = t.gone ? (t.left ? words.left : words.gone) : t.new ? words.new : "";
      row.e.classList.toggle("new", !!t.new && !t.gone);
      row.e.classList.toggle("gone", !!t.gone);
      row.e.classList.toggle("runs", !!t.runs);
      row.e.setAttribute("aria-selected", chosen === t.tid);
    }
    if (row.e === at) at = at.nextSibling;
    else tree.insertBefore(row.e, at);
  }
  while (at) { const next = at.nextSibling; at.remove(); at = next; }
  rows = keep;
  const alive = latest.tasks.filter(t => !t.gone).length;
  $("count").textContent = lang === "ko" ? `${alive}${words.tasks}` : `${alive} ${words.tasks}`;
  const gap = lang === "ko" ? "" : " ";
  $("forks").textContent = latest.forks < 0 ? "" : `${latest.forks}${gap}${words.made}` + (latest.missed ? `; ${latest.missed}${gap}${words.missed}` : "");
}

function choose(tid) {
  chosen = tid;
  $("address").value = "";
  look({ tid, address: "" });
  if (tid) { $("tree").setAttribute("aria-activedescendant", "task-" + tid); $("task-" + tid)?.scrollIntoView({ block: "nearest" }); }
  draw();
}

function keys(e) {
  const all = [...$("tree").children];
  const now = all.findIndex(r => Number(r.dataset.tid) === chosen);
  const to = { ArrowDown: now + 1, ArrowUp: now < 0 ? all.length - 1 : now - 1, Home: 0, End: all.length - 1 }[e.key];
  if (to === undefined || !all[to]) return;
  e.preventDefault();
  choose(Number(all[to].dataset.tid));
}

function stackInto(list, frames) {
  list.replaceChildren(...frames.map(f => el("li", {}, el("code", {}, f))));
}

function detail(d) {
  if (d.tid !== chosen) return;
  $("chosen-parts").hidden = d.trouble === "ended";
  $("chosen").textContent = d.trouble === "ended" ? words.taskended : `${d.name}, tid ${d.tid}` + (d.trouble ? ": " + d.trouble : "");
  if (d.trouble === "ended") return;
  stackInto($("stack"), d.stack);
  $("stack").hidden = !d.stack.length;
  $("nostack").textContent = { runs: words.runs, none: words.nostack }[d.note] || d.note || "";
  $("fields").replaceChildren(...d.fields.map(f => el("tr", {}, el("th", { scope: "row" }, f.name), el("td", {}, f.text), el("td", { class: "soft" }, f.type))));
  const w = d.walk, steps = [];
  if (w) {
    if ($("address").value === "" && document.activeElement !== $("address")) $("address").placeholder = w.address;
    steps.push(el("li", { class: "from" }, el("code", {}, w.address), " ", el("span", { class: "soft" }, w.format || "")));
    for (const s of w.levels) steps.push(el("li", {}, el("b", {}, s.level), ` [${s.index}] `, el("code", {}, s.entry), " ", el("span", { class: "soft" }, s.flags)));
    steps.push(el("li", { class: w.mapped ? "to good" : "to mixed" }, w.mapped ? words.mapped + " " : "", w.to));
  }
  $("walk").replaceChildren(...steps);
}

function machine(m) {
  const said = { none: words.none, starting: m.line || words.starting, up: `${m.name}: Linux ${m.kernel}, ${m.target}`, ended: words.down }[m.state];
  $("machine").textContent = said + (m.trouble ? ": " + m.trouble : "");
  $("machine").className = m.trouble ? "trouble" : m.state;
  $("start").hidden = m.state === "up" || m.state === "starting";
  if ($("end")) $("end").hidden = m.state !== "up" && m.state !== "starting";
  $("crash").hidden = !m.stack?.length;
  $("crash").textContent = (m.stack || []).join("\n");
  if (m.state !== "up") { latest = null; if (m.state !== "ended") { $("tree").replaceChildren(); rows = new Map(); $("count").textContent = $("forks").textContent = ""; } }
}

export function live() {
  on("machine", machine);
  on("live", m => { latest = m; frame ||= requestAnimationFrame(draw); });
  on("detail", detail);
  on("stacks", all => $("paths").replaceChildren(...all.map(p => {
    const list = el("ol", { class: "stack" }), key = p.frames.join("\n");
    stackInto(list, p.frames);
    // What the reader has opened stays open.
    const open = [...$("paths").children].some(d => d.open && d.dataset.key === key);
    return el("details", { "data-key": key, open }, el("summary", {}, `${p.count}× `, el("code", {}, p.frames[Math.min(2, p.frames.length - 1)]), " ", el("span", { class: "soft" }, p.who.join(", ") + (p.count > p.who.length ? " …" : ""))), list);
  })));
  $("tree").addEventListener("click", e => { const row = e.target.closest("[data-tid]"); if (row) choose(Number(row.dataset.tid)); });
  $("tree").addEventListener("keydown", keys);
  $("kthreads").addEventListener("change", draw);
  $("start").addEventListener("click", () => post("/api/machine/start"));
  $("end")?.addEventListener("click", () => post("/api/machine/stop"));
  $("follow").addEventListener("submit", e => { e.preventDefault(); look({ address: $("address").value.trim() }); });
  $("sleepers").addEventListener("toggle", () => look({ stacks: $("sleepers").open }));
  const watch = () => look({ live: !document.hidden });
  document.addEventListener("visibilitychange", watch);
  watch();
}
