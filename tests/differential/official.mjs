// The official side: decoder, matcher and facilitator of @x402/core and @x402/evm, with a chain on
// which all is well: the tokens have code, the payer has none, every simulated transfer succeeds.
import { decodePaymentSignatureHeader } from "@x402/core/http";
import { x402ResourceServer } from "@x402/core/server";
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { ExactEvmScheme as ExactEvmServer } from "@x402/evm/exact/server";
import { ExactEvmScheme } from "@x402/evm/exact/facilitator";
import { ExactEvmSchemeV1 } from "@x402/evm/exact/v1/facilitator";

const V1_NAMES = { "eip155:84532": "base-sepolia", "eip155:8453": "base" };

export async function official(accepts, payer) {
  const networks = [...new Set(accepts.map(a => a.network))];
  const isPayer = address => String(address).toLowerCase() === payer.toLowerCase();
  const tokens = new Set(accepts.map(a => a.asset.toLowerCase()));
  const signer = toFacilitatorEvmSigner({
    address: "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    getCode: async ({ address }) => (tokens.has(address.toLowerCase()) && !isPayer(address) ? "0x6001" : undefined),
    readContract: async ({ functionName }) => (functionName === "tryAggregate" ? [] : 10n ** 30n),
    verifyTypedData: async () => { throw new Error("not asked"); },
    writeContract: async () => { throw new Error("nothing is settled here"); },
    sendTransaction: async () => { throw new Error("nothing is settled here"); },
    waitForTransactionReceipt: async () => { throw new Error("nothing is settled here"); },
  });
  const facilitator = new x402Facilitator();
  facilitator.register(networks, new ExactEvmScheme(signer));
  facilitator.registerV1(networks.map(n => V1_NAMES[n]), new ExactEvmSchemeV1(signer));
  const server = new x402ResourceServer({
    getSupported: async () => facilitator.getSupported(),
    verify: async (payload, requirements) => facilitator.verify(payload, requirements),
    settle: async () => { throw new Error("nothing is settled here"); },
  });
  for (const network of networks) server.register(network, new ExactEvmServer());
  await server.initialize();
  // Legacy servers matched by scheme and network alone; only EIP-3009 exists in version 1.
  const v1 = accepts.filter(a => a.extra?.assetTransferMethod === undefined).map(a => ({
    scheme: a.scheme, network: V1_NAMES[a.network], maxAmountRequired: a.amount, asset: a.asset, payTo: a.payTo,
    maxTimeoutSeconds: a.maxTimeoutSeconds, extra: a.extra, resource: "https://api.example.com/quote",
    description: "", mimeType: "",
  }));

  const refused = (reason, because = reason) => ({ verdict: "refused", reason, because });

  /** What the official packages say to this header at this second. */
  return async function verdict({ version, header, now }) {
    const realNow = Date.now;
    Date.now = () => now * 1000;
    try {
      let payload;
      try {
        payload = decodePaymentSignatureHeader(header);
      } catch (error) {
        return refused("Payment required", String(error.message));
      }
      if (payload === null || typeof payload !== "object") return refused("Payment required", "no object");
      let matching;
      if (version === 2) {
        try {
          matching = server.findMatchingRequirements(accepts, payload);
        } catch (error) {
          return refused(String(error.message));
        }
        if (!matching) return refused("No matching payment requirements");
        const extensions = server.validateExtensions({ accepts }, payload);
        if (!extensions.valid) return refused(extensions.invalidReason);
      } else {
        if (payload.x402Version !== 1) return refused(`Unsupported x402 version: ${payload.x402Version}`);
        matching = v1.find(r => r.scheme === payload.scheme && r.network === payload.network);
        if (!matching) return refused("No matching payment requirements");
      }
      try {
        const answer = version === 2
          ? await server.verifyPayment(payload, matching)
          : await facilitator.verify(payload, matching);
        return answer.isValid ? { verdict: "good" } : refused(answer.invalidReason ?? "", answer.invalidMessage);
      } catch (error) {
        return refused("threw", String(error.message).split("\n")[0]);
      }
    } finally {
      Date.now = realNow;
    }
  };
}
