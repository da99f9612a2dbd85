// The page of live streams: it asks for itself every now and then, and shows what has changed.

const EVERY_MS = 2000;

async function update() {
  // A page that nobody sees asks for nothing.
  if (!document.hidden) {
    const lost = document.querySelector("[data-lost]");
    try {
      const answer = await fetch("/streams");
      if (answer.redirected) location.assign(answer.url); // the session has ended
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const now = page.querySelector("[data-streams]");
      if (now) document.querySelector("[data-streams]").replaceWith(now);
      lost.hidden = true;
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      lost.hidden = false; // the service is away: ask again
    }
  }
  setTimeout(update, EVERY_MS);
}

setTimeout(update, EVERY_MS);
