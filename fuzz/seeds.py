#!/usr/bin/env python3
"""Writes the seeds of the corpus from tests/vectors and conf. Run it from anywhere; it only adds files.

Files that a fuzzer found (kept because they once broke something) stand beside them as found-*.
"""
import base64, hashlib, json, pathlib

here = pathlib.Path(__file__).resolve().parent
root = here.parent
vectors = json.loads((root / "tests/vectors/x402-exact-evm.json").read_text())


def seed(target, name, data):
    if isinstance(data, str):
        data = data.encode()
    folder = here / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


compact = lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False)

# --- payment: '0' raw v2, '1' raw v1, '2' JSON v2, '3' JSON v1, '6' and '7' JSON that is signed first
for group in ("valid", "matching", "permit2"):
    for vector in vectors[group]:
        seed("payment", f"{group}-{vector['id']}", "0" + vector["paymentSignatureHeader"])
for vector in vectors["invalid"]:
    seed("payment", vector["id"], "0" + vector["headerValue"])
for vector in vectors["valid"][:3] + vectors["permit2"][:2]:
    seed("payment", f"json-{vector['id']}", "2" + compact(vector["paymentPayload"]))
    seed("payment", f"signed-{vector['id']}", "6" + compact(vector["paymentPayload"]))
seed("payment", "v1-raw", "1" + vectors["v1"]["xPaymentHeader"])
seed("payment", "v1-json", "3" + compact(vectors["v1"]["paymentPayload"]))
seed("payment", "v1-signed", "7" + compact(vectors["v1"]["paymentPayload"]))
sepolia = next(v for v in vectors["valid"] if v["id"] == "base-sepolia-usdc")["paymentPayload"]
other = json.loads(compact(sepolia))
other["accepted"].update(asset="0x1111111111111111111111111111111111111111",
                         payTo="0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
                         extra={"name": "Token", "version": "1"})
other["payload"]["authorization"]["to"] = other["accepted"]["payTo"]
seed("payment", "signed-other-token", "6" + compact(other))
wrapped = json.loads(compact(sepolia))
wrapped["payload"]["signature"] = "0x" + "ab" * 97
seed("payment", "contract-wallet", "2" + compact(wrapped))
message = bytes([0x80, 1, 0, 1, 2]) + bytes([7] * 64) + bytes([9] * 32) + bytes([1, 1, 2, 0, 1, 3, 4, 5, 6]) + bytes([0])
solana = {"x402Version": 2, "accepted": {
    "scheme": "exact", "network": "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", "amount": "10000",
    "asset": "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU",
    "payTo": "2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4", "maxTimeoutSeconds": 300,
    "extra": {"feePayer": "2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4"}},
    "payload": {"transaction": base64.b64encode(bytes([1]) + bytes(64) + message).decode()}}
seed("payment", "solana", "2" + compact(solana))

# --- header
for vector in vectors["codec"]:
    seed("header", vector["id"], vector["base64"])
    seed("header", vector["id"] + "-json", vector["json"])
for vector in vectors["valid"][:4]:
    seed("header", "challenge-" + vector["id"], vector["paymentRequiredHeader"])
    seed("header", "payload-" + vector["id"], compact(vector["paymentPayload"]))
for name, text in {
    "numbers": '{"a":[0,-0,-0.0,1e3,1.5,31.245270191439438,9007199254740993,1e300,5e-324,18446744073709551615]}',
    "text": '{"\\u0000":"\\ud83d\\ude80","é":"\\"\\\\\\/"}', "twice": '{"a":1,"a":2}', "deep": '{"a":' * 60 + "1" + "}" * 60,
    "null": "null", "list": "[{}]", "space": ' {"a" : 1 }\n',
}.items():
    seed("header", name, text)

# --- target
hosts = ["api.example.com", "API.Example.com.:443", "[::1]:8402", "127.0.0.1", "user@host", "a..b", "xn--mnchen-3ya.de:80"]
targets = """/ /v1/quote /v1/quote/ /V1/QUOTE /v1/%71uote /v1/quote?a=b&c=%2F /v1//quote /v1/./quote /v1/x/../quote
/v1/%2e%2e/quote /v1/quote;x=1 /v1%2fquote /v1/quote%00 /v1/quote%2520 /v1/%25%32%66 /%c3%a9 /%c0%af /%ff /v1/quote%u0041
/paid/a/b /paid /PAID/x /paid/%7E/%41 /admin/x /Admin/X /free/%20 /v1\\quote /v1/quote#x * http://api.example.com/v1/quote
https://u@h:99999/x http://h?x=1 /a?_method=DELETE /a?%5Fmethod=PUT /a?x=%00&.method=1 /%zz /%4 /caf%C3%A9/%40:@!$&'()*+,=~""".split()
for n, path in enumerate(targets):
    seed("target", f"t{n:02}", hosts[n % len(hosts)] + "\n" + path)
