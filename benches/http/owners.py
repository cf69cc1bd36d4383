"""Whose code is a function? By its name, and for C by the file that it was compiled from."""

import functools
import re
import subprocess

# What others are built of: such a function belongs to whoever is named in its type parameters.
LIBRARY = {"core", "alloc", "std", "hashbrown", "futures_util", "futures_core", "once_cell", "compiler_builtins"}
NAMED = {
    "tokio": ("tokio", "tokio_util", "tokio_rustls", "mio", "parking_lot", "parking_lot_core", "lock_api"),
    "HTTP packages (http, httparse, hyper, reqwest)": ("http", "httparse", "http_body", "hyper", "hyper_util", "reqwest",
                                                       "h2", "tower", "tower_http", "url", "headers"),
    "JSON and base64": ("serde", "serde_json", "serde_core", "base64", "itoa", "ryu", "memchr"),
    "hashing (SHA-256, Keccak)": ("sha2", "sha3", "keccak", "tiny_keccak", "digest", "alloy_primitives", "block_buffer"),
    "secp256k1": ("secp256k1", "secp256k1_sys"),
    "SQLite": ("rusqlite", "libsqlite3_sys"),
    "logging": ("tracing", "tracing_core", "tracing_subscriber", "log"),
    "metrics": ("prometheus",),
    "matching and caches": ("matchit", "moka", "dashmap", "governor", "arc_swap", "icu_normalizer"),
    "bytes": ("bytes",),
    "allocator": ("mimalloc", "libmimalloc_sys"),
}
CRATES = {crate: name for name, crates in NAMED.items() for crate in crates}
C_NAMES = [
    (r"(rust)?secp256k1", "secp256k1"),
    (r"sqlite3", "SQLite"),
    (r"_?_?mi_", "allocator"),
    (r"(ring_core|bn_|ecp_|aes|sha\d|ChaCha)", "TLS"),
    (r"(zng_|deflate|inflate)", "compression"),
]
C_FILES = [("sqlite3", "SQLite"), ("secp256k1", "secp256k1"), ("precomputed", "secp256k1"), ("static.c", "allocator"),
           ("alloc", "allocator")]


@functools.cache
def _c_files(program):
    """Local functions of C by name: the symbol table lists them after the file that they are of."""
    table = subprocess.run(["readelf", "-sW", program], capture_output=True, text=True, check=True).stdout
    files, current = {}, ""
    for line in table.splitlines():
        words = line.split()
        if len(words) < 8 or words[4] != "LOCAL":
            continue
        if words[3] == "FILE":
            current = words[7]
        elif words[3] == "FUNC" and not words[7].startswith(("_ZN", "_R")):
            files[words[7]] = current
    return files


def plain(symbol):
    """Without the hash and the offset that compilers and tools add."""
    return re.sub(r"(::h[0-9a-f]{16})?(\+0x[0-9a-f]+)?('\d+)?$", "", symbol)


def owner(symbol, place, program):
    """`place` is the program or library that it is in."""
    if place.startswith("[") or "vdso" in place or "vmlinux" in place:
        return "the clock (vdso)" if "vdso" in place else "kernel"
    if re.search(r"lib(c|m|pthread)[.-]", place):
        return "C library (memcpy and its like)"
    crates = re.findall(r"(?<![\w:])([a-z_][a-z0-9_]*)::(\w+)", symbol)
    # The type comes before the trait; what a library's function works on says more than the library.
    named = [(crate, module) for crate, module in crates if crate not in LIBRARY]
    if named:
        crate, module = named[0]
        if crate == "farewall":
            return f"wall: {module}"
        return "pingora" if crate.startswith("pingora") else CRATES.get(crate, "other packages")
    if crates or "<" in symbol:
        return "Rust's library"
    file = _c_files(program).get(symbol, "")
    for start, name in C_FILES:
        if start in file:
            return name
    for pattern, name in C_NAMES:
        if re.match(pattern, symbol):
            return name
    if symbol in ("memcpy", "memmove", "memset", "memcmp", "bcmp"):
        return "C library (memcpy and its like)"
    return "not known by name"
