"""The wall, what it is compared with, and what stands behind them. Everything on loopback."""

import http.client
import os
import pathlib
import re
import shutil
import time

from machine import Failed, Process, free_port

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
LARGE = 100 * 1024

# Where a program comes from when it is missing.
PACKAGES = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "wrk": "wrk",
    "node": "nodejs",
    "npm": "npm",
}


class Built:
    """Where our own programs are."""

    profile = "dist"

    @classmethod
    def file(cls, name):
        return TARGET / ("debug" if cls.profile == "dev" else cls.profile) / name


def program(name):
    """Its path; None when it is not installed."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")


def fetch(port, path):
    """Status, headers and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": "bench.example"})
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()


class Server(Process):
    """A process with a port."""

    def __init__(self, name, argv, core, folder, port, **options):
        super().__init__(name, argv, core, folder, **options)
        self.port = port
        self.await_port(port)


def nginx(name, core, folder, workers, inside):
    """nginx with these directives inside `http`; PORT in them is replaced."""
    port = free_port()
    home = pathlib.Path(folder) / name
    home.mkdir(exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""
    conf = f"""
{user}
daemon off;
worker_processes {workers};
pid {home}/pid;
error_log {home}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nodelay on;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
{inside.replace("PORT", str(port))}
}}
"""
    file = home / "nginx.conf"
    file.write_text(conf)
    argv = [program("nginx"), "-e", home / "error.log", "-p", home, "-c", file]
    return Server(name, argv, core, folder, port)


def origin(core, folder):
    """The API behind everybody: 3 bytes, or 100 KiB from a file. `tcp_nopush` would stall large answers."""
    files = pathlib.Path(folder) / "files"
    files.mkdir(exist_ok=True)
    (files / "100k").write_bytes(b"x" * LARGE)
    inside = f"""
  server {{
    listen 127.0.0.1:PORT reuseport;
    location / {{ default_type text/plain; return 200 "ok\\n"; }}
    location = /100k {{ default_type text/plain; root {files}; }}
  }}"""
    return nginx("origin", core, folder, 1, inside)


def nginx_proxy(core, folder, workers, upstream):
    inside = f"""
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:PORT reuseport;
    location / {{
      proxy_pass http://api;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
    }}
  }}"""
    return nginx("nginx", core, folder, workers, inside)


def nginx_402(core, folder, workers, answer):
    """nginx `return 402` with the headers and the body that the wall sent. Some names are nginx's own."""
    status, headers, body = answer
    if status != 402 or b"'" in body or b"$" in body:
        raise Failed(f"this is no challenge that nginx can imitate: {status}, {body[:80]}")
    own = ("date", "server", "content-length", "content-type", "connection", "keep-alive")
    lines = [f"    add_header {name} '{value}' always;" for name, value in headers if name.lower() not in own]
    kind = dict((name.lower(), value) for name, value in headers).get("content-type", "application/json")
    inside = f"""
  server_tokens off;
  server {{
    listen 127.0.0.1:PORT reuseport;
    default_type {kind};
{chr(10).join(lines)}
    location / {{ return 402 '{body.decode()}'; }}
  }}"""
    return nginx("nginx-402", core, folder, workers, inside)


def haproxy(core, folder, threads, upstream):
    port = free_port()
    conf = pathlib.Path(folder) / "haproxy.cfg"
    conf.write_text(f"""
global
  nbthread {threads}
  maxconn 4096
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend wall
  bind 127.0.0.1:{port}
  default_backend api
backend api
  server origin 127.0.0.1:{upstream} maxconn 1024
""")
    return Server("haproxy", [program("haproxy"), "-db", "-f", conf], core, folder, port)


def bare(core, folder, threads, upstream, work_stealing):
    port = free_port()
    argv = [Built.file("examples/bare_proxy"), "--listen", f"127.0.0.1:{port}", "--threads", threads]
    argv += ["--upstream", f"127.0.0.1:{upstream}", "--work-stealing", str(work_stealing).lower()]
    return Server("bare pingora", argv, core, folder, port)


def sandbox(core, folder, settle_delay_ms=0, nice=0):
    port = free_port()
    argv = ["nice", "-n", nice, Built.file("farewall"), "sandbox", "--listen", f"127.0.0.1:{port}", "--balance", 100000000]
    return Server("sandbox", argv + ["--settle-delay-ms", settle_delay_ms], core, folder, port)


def events(core, folder):
    """An origin that streams events."""
    port = free_port()
    return Server("events", ["python3", HERE / "events.py", port], core, folder, port)


def seller(core, folder, upstream, facilitator):
    """The official seller for Express, in front of the same origin."""
    port = free_port()
    argv = [program("node"), HERE / "seller.mjs", port, upstream, facilitator]
    return Server("express", argv, core, folder, port, env={**os.environ, "NODE_ENV": "production"})


class Wall(Server):
    """The wall with prices for everything under /paid, and `extra_rules` more; started by `under`, if given."""

    def __init__(self, core, folder, origin, facilitator, workers=1, work_stealing=True, events=None,
                 extra_rules=0, name="wall", under=()):
        port, self.admin = free_port(), free_port()
        home = pathlib.Path(folder) / f"{name}-{port}"
        home.mkdir()
        conf = home / "farewall.toml"
        conf.write_text(_settings(port, self.admin, origin, facilitator, workers, work_stealing, events,
                                  extra_rules))
        # No line for each request, as with nginx and haproxy.
        quiet = {**os.environ, "RUST_LOG": "warn"}
        argv = [*under, Built.file("farewall"), "run", "--config", conf]
        super().__init__(name, argv, core, folder, port, env=quiet)
        self.ready_after_s = self.await_ready()

    def await_ready(self, seconds=30):
        """How long the start took, until readiness was told."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if fetch(self.admin, "/readyz")[0] == 200:
                    return time.monotonic() - self.started
            except OSError:
                pass
            time.sleep(0.002)
        raise Failed(f"the wall is not ready: {self.last_words()}")

    def metric(self, name):
        text = fetch(self.admin, "/metrics")[2].decode()
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        if found is None:
            raise Failed(f"the wall has no metric {name}")
        return float(found[1])


def _settings(port, admin, origin, facilitator, workers, work_stealing, events, extra_rules):
    more = "".join(
        f'[[rule]]\nname = "r{n}"\nmethods = ["GET"]\npath = "/v1/r{n}/{{id}}"\nprice = "$0.001"\nupstream = "api"\n'
        for n in range(extra_rules)
    )
    if events is not None:
        more += f"""
[upstream.events]
url = "http://127.0.0.1:{events}"
[[rule]]
name = "events"
path = "/events"
upstream = "events"
free = true
[[rule]]
name = "paid-events"
path = "/paid-events"
upstream = "events"
price = "$0.001"
"""
    return f"""
[server]
public_origin = "http://bench.example"
admin = "127.0.0.1:{admin}"
worker_threads = {workers}
work_stealing = {str(work_stealing).lower()}
[[listen]]
address = "127.0.0.1:{port}"
[limits]
connections_max = 20000
connections_per_client_max = 20000
idle_timeout_ms = 600000
unverified_proofs_max = 8192
unverified_proofs_per_client_max = 8192
verify_calls_per_minute_per_client = 1000000000
verify_calls_per_minute_per_payer = 1000000000
refused_proofs_per_minute_per_client = 1000000000
[ledger]
path = "ledger.db"
[facilitator.sandbox]
url = "http://127.0.0.1:{facilitator}"
sandbox = true
calls_max = 2048
[accept.base-sepolia]
network = "base-sepolia"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
max_timeout_s = 3600
[upstream.api]
url = "http://127.0.0.1:{origin}"
[[rule]]
name = "free"
path = "/tiny"
upstream = "api"
free = true
[[rule]]
name = "large"
path = "/100k"
upstream = "api"
free = true
[[rule]]
name = "paid"
methods = ["GET"]
path = "/paid"
upstream = "api"
price = "$0.001"
[[rule]]
name = "shadow"
methods = ["GET"]
path = "/shadow"
upstream = "api"
price = "$0.001"
shadow = true
[[rule]]
name = "glob"
methods = ["GET"]
path = "/glob/{{*rest}}"
upstream = "api"
price = "$0.001"
{more}"""