seed("target", "bytes", b"h\n/\xc3\xa9\x01\x7f")

# --- config
for path in sorted((root / "conf").glob("*.toml")):
    seed("config", path.name, path.read_text())
small = (root / "conf/farewall.toml").read_text()
small = "\n".join(line for line in small.splitlines() if line and not line.startswith("#"))
seed("config", "small", small)
for name, old, new in [
    ("secret-header", '[upstream.api]', '[upstream.api]\nheaders = { Authorization = "Bearer ${KEY}", X-Api-Key = "literal" }'),
    ("secret-price", '"$0.001"', '"${PRICE}"'), ("secret-path", '"/health"', '"${WHERE}"'),
    ("secret-url", '"http://127.0.0.1:9000"', '"http://user:${PASSWORD}@h"'), ("unset", '"weather"', '"${UNSET}"'),
    ("secret-pay-to", '"0x70997970C51812dc3A010C7d01b50e0d17dc79C8"', '"${TO}"'), ("file", '"weather"', '"file:/etc/passwd"'),
    ("typo", "price =", "prcie ="), ("number", '"$0.001"', "0.001"), ("precise", "$0.001", "$0.0000001"), ("zero", "$0.001", "$0"),
    ("twice", 'name = "weather"', 'name = "health"'), ("same", '/v1/weather/{city}', "/health"), ("mainnet", "base-sepolia", "base"),
    ("permit2", 'asset = "USDC"', 'transfer_method = "permit2"'), ("solana", '"base-sepolia"\n', '"solana-devnet"\n'),
    ("free", "[server]", 'unmatched = "free"\n[server]'), ("control", "weather", "we\\u001b[31mather"), ("broken", "[server]", "[server"),
]:
    assert old in small, name
    seed("config", name, small.replace(old, new, 1))

# --- facilitator: status digit, request digit; Retry-After; EXTENSION-RESPONSES; body
tx = "0x" + "ab" * 32
bodies = {
    "settled": {"success": True, "transaction": tx, "network": "eip155:8453", "payer": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"},
    "no-transaction": {"success": True, "transaction": "", "network": "eip155:8453"},
    "null-transaction": {"success": True, "transaction": None}, "text-success": {"success": "true", "transaction": tx},
    "refused": {"success": False, "errorReason": "insufficient_funds", "errorMessage": "internal: db1", "transaction": "", "network": "x"},
    "pending": {"success": False, "errorReason": "settlement_pending", "transaction": tx}, "pending-unsent": {"success": False, "errorReason": "settlement_pending"},
    "valid": {"isValid": True, "payer": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"},
    "invalid": {"isValid": False, "invalidReason": "invalid_exact_evm_signature"},
    "supported": {"kinds": [{"x402Version": 2, "scheme": "exact", "network": "eip155:8453", "extra": {"a": 1}}, 7], "extensions": ["bazaar"], "signers": {"eip155:*": []}},
    "extensions": {"success": True, "transaction": tx, "extensions": {"a": {"b": [1]}}, "extra": {"c": 2.5}, "amount": "5"},
    "empty": {},
}
for name, body in bodies.items():
    seed("facilitator", name, "00\n\n\n" + compact(body))
    seed("facilitator", name + "-500", "84\n120\n\n" + compact(body))
for case in range(1, 5):
    seed("facilitator", f"no-transaction-{case}", f"0{case}\n\n\n" + compact(bodies["no-transaction"]))
notes = base64.b64encode(compact({"bazaar": {"status": "rejected", "rejectedReason": "x" * 300, "other": 1}}).encode()).decode()
seed("facilitator", "notes", f"10\nWed, 21 Oct 2026 07:28:00 GMT\n{notes}\n" + compact(bodies["settled"]))
seed("facilitator", "twice", '00\n\n\n{"success":true,"success":false,"transaction":"' + tx + '"}')
seed("facilitator", "html", "00\n\n\n<html>502</html>")
seed("facilitator", "list", "00\n\n\n[]")
