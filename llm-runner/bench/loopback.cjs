// Makes every server of this process listen on 127.0.0.1 only.
const { Server } = require("node:net");
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, { port, host: "127.0.0.1" }, rest.find((x) => typeof x === "function"));
};
