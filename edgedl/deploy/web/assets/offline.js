// Keeps the page on this device after its first visit, and says so.

const told = document.getElementById("kept");

async function keep() {
  if (!("serviceWorker" in navigator)) {
    told.textContent = "This browser keeps no pages, so the page needs its site each time.";
    return;
  }
  await navigator.serviceWorker.register("sw.js");
  await navigator.serviceWorker.ready;
  told.textContent = "The page works without a network now.";
  document.body.dataset.kept = "yes";
}

keep().catch(() => {
  told.textContent = "The page could not be kept for use without a network.";
});
