// What every page has: the connection to labctl, and small tools. Nothing that a guest
// or a learner wrote is ever parsed as HTML: it goes in by textContent.
export const words = JSON.parse(document.getElementById("words").textContent);
export const lang = document.documentElement.lang;
export const $ = id => document.getElementById(id);
export const text = t => (t && (t[lang] || t.en || t.ko)) || "";

// el makes an element: el("li", {class: "x"}, "text", child).
export function el(name, attrs = {}, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attrs)) if (v !== undefined && v !== false) e.setAttribute(k, v === true ? "" : v);
  e.append(...children.filter(c => c !== undefined && c !== null));
  return e;
}

export function trouble(said) {
  const p = $("trouble");
  p.textContent = said || "";
  p.hidden = !said;
}

// post asks labctl for something. What goes wrong is said on the page.
export async function post(path, body = {}) {
  trouble("");
  try {
    const r = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const answer = await r.json();
    if (r.ok) return answer;
    trouble(answer.error);
  } catch {
    trouble(words.ended);
  }
  return undefined;
}

const listeners = {};
export const on = (type, f) => (listeners[type] ||= []).push(f);

let socket, wait = 500, choice = null, timer, refused = false;

// look says what this page looks at.
export function look(change) {
  choice = { ...choice, ...change };
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(choice));
}

// lost says why there is no connection: another labctl serve may have got the port, whose
// link has another token.
async function lost(tried) {
  let says = words.lost;
  if (tried) {
    try {
      const r = await fetch("/static/icon.svg", { cache: "no-store" });
      refused = r.status === 401;
      if (refused) says = words.newlink;
    } catch {
      says = words.away;
    }
  }
  if (socket?.readyState === WebSocket.OPEN) return;
  $("connection").textContent = says;
  $("connection").className = "lost";
  if (refused) return;
  timer = setTimeout(connect, wait);
  wait = Math.min(wait * 2, 5000);
}

export function connect() {
  clearTimeout(timer);
  let opened = false;
  socket = new WebSocket(`ws://${location.host}/ws`);
  socket.addEventListener("open", () => {
    opened = true;
    wait = 500;
    $("connection").textContent = words.ok;
    $("connection").className = "";
    if (choice) socket.send(JSON.stringify(choice));
  });
  socket.addEventListener("message", e => {
    const m = JSON.parse(e.data);
    for (const f of listeners[m.type] || []) f(m.data);
  });
  socket.addEventListener("close", () => lost(!opened));
}

// A computer that woke up does not know that its connection is dead.
addEventListener("online", () => socket?.readyState > WebSocket.OPEN && connect());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && socket?.readyState > WebSocket.OPEN) connect();
});

on("trouble", trouble);

// badge shows how far the learner is with a lab.
export function badge(e, p) {
  let kind = "", said = words.fresh;
  if (p?.solved) { kind = "good"; said = words.done; }
  else if (p?.tries) { kind = "mixed"; said = lang === "ko" ? `${p.tries}${words.tried}` : `${p.tries} ${words.tried}`; }
  else if (p?.ran) { kind = "plain"; said = `${words.ran} ${p.held}/${p.checks}`; }
  e.className = "badge " + kind;
  e.textContent = said;
}

export const verdicts = { pass: ["good", words.pass, "✓"], fail: ["bad", words.fail, "✗"], "not applicable": ["plain", words.na, "–"], tampered: ["bad", words.tampered, "!"],
  confirmed: ["good", words.confirmed, "✓"], refuted: ["bad", words.refuted, "✗"], depends: ["mixed", words.depends, "~"], "not enforced": ["mixed", words.free, "!"], unknown: ["plain", words.unknown, "?"] };

// judge turns the items of a list of checks or claims.
export function judge(list, all, pending) {
  for (const li of list?.children || []) {
    const c = all?.find(c => c.id === li.dataset.id), b = li.querySelector(".badge"), more = li.querySelector(".more");
    const [kind, said, sign] = c ? verdicts[c.verdict] || ["plain", c.verdict, "?"] : ["", pending, "○"];
    li.className = kind;
    b.className = "badge " + kind;
    b.textContent = `${sign} ${said}`;
    more.replaceChildren();
    if (!c) continue;
    if (text(c.evidence)) more.append(el("p", {}, `${words.seen}: ${text(c.evidence)}`));
    for (const s of c.seen || []) more.append(el("p", {}, `${words.seen}: ${s}`));
    if (c.why && c.verdict !== "pass" && c.verdict !== "confirmed") more.append(el("p", { class: "soft" }, `${words.because}: ${text(c.why)}`));
    if (c.risk) more.append(el("p", { class: "soft" }, `${words.risk}: ${text(c.risk)}`));
    if (c.hint && c.verdict === "fail") more.append(el("p", { class: "soft" }, `${words.hint}: ${text(c.hint)}`));
  }
}

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* for this page alone */ }
  dispatchEvent(new Event("theme"));
});
