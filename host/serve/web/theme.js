"use strict";
// Before the page is drawn, so that it does not flash.
try {
  const theme = localStorage.getItem("theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* a browser that keeps nothing follows the system */ }
