// The moving part of the page is read as soon as something happens, which a stream of events tells; and now and then between.
// A hidden page lets go of its stream, as a browser has only a few connections to a server.
"use strict";
(() => {
  const REST_MS = 300, WITHOUT_STREAM_MS = 1000;
  const NEWS = new URL("../news", document.currentScript.src); // below whatever path a proxy serves this page at
  let stream = null, asking = null, resting = false, more = false;

  const moving = () => document.getElementById("now");
  const news = () => {
    more = resting;
    if (resting) return;
    resting = true;
    moving().dispatchEvent(new Event("news"));
    setTimeout(() => { resting = false; if (more) news(); }, REST_MS);
  };
  const follow = () => {
    stream = new EventSource(`${NEWS}?after=${encodeURIComponent(moving().dataset.last)}`);
    stream.onopen = () => { clearInterval(asking); asking = null; };
    stream.onmessage = news;
    stream.onerror = () => { // the browser comes back by itself, unless the server has refused
      if (stream.readyState === EventSource.CLOSED) asking ??= setInterval(news, WITHOUT_STREAM_MS);
    };
  };

  if (!moving()?.dataset.last) return;
  if (!document.hidden) follow();
  document.addEventListener("visibilitychange", () => {
    stream?.close();
    if (document.hidden) return;
    news();
    follow();
  });
})();
