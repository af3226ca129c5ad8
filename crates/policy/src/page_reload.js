// Loads this page anew when its application was reloaded.
(() => {
  "use strict";
  const { src, dataset } = document.currentScript;
  if (window.anygateReload) return;
  window.anygateReload = true;
  const news = src.replace("reload.js", "news?") + dataset.version;
  const pause = () => new Promise((end) => setTimeout(end, 1000));
  const change = () =>
    new Promise((end) => document.addEventListener("visibilitychange", end, { once: true }));
  const watch = async () => {
    for (;;) {
      // Browsers have few connections to one host, which pages in the background must not take.
      while (document.hidden) await change();
      const hidden = new AbortController();
      change().then(() => hidden.abort());
      try {
        const { status } = await fetch(news, { cache: "no-store", signal: hidden.signal });
        if (status === 200) return location.reload();
        if (status !== 204) return;
      } catch {
        // The page was hidden, or the server is away for a moment.
        if (!document.hidden) await pause();
      }
    }
  };
  watch();
})();
