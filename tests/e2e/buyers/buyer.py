"""Pays for one GET with a stock client of PyPI `x402` and prints what came back as JSON.

Usage: BUYER_KEY=0x... python buyer.py httpx|requests URL
"""

import asyncio
import json
import os
import sys

from eth_account import Account
from x402 import x402Client, x402ClientSync
from x402.http.clients import x402_requests, x402HttpxClient
from x402.mechanisms.evm import EthAccountSigner
from x402.mechanisms.evm.exact.register import register_exact_evm_client


def with_requests(url, signer):
    client = register_exact_evm_client(x402ClientSync(), signer)
    with x402_requests(client) as session:
        return session.get(url, timeout=30)


async def with_httpx(url, signer):
    client = register_exact_evm_client(x402Client(), signer)
    async with x402HttpxClient(client, timeout=30) as http:
        return await http.get(url)


def main():
    library, url = sys.argv[1:]
    signer = EthAccountSigner(Account.from_key(os.environ["BUYER_KEY"]))
    if library == "httpx":
        response = asyncio.run(with_httpx(url, signer))
    else:
        response = with_requests(url, signer)
    receipt = response.headers.get("PAYMENT-RESPONSE")
    print(json.dumps({"status": response.status_code, "body": response.text, "receipt": receipt}))


main()
