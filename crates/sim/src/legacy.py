"""Serves a Redfish service root over HTTPS with a self-made RSA-1024 certificate, until standard input ends."""
import base64, hashlib, http.server, json, os, secrets, ssl, sys, tempfile, threading


def probably_prime(n):
    if any(n % p == 0 for p in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)):
        return False
    d, r = n - 1, 0
    while d % 2 == 0:
        d, r = d // 2, r + 1
    for _ in range(24):
        x = pow(secrets.randbelow(n - 3) + 2, d, n)
        if x in (1, n - 1):
            continue
        for _ in range(r - 1):
            x = pow(x, 2, n)
            if x == n - 1:
                break
        else:
            return False
    return True


def prime(bits):
    while True:
        n = secrets.randbits(bits) | (3 << (bits - 2)) | 1
        if n % 65537 != 1 and probably_prime(n):
            return n


def der(tag, *parts):
    body = b"".join(parts)
    length = len(body)
    if length < 128:
        head = bytes([length])
    else:
        size = (length.bit_length() + 7) // 8
        head = bytes([0x80 | size]) + length.to_bytes(size, "big")
    return bytes([tag]) + head + body


def integer(n):
    return der(0x02, n.to_bytes(n.bit_length() // 8 + 1, "big"))


def pem(label, data):
    text = base64.encodebytes(data).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n"


e, p, q = 65537, prime(512), prime(512)
n, d = p * q, pow(65537, -1, (p - 1) * (q - 1))
key = der(0x30, integer(0), integer(n), integer(e), integer(d), integer(p), integer(q),
          integer(d % (p - 1)), integer(d % (q - 1)), integer(pow(q, -1, p)))
null = b"\x05\x00"
rsa_encryption = der(0x30, bytes.fromhex("06092a864886f70d010101"), null)
sha256_with_rsa = der(0x30, bytes.fromhex("06092a864886f70d01010b"), null)
spki = der(0x30, rsa_encryption, der(0x03, b"\0", der(0x30, integer(n), integer(e))))
common_name = der(0x31, der(0x30, bytes.fromhex("0603550403"), der(0x0C, b"legacy-bmc")))
name = der(0x30, common_name)
validity = der(0x30, der(0x17, b"240101000000Z"), der(0x17, b"490101000000Z"))
address = der(0x30, bytes.fromhex("0603551d11"), der(0x04, der(0x30, der(0x87, bytes([127, 0, 0, 1])))))
extensions = der(0xA3, der(0x30, address))
to_be_signed = der(0x30, der(0xA0, integer(2)), integer(secrets.randbits(63) | 1), sha256_with_rsa,
                   name, validity, name, spki, extensions)
# EMSA-PKCS1-v1_5 (RFC 8017, section 9.2).
digest = der(0x30, der(0x30, bytes.fromhex("0609608648016503040201"), null),
             der(0x04, hashlib.sha256(to_be_signed).digest()))
padded = b"\0\1" + b"\xff" * (128 - 3 - len(digest)) + b"\0" + digest
signature = pow(int.from_bytes(padded, "big"), d, n).to_bytes(128, "big")
certificate = der(0x30, to_be_signed, sha256_with_rsa, der(0x03, b"\0", signature))

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
# OpenSSL's default security level refuses keys this short.
context.set_ciphers("DEFAULT@SECLEVEL=0")
with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, "identity.pem")
    with open(path, "w") as file:
        file.write(pem("RSA PRIVATE KEY", key) + pem("CERTIFICATE", certificate))
    context.load_cert_chain(path)


class Root(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"@odata.id": "/redfish/v1", "@odata.type": "#ServiceRoot.v1_5_0.ServiceRoot",
                           "Id": "RootService", "Name": "Root Service", "RedfishVersion": "1.6.0"}).encode()
        known = self.path.rstrip("/") == "/redfish/v1"
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if known else 0))
        self.end_headers()
        if known:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def finish_request(self, request, client):
        # The handshake belongs to the connection's own thread.
        try:
            with context.wrap_socket(request, server_side=True) as stream:
                super().finish_request(stream, client)
        except OSError:
            pass

    def handle_error(self, request, client):
        pass


server = Server(("127.0.0.1", 0), Root)
print(json.dumps({"port": server.server_address[1], "pin": "sha256:" + hashlib.sha256(spki).hexdigest(),
                  "certificate": pem("CERTIFICATE", certificate)}), flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
