// Starts chain, facilitator, origin and seller, runs the steps, and stops everything again. Called by run.sh.
//
//   node driver.mjs               the wall, $FAREWALL_BIN
//   node driver.mjs --reference   the official seller, @x402/express
import { account, startChain } from "./lib/chain.mjs";
import { startFacilitator } from "./lib/facilitator.mjs";
import { guaranteeSteps } from "./lib/guarantees.mjs";
import { startOrigin } from "./lib/origin.mjs";
import { paymentSteps } from "./lib/payments.mjs";
import { killAll } from "./lib/processes.mjs";
import { startReference } from "./lib/reference.mjs";
import { Steps } from "./lib/steps.mjs";
import { startWall } from "./lib/wall.mjs";
import { World } from "./lib/world.mjs";

const PAY_TO = account(1);
const FACILITATOR = account(3);
const FIRST_BUYER = 100; // each step has a buyer of its own, whose balance nothing else touches

async function main() {
  const isWall = !process.argv.includes("--reference");
  const logDir = process.env.E2E_RUN_DIR;
  const stops = [];
  const started = thing => {
    stops.unshift(() => (thing.stop ?? thing.close)());
    return thing;
  };
  const steps = new Steps();
  try {
    const chain = started(await startChain(logDir));
    const facilitator = started(await startFacilitator(chain, FACILITATOR));
    const payTo = PAY_TO.address;
    const origin = isWall ? started(await startOrigin()) : undefined;
    const seller = started(
      isWall
        ? await startWall({ program: process.env.FAREWALL_BIN, logDir, chain, facilitator, origin, payTo })
        : await startReference({ facilitator, payTo }),
    );
    console.log(`chain ${chain.url}, facilitator ${facilitator.url}, seller ${seller.url}, logs in ${logDir}`);

    let buyers = 0;
    const nextBuyer = async (amount = 1_000_000n) => {
      const buyer = account(FIRST_BUYER + buyers++);
      await chain.fund(buyer.address, amount);
      return buyer;
    };
    const world = new World({ seller, chain, facilitator, origin, payTo });
    await paymentSteps(steps, world, { nextBuyer, isWall });
    if (isWall) await guaranteeSteps(steps, world, { nextBuyer });
  } finally {
    for (const stop of stops) await stop();
  }
  return steps.close();
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(130));
process.on("exit", killAll);
main().then(
  status => process.exit(status),
  error => {
    console.log(`FAILED  ${error.stack ?? error}`);
    process.exit(1);
  },
);
