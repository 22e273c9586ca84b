// A terminal in the guest. The shell outlives this page's connection: when it comes back
// it gets what it has missed.
import { $, on, words } from "./base.js";

const theme = () => {
  const css = getComputedStyle(document.documentElement), v = n => css.getPropertyValue(n).trim();
  return { background: v("--panel"), foreground: v("--fg"), cursor: v("--link"), cursorAccent: v("--panel"), selectionBackground: v("--d0") };
};

export async function terminal() {
  const place = $("terminal");
  if (place.dataset.there !== "true") {
    on("machine", m => { if (m.name) $("otherwise").textContent = "labctl sh " + m.name; });
    return;
  }
  const [{ Terminal }, { FitAddon }] = await Promise.all([import("./vendor/xterm.mjs"), import("./vendor/addon-fit.mjs")]);
  const term = new Terminal({ fontSize: 13, fontFamily: "ui-monospace, 'DejaVu Sans Mono', monospace", screenReaderMode: true, theme: theme(), cursorBlink: false });
  const fit = new FitAddon(), says = $("terminal-says");
  term.loadAddon(fit);
  term.open($("screen"));
  fit.fit();
  // Tab is the shell's, while there is one; F6 leads on, for those who have no mouse.
  term.attachCustomKeyEventHandler(e => {
    if (e.type === "keydown" && e.key === "F6") { e.preventDefault(); $("tree").focus(); return false; }
    return e.key !== "Tab" || socket?.readyState === WebSocket.OPEN;
  });
  const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), b => b.toString(16).padStart(2, "0")).join("");
  let id = fresh(), at = 0, socket = null, up = "", over = false;

  function open() {
    if (!up || over || socket) return;
    const s = socket = new WebSocket(`ws://${location.host}/ws/term?id=${id}&at=${at}&rows=${term.rows}&cols=${term.cols}`);
    s.binaryType = "arraybuffer";
    s.addEventListener("message", e => { at += e.data.byteLength; term.write(new Uint8Array(e.data)); });
    s.addEventListener("close", e => {
      socket = null;
      if (e.code === 1000) { over = true; says.textContent = words.shell; return; }
      says.textContent = e.reason || (up ? words.lost : words.noterm); // what is typed now goes nowhere
      setTimeout(open, 1000);
    });
    s.addEventListener("open", () => { says.textContent = ""; size(); });
  }
  function size() {
    fit.fit();
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ rows: term.rows, cols: term.cols }));
  }
  const bytes = new TextEncoder();
  term.onData(keys => {
    if (over && up && keys === "\r") { over = false; id = fresh(); at = 0; term.reset(); open(); return; }
    if (socket?.readyState !== WebSocket.OPEN) return;
    const b = bytes.encode(keys); // long pastes go in pieces
    for (let i = 0; i < b.length; i += 16384) socket.send(b.subarray(i, i + 16384));
  });
  on("machine", m => {
    const now = m.state === "up" ? m.name : "";
    if (now === up) { if (!now) says.textContent = words.noterm; return; }
    up = now;
    if (!up) { says.textContent = words.noterm; return; }
    over = false; id = fresh(); at = 0; term.reset(); says.textContent = "";
    open();
  });
  new ResizeObserver(() => requestAnimationFrame(size)).observe($("screen"));
  addEventListener("theme", () => { term.options.theme = theme(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { term.options.theme = theme(); });
}
