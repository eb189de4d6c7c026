"use strict";
new EventSource("/dashboard/events").addEventListener("snapshot", (event) => {
  const snapshot = JSON.parse(event.data);
  document.getElementById("verdict").textContent = snapshot.verdict.text;
  document.getElementById("snapshot").textContent = JSON.stringify(snapshot, null, 2);
});
