// The wall under test: the real binary with a configuration of its own.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort, start, until } from "./processes.mjs";

const text = value => JSON.stringify(value); // valid as a TOML basic string for what is written here

function configuration({ url, address, logDir, chain, facilitator, origin, payTo }) {
  const priced = [
    { name: "quote", method: "GET", path: "/v1/quote" },
    { name: "slow", method: "GET", path: "/v1/slow" },
    { name: "fail", method: "GET", path: "/v1/fail" },
    { name: "stream", method: "GET", path: "/v1/stream" },
    { name: "echo", method: "POST", path: "/v1/echo" },
  ];
  return `[server]
public_origin = ${text(url)}
admin = "off"
shutdown_grace_s = 1

[[listen]]
address = ${text(address)}

[ledger]
path = ${text(join(logDir, "ledger.db"))}

[facilitator.local]
url = ${text(facilitator.url)}

[accept.base-sepolia-usdc]
network = "base-sepolia"
asset = "USDC"
pay_to = ${text(payTo)}
facilitators = ["local"]

[network.base-sepolia]
rpc_url = ${text(chain.url)}
confirmations = 1

[upstream.api]
url = ${text(origin.url)}

[[rule]]
name = "free"
methods = ["GET"]
path = "/free"
free = true
${priced.map(({ name, method, path }) => `
[[rule]]
name = ${text(name)}
methods = [${text(method)}]
path = ${text(path)}
price = "$0.01"
`).join("")}`;
}

/** Starts `farewall run` and waits until it answers. */
export async function startWall({ program, logDir, chain, facilitator, origin, payTo }) {
  const address = `127.0.0.1:${await freePort()}`;
  const url = `http://${address}`;
  const config = join(logDir, "farewall.toml");
  writeFileSync(config, configuration({ url, address, logDir, chain, facilitator, origin, payTo }));
  const child = start(program, ["run", "--config", config], { log: join(logDir, "farewall.log") });
  await until("the start of the wall", async () => (await fetch(`${url}/free`)).status === 200, { child });
  return { url, stop: () => child.stop() };
}
