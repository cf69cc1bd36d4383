// The chain: anvil with the chain id of Base Sepolia, and a token where Base Sepolia has its USDC.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import solc from "solc";
import {
  concatHex, createPublicClient, encodeAbiParameters, getAddress, http, keccak256, numberToHex, padHex, parseEventLogs,
  toHex,
} from "viem";
import { mnemonicToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";
import { freePort, start, until } from "./processes.mjs";

export const CHAIN = baseSepolia;
export const NETWORK = "eip155:84532";
export const NETWORK_V1 = "base-sepolia";
export const USDC = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";

/** Account `index` of anvil's public test mnemonic: no secret, and worth nothing on any real chain. */
export function account(index) {
  const signer = mnemonicToAccount("test test test test test test test test test test test junk", { addressIndex: index });
  return { address: signer.address, key: toHex(signer.getHdKey().privateKey), signer };
}

/** The program: $ANVIL_BIN, or the npm package for this platform, or `anvil` on the PATH. */
function anvilProgram() {
  if (process.env.ANVIL_BIN) return process.env.ANVIL_BIN;
  const arch = { x64: "amd64", arm64: "arm64" }[process.arch] ?? process.arch;
  const require = createRequire(import.meta.url);
  try {
    const bin = require.resolve(`@foundry-rs/anvil-${process.platform}-${arch}/bin/anvil`);
    if (existsSync(bin)) return bin;
  } catch {
    // no such package here
  }
  return "anvil";
}

function compileToken() {
  const path = join(import.meta.dirname, "..", "contracts", "Token.sol");
  const input = {
    language: "Solidity",
    sources: { "Token.sol": { content: readFileSync(path, "utf8") } },
    settings: {
      optimizer: { enabled: true, runs: 200 },
      viaIR: true,
      outputSelection: { "*": { Token: ["abi", "evm.deployedBytecode.object", "storageLayout"] } },
    },
  };
  const output = JSON.parse(solc.compile(JSON.stringify(input)));
  const errors = (output.errors ?? []).filter(entry => entry.severity === "error");
  if (errors.length > 0) throw new Error(errors.map(entry => entry.formattedMessage).join("\n"));
  const { abi, evm, storageLayout } = output.contracts["Token.sol"].Token;
  const slotOf = label => BigInt(storageLayout.storage.find(entry => entry.label === label).slot);
  return { abi, code: `0x${evm.deployedBytecode.object}`, balancesSlot: slotOf("balanceOf") };
}

/** Starts the chain with the token in place. */
export async function startChain(logDir) {
  const token = compileToken();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const args = ["--host", "127.0.0.1", "--port", String(port), "--chain-id", String(CHAIN.id)];
  const child = start(anvilProgram(), args, { log: join(logDir, "anvil.log") });
  const client = createPublicClient({ chain: CHAIN, transport: http(url), pollingInterval: 25, cacheTime: 0 });
  await until("the start of anvil", async () => (await client.getChainId()) === CHAIN.id, { child });
  await client.request({ method: "anvil_setCode", params: [USDC, token.code] });

  // `eth_call` on `latest` sees the time of the latest block. On an idle chain that time grows old, and payments that
  // are valid now are refused as not yet valid.
  const heartbeat = setInterval(() => client.request({ method: "evm_mine", params: [] }).catch(() => {}), 2000);

  const read = (functionName, args) => client.readContract({ address: USDC, abi: token.abi, functionName, args });
  return {
    url,
    client,
    read,
    balanceOf: address => read("balanceOf", [address]),
    async fund(address, amount) {
      const key = encodeAbiParameters([{ type: "address" }, { type: "uint256" }], [address, token.balancesSlot]);
      await client.request({
        method: "anvil_setStorageAt",
        params: [USDC, keccak256(key), padHex(numberToHex(amount), { size: 32 })],
      });
      const balance = await read("balanceOf", [address]);
      if (balance !== amount) throw new Error(`funding ${address} gave it ${balance} instead of ${amount}`);
    },
    /** The `Transfer` logs of the token in one transaction, which must have succeeded. */
    async transfersIn(transaction) {
      const receipt = await client.getTransactionReceipt({ hash: transaction });
      if (receipt.status !== "success") throw new Error(`transaction ${transaction} was reverted`);
      const logs = receipt.logs.filter(log => getAddress(log.address) === USDC);
      return parseEventLogs({ abi: token.abi, eventName: "Transfer", logs }).map(log => log.args);
    },
    async stop() {
      clearInterval(heartbeat);
      await child.stop();
    },
  };
}

/** A signature that the token must refuse although it recovers the signer: s replaced by n - s, v flipped. */
export function highS(signature) {
  const n = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
  const s = n - BigInt(`0x${signature.slice(66, 130)}`);
  const v = signature.slice(130) === "1b" ? "0x1c" : "0x1b";
  return concatHex([signature.slice(0, 66), padHex(numberToHex(s), { size: 32 }), v]);
}
