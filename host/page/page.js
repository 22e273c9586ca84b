(() => {
  const root = document.documentElement;
  const kept = { // a file's page may have no storage
    get: k => { try { return localStorage.getItem(k); } catch { return null; } },
    set: (k, v) => { try { localStorage.setItem(k, v); } catch { /* it is not kept, then */ } },
  };
  const lang = kept.get("labctl-lang"), theme = kept.get("labctl-theme");
  if (lang === "en" || lang === "ko") root.lang = lang;
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  document.getElementById("lang").addEventListener("click", () => {
    root.lang = root.lang === "ko" ? "en" : "ko";
    kept.set("labctl-lang", root.lang);
  });
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    kept.set("labctl-theme", root.dataset.theme);
  });
  const open = document.getElementById("perfetto-open"), file = document.getElementById("pftrace");
  if (!open) return;
  const there = "https://ui.perfetto.dev";
  file.addEventListener("change", () => { open.disabled = file.files.length === 0; });
  open.addEventListener("click", async () => {
    const ui = window.open(there), chosen = file.files[0];
    if (!ui) return;
    const buffer = await chosen.arrayBuffer();
    const ask = setInterval(() => ui.postMessage("PING", there), 100);
    setTimeout(() => clearInterval(ask), 60000);
    window.addEventListener("message", function answer(e) {
      if (e.origin !== there || e.source !== ui || e.data !== "PONG") return;
      clearInterval(ask);
      window.removeEventListener("message", answer);
      ui.postMessage({ perfetto: { buffer, title: document.title, fileName: chosen.name } }, there);
    });
  });
})();
