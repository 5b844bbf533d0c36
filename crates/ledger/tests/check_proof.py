"""Checks proofs of the ledger, written from docs/ledger-format.md and not from the Rust sources.

    python3 check_proof.py SEQUENCER_KEY_HEX PROOF_FILE...

Prints a line for each proof that holds; ends with an error at the first that does not. Needs nothing
but the standard library. Ed25519 follows RFC 8032, section 6, and is slow.
"""

import base64
import hashlib
import sys

P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def add(a, b):
    x = (a[1] - a[0]) * (b[1] - b[0]) % P
    y = (a[1] + a[0]) * (b[1] + b[0]) % P
    z = 2 * a[3] * b[3] * D % P
    w = 2 * a[2] * b[2] % P
    e, f, g, h = y - x, w - z, w + z, y + x
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(factor, point):
    total = (0, 1, 1, 0)
    while factor > 0:
        if factor & 1:
            total = add(total, point)
        point = add(point, point)
        factor >>= 1
    return total


def same(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    assert y < P, "a point is not canonical"
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P != 0:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert (x * x - square) % P == 0 and (x != 0 or sign == 0), "no point of the curve"
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def check_signature(key, message, signature):
    assert len(signature) == 64, "a signature has 64 bytes"
    public, nonce = point(key), point(signature[:32])
    response = int.from_bytes(signature[32:], "little")
    assert response < Q, "a signature is not canonical"
    digest = hashlib.sha512(signature[:32] + key + message).digest()
    challenge = int.from_bytes(digest, "little") % Q
    assert same(times(response, BASE), add(nonce, times(challenge, public))), "no valid signature"


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def root_of(leaf, index, size, path):
    """RFC 9162, section 2.1.3.2."""
    assert index < size, "no such leaf"
    node, last, found = index, size - 1, leaf
    for sibling in path:
        assert last > 0, "the path is too long"
        if node & 1 or node == last:
            found = sha256(b"\x01", sibling, found)
            while node & 1 == 0 and node != 0:
                node, last = node >> 1, last >> 1
        else:
            found = sha256(b"\x01", found, sibling)
        node, last = node >> 1, last >> 1
    assert last == 0, "the path is too short"
    return found


def check_checkpoint(text, key):
    """The lines of the block in a checkpoint that `key` signed."""
    body, signatures = text.rsplit("\n\n", 1)
    body += "\n"
    lines = body.split("\n")
    assert len(lines) == 8, "a block has seven lines"
    name = lines[0]
    key_id = sha256(name.encode(), b"\n\x01", key)[:4]
    for line in signatures.strip("\n").split("\n"):
        dash, signer, signature = line.split(" ")
        signature = base64.b64decode(signature, validate=True)
        if (dash, signer, signature[:4]) == ("\u2014", name, key_id):
            check_signature(key, body.encode(), signature[4:])
            return lines
    raise AssertionError("the sequencer did not sign")


def check_proof(text, key):
    head, checkpoint = text.split("\n\n", 1)
    kind, extra, index, *path = head.split("\n")
    lines = check_checkpoint(checkpoint, key)
    if kind == "c2sp.org/tlog-proof@v1":
        size, root = lines[1], lines[2]
    else:
        assert kind == "talka/state-proof@v1", "another kind of proof"
        word, size, root = lines[4].split(" ")
        assert word == "state"
    assert extra.startswith("extra ") and index.startswith("index ")
    leaf = sha256(b"\x00", base64.b64decode(extra[6:], validate=True))
    path = [base64.b64decode(line, validate=True) for line in path]
    found = root_of(leaf, int(index[6:]), int(size), path)
    assert found == base64.b64decode(root, validate=True), "the path leads to another root"
    return f"{kind}: leaf {index[6:]} of {size} under {lines[0]}"


if __name__ == "__main__":
    for file in sys.argv[2:]:
        with open(file, encoding="utf-8", newline="") as opened:
            print(check_proof(opened.read(), bytes.fromhex(sys.argv[1])))
