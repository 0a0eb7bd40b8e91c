// Keeps the page on this device after its first visit, and says so.

const told = document.getElementById("offline");

function say() {
  told.textContent = "The page works without a network now.";
  document.body.dataset.kept = "yes";
}

async function keep() {
  if (!("serviceWorker" in navigator)) {
    told.textContent = "This browser keeps no pages, so the page needs its site each time.";
    return;
  }
  if (navigator.serviceWorker.controller) say(); // kept on an earlier visit; there may be no network to register with
  await navigator.serviceWorker.register("sw.js");
  await navigator.serviceWorker.ready;
  say();
}

keep().catch(() => {
  if (!document.body.dataset.kept) told.textContent = "The page could not be kept for use without a network.";
});
