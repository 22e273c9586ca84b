import { $, badge, connect, lang, on, words } from "./base.js";

on("progress", all => {
  const labs = [...document.querySelectorAll("[data-lab]")];
  for (const li of labs) badge(li.querySelector("[data-state]"), all[li.dataset.lab]);
  const done = labs.filter(li => all[li.dataset.lab]?.solved).length;
  $("overall").textContent = lang === "ko" ? `${labs.length}개 실습 중 ${done}개 ${words.done}` : `${done} of ${labs.length} ${words.done}`;
});
connect();
