import { $, badge, connect, el, judge, lang, on, post, text, words } from "./base.js";
import { live } from "./live.js";
import { terminal } from "./term.js";

const id = $("main").dataset.lab, api = path => `/api/lab/${id}/${path}`;

// Tabs, by mouse and by the arrow keys.
const tabs = [...document.querySelectorAll("[role=tab]")];
function show(tab, focus) {
  for (const t of tabs) {
    const is = t === tab;
    t.setAttribute("aria-selected", is);
    t.tabIndex = is ? 0 : -1;
    $(t.getAttribute("aria-controls")).hidden = !is;
  }
  if (focus) tab.focus();
  history.replaceState(null, "", "#" + tab.getAttribute("aria-controls"));
}
for (const t of tabs) {
  t.addEventListener("click", () => show(t));
  t.addEventListener("keydown", e => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (step) { e.preventDefault(); show(tabs[(tabs.indexOf(t) + step + tabs.length) % tabs.length], true); }
  });
}
const first = tabs.find(t => "#" + t.getAttribute("aria-controls") === location.hash);
if (first) show(first);

// The run.
judge($("checks"), null, words.waiting);
judge($("claims"), null, words.waiting);
function doing(r) {
  if (r.doing === "step") return `${words.running} ${words.step} ${r.n}/${r.of}: ${r.step}`;
  return r.doing === "trace" ? words.trace : words.running;
}
on("run", r => {
  if (r.lab !== id) return;
  const busy = r.state === "running";
  $("run-start").disabled = busy;
  $("run-stop").hidden = !busy;
  const report = r.report, failed = r.state === "failed";
  $("run-says").className = failed ? "trouble" : "";
  $("run-says").textContent = busy ? doing(r) : failed ? (r.trouble === "stopped" ? words.stopped : r.trouble)
    : report?.missing?.length ? `${words.missing}: ${report.missing.join("; ")}`
    : `${report.passed}/${report.passed + report.failed} ${words.pass}` + (r.on ? ` · ${r.on}` : "") + (r.record ? ` · ${words.record}: ${r.record}` : "");
  $("run-lines").replaceChildren(...(busy || failed ? r.lines : []).map(l => el("li", {}, l)));
  judge($("checks"), report?.checks || r.decided, busy ? words.running : words.waiting);
  judge($("claims"), report?.claims, busy ? words.running : words.waiting);
  // The one HTML that is taken as such: labctl's own renderer made it, and escaped what
  // came out of the guest.
  $("views").innerHTML = r.views || "";
  window.labctlTimelines?.($("views"));
});
$("run-start").addEventListener("click", () => post(api("run")));
$("run-stop").addEventListener("click", () => post(api("stop")));

// The exercise.
if ($("pick")) {
  judge($("ex-checks"), null, words.waiting);
  on("exercise", x => {
    if (x.lab !== id) return;
    const says = $("ex-says"), busy = x.state === "grading";
    if (!$("folder").value) $("folder").value = x.folder;
    says.className = x.solved && !busy ? "good said" : x.trouble ? "trouble" : "";
    says.textContent = busy ? `${x.folder}: ${words.grading}` : x.trouble || (x.solved ? words.solved : `${words.notyet} ${x.word || ""}`);
    judge($("ex-checks"), x.report?.checks, busy ? words.grading : words.waiting);
    const more = [];
    if (x.message) more.push(el("pre", { tabindex: "0" }, x.message));
    if (x.saw?.length && !x.solved) more.push(el("h3", {}, words.saw), el("pre", { tabindex: "0" }, x.saw.join("\n")));
    if (x.output && !x.solved) more.push(el("h3", {}, words.printed), el("pre", { tabindex: "0" }, x.output));
    $("ex-more").replaceChildren(...more);
  });
  $("pick").addEventListener("submit", e => { e.preventDefault(); post(api("pick"), { folder: $("folder").value.trim() || id }); });
  $("begin").addEventListener("click", async () => {
    const a = await post(api("begin"));
    if (a) $("folder").value = a.folder;
  });
  $("folder").addEventListener("focus", async () => {
    const all = await post("/api/folders");
    if (all) $("folders").replaceChildren(...all.map(f => el("option", { value: f })));
  });
  let read = 0;
  const hints = async n => {
    const a = await post(api("hint"), { hint: n });
    if (!a) return;
    read = a.hints.length;
    $("hints").replaceChildren(...a.hints.map(h => el("li", {}, text(h))));
    if (read >= a.of) { $("hint").disabled = true; $("hint").textContent = words.nohints; }
  };
  $("hint").addEventListener("click", () => hints(read + 1));
  on("progress", all => { const n = all[id]?.hints || 0; if (n > read) hints(n); });
}
$("answers")?.addEventListener("click", async () => {
  const all = await post(api("answers"));
  if (!all) return;
  document.querySelectorAll(".answer").forEach((p, i) => { p.textContent = text(all[i]); p.hidden = false; });
});
on("progress", all => badge(document.querySelector("[data-state]"), all[id]));

live();
// The terminal is to hear of the machine, too, which is told first of all.
terminal().finally(connect);
