// What tests work with: `hisock` is the module, `page` notes what happens to a client.
import * as hisock from "/hisock.js";

const page = {
  client: null,
  events: [],
  came: [],
  wake: () => {},

  /** Connect, and note each event with what it says. */
  async connect(options) {
    page.client = await hisock.connect("/", options);
    page.client.onDrop((reason) => page.note("drop", reason));
    page.client.onResume(() => page.note("resume"));
    page.client.onSessionLost((lost) => page.note("lost", lost.reason, lost.unacked));
    page.client.onGap((gap) => page.note("gap", gap));
    page.client.onError((error) => page.note("error", error.code));
    page.client.on("force_disconnect", (error) => page.note("end", error.cause?.code));
  },

  note(...event) {
    page.events.push(event);
    page.wake();
  },

  has: (event) => page.events.some(([name]) => name === event),

  /** Keep what comes as a command. */
  keep(command) {
    page.client.on(command, (content) => {
      page.came.push(content);
      page.wake();
    });
  },
};
Object.assign(window, { hisock, page });
document.documentElement.dataset.ready = "";
