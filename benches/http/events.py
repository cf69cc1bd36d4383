"""An origin that answers with one event at once and the end of the stream a moment later."""

import socketserver
import sys
import time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"data: tick\n\n"


class Stream(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        while self.rfile.readline().strip():
            while self.rfile.readline().strip():
                pass
            self.wfile.write(HEAD + b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
            time.sleep(0.005)
            self.wfile.write(b"0\r\n\r\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("127.0.0.1", int(sys.argv[1])), Stream).serve_forever()
