// Number keys answer the marked question; the time that the page was in view goes with the answer.
"use strict";

const form = document.getElementById("answer");
const questions = [...form.querySelectorAll("fieldset")];
const enabled = document.getElementById("keys");
const note = form.querySelector(".keys");
let active = -1;

function radios(index) {
  return [...questions[index].querySelectorAll("input")];
}

function mark(index) {
  active = index;
  questions.forEach((one, place) => one.classList.toggle("active", place === index));
}

function moveTo(index) {
  mark(index);
  if (index < 0) form.querySelector("button.main").focus();
  else (radios(index).find((one) => one.checked) || radios(index)[0]).focus();
}

function firstOpen() {
  return questions.findIndex((_, index) => !radios(index).some((one) => one.checked));
}

questions.forEach((one, index) => one.addEventListener("focusin", () => mark(index)));

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("textarea, input:not([type=radio]):not([type=checkbox])");
  if (typing) {
    if (event.key === "Escape") moveTo(firstOpen());
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    return;
  }
  if (!enabled.checked || event.ctrlKey || event.altKey || event.metaKey) return;
  const key = event.key.toLowerCase();
  if (/^[1-9]$/.test(key) && active >= 0) {
    const chosen = radios(active)[Number(key) - 1];
    if (!chosen) return;
    chosen.checked = true;
    moveTo(firstOpen());
  } else if (key === "backspace") {
    const before = active < 0 ? questions.length - 1 : active - 1;
    if (before < 0) return;
    radios(before).forEach((one) => { one.checked = false; });
    moveTo(before);
  } else if (key === "c") {
    document.getElementById("comment").focus();
  } else if (key === "b" && document.getElementById("back")) {
    document.getElementById("back").click();
  } else {
    return;
  }
  event.preventDefault();
});

// Single keys can be switched off, for those whose software speaks or presses keys for them.
try {
  enabled.checked = localStorage.getItem("reader-keys") !== "off";
} catch { /* storage is switched off: keys are on */ }
enabled.addEventListener("change", () => {
  try {
    localStorage.setItem("reader-keys", enabled.checked ? "on" : "off");
  } catch { /* as above */ }
});
note.hidden = false;

let seen = 0;
let since = document.hidden ? null : performance.now();
function pause() {
  if (since !== null) seen += performance.now() - since;
  since = null;
}
document.addEventListener("visibilitychange", () => {
  pause();
  if (!document.hidden) since = performance.now();
});
form.addEventListener("submit", (event) => {
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  pause();
  form.elements.seconds.value = (seen / 1000).toFixed(3);
});
// A page from the browser's memory of pages would be locked.
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

if (firstOpen() >= 0) moveTo(firstOpen());
else moveTo(0);
