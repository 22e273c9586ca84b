import { $, connect, el, on, text, verdicts, words, lang } from "./base.js";

on("class", c => {
  $("class-lab").textContent = `${c.lab} ${text(c.title)}`;
  const graded = c.rows.filter(r => r.word), ok = graded.filter(r => r.ok);
  $("class-says").textContent = c.trouble || (lang === "ko" ? `${c.of}개 중 ${graded.length}${words.graded}, ${ok.length}${words.passed}` : `${graded.length} of ${c.of} ${words.graded}, ${ok.length} ${words.passed}`);
  $("class-says").className = c.trouble ? "trouble" : "";
  const head = $("book-head");
  while (head.children.length > 3) head.lastChild.remove();
  head.append(...c.checks.map(k => el("th", { scope: "col", title: text(k.says) }, k.id)));
  $("class-bars").replaceChildren(...c.checks.map(k => {
    const n = graded.filter(r => r.checks[k.id] === "pass").length;
    return el("div", {}, el("span", {}, k.id), el("meter", { min: 0, max: Math.max(1, graded.length), value: n, "aria-label": k.id }), el("span", { class: "soft" }, `${n}/${graded.length}`));
  }));
  $("book").replaceChildren(...c.rows.map(r => {
    const row = el("tr", {}, el("th", { scope: "row" }, r.learner),
      el("td", { class: r.word ? (r.ok ? "good" : "bad") : "soft", title: r.message || undefined }, r.word || words.notgraded),
      el("td", { class: "num" }, r.word ? `${r.points}/${r.out_of}` : ""));
    for (const k of c.checks) {
      const [kind, said, sign] = verdicts[r.checks[k.id]] || ["", "", ""];
      row.append(el("td", { class: "sign " + kind, title: r.seen[k.id] || undefined }, el("span", { "aria-hidden": "true" }, sign), el("span", { class: "sr" }, said)));
    }
    return row;
  }));
});
connect();
