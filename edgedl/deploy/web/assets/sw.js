// Keeps all files of the page. Of another site it takes nothing, and nothing is sent to any.

const VERSION = "@VERSION@"; // the digest of all files: another build is another cache
const FILES = "@FILES@";
const NAME = `edgedl-web ${registration.scope}`; // several pages may lie on one site, each with its own
const CACHE = `${NAME} ${VERSION}`;
// A page that its headers isolate may use threads. Where the site does not send them, they are added here.
const ISOLATION = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin" };

addEventListener("install", (event) => {
  const fresh = FILES.map((file) => new Request(file, { cache: "reload" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(fresh)).then(() => skipWaiting()));
});

addEventListener("activate", (event) => {
  const old = (name) => name.startsWith(NAME) && name !== CACHE;
  event.waitUntil(caches.keys().then((names) => Promise.all(names.filter(old).map((name) => caches.delete(name)))).then(() => clients.claim()));
});

addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || new URL(event.request.url).origin !== location.origin) return;
  event.respondWith(kept(event.request));
});

async function kept(request) {
  const found = await caches.open(CACHE).then((cache) => cache.match(request, { ignoreSearch: true }));
  if (!found) return fetch(request);
  const headers = new Headers(found.headers);
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value);
  return new Response(found.body, { status: found.status, headers });
}
