// The facilitator: the official TypeScript packages behind HTTP, with a counter of what it was asked.
import { createServer } from "node:http";
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { ExactEvmScheme } from "@x402/evm/exact/facilitator";
import { ExactEvmSchemeV1 } from "@x402/evm/exact/v1/facilitator";
import { createWalletClient, http, publicActions } from "viem";
import { CHAIN, NETWORK, NETWORK_V1 } from "./chain.mjs";
import { listen } from "./processes.mjs";

const LOST = Symbol("lost");

export async function startFacilitator(chain, { signer }) {
  const client = createWalletClient({
    account: signer, chain: CHAIN, transport: http(chain.url), pollingInterval: 25, cacheTime: 0,
  }).extend(publicActions);
  const evmSigner = toFacilitatorEvmSigner({
    address: signer.address,
    getCode: args => client.getCode(args),
    readContract: args => client.readContract({ ...args, args: args.args ?? [] }),
    verifyTypedData: args => client.verifyTypedData(args),
    writeContract: args => client.writeContract({ ...args, args: args.args ?? [] }),
    sendTransaction: args => client.sendTransaction(args),
    waitForTransactionReceipt: args => client.waitForTransactionReceipt(args),
  });
  const facilitator = new x402Facilitator();
  facilitator.register(NETWORK, new ExactEvmScheme(evmSigner));
  facilitator.registerV1(NETWORK_V1, new ExactEvmSchemeV1(evmSigner));

  // The packages do not order the nonces of the account that sends: one settlement at a time.
  let queue = Promise.resolve();
  const inTurn = work => {
    const turn = queue.then(work);
    queue = turn.catch(() => {});
    return turn;
  };

  let answersToLose = 0;
  const stats = { supported: 0, verify: 0, settle: 0, settled: 0 };
  const routes = {
    "GET /supported": async () => {
      stats.supported += 1;
      return facilitator.getSupported();
    },
    "GET /stats": async () => stats,
    "POST /verify": async ({ paymentPayload, paymentRequirements }) => {
      stats.verify += 1;
      return facilitator.verify(paymentPayload, paymentRequirements);
    },
    "POST /settle": async ({ paymentPayload, paymentRequirements }) => {
      stats.settle += 1;
      const answer = await inTurn(() => facilitator.settle(paymentPayload, paymentRequirements));
      if (answer.success) stats.settled += 1;
      if (answersToLose > 0) {
        answersToLose -= 1;
        return LOST;
      }
      return answer;
    },
  };
  const server = createServer(async (request, response) => {
    const answer = (status, value) => {
      response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(value));
    };
    const route = routes[`${request.method} ${request.url}`];
    if (!route) return answer(404, { error: "no such endpoint" });
    try {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const text = Buffer.concat(chunks).toString("utf8");
      const result = await route(text === "" ? {} : JSON.parse(text));
      if (result === LOST) return request.socket.destroy();
      answer(200, result);
    } catch (error) {
      answer(500, { error: error.message });
    }
  });
  return {
    ...(await listen(server)),
    stats,
    /** The next answer of `/settle` is lost on its way, after the work was done. */
    loseNextSettlement() {
      answersToLose = 1;
    },
  };
}
