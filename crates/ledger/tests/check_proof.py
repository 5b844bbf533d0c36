"""Checks proofs of the ledger, written from docs/ledger-format.md and not from the Rust sources.

    python3 check_proof.py [--witness KEY_HEX]... [--old CHECKPOINT_FILE] SEQUENCER_KEY_HEX PROOF_FILE...

Prints a line for each proof that holds; ends with an error at the first that does not. With witnesses a
checkpoint needs the cosignatures of 2f+1 of the 3f+1. A proof of consistency is compared with the older
checkpoint. Needs nothing but the standard library. Ed25519 follows RFC 8032, section 6, and is slow.
"""

import argparse
import base64
import hashlib

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


def root_by_sides(leaf, sides, path):
    """Bit i of `sides` says whether the i-th hash of the path stands on the left."""
    assert sides >> len(path) == 0, "more sides than hashes"
    for level, beside in enumerate(path):
        leaf = sha256(b"\x01", beside, leaf) if sides >> level & 1 else sha256(b"\x01", leaf, beside)
    return leaf


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


def consistent(old, old_root, new, new_root, path):
    """RFC 9162, section 2.1.4.2."""
    assert 0 < old <= new, "the older log is not shorter"
    if old == new:
        assert old_root == new_root and not path, "logs of one size differ"
        return
    if old & (old - 1) == 0:
        path = [old_root] + path
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    assert path, "the path is too short"
    found_old = found_new = path[0]
    for sibling in path[1:]:
        assert last > 0, "the path is too long"
        if node & 1 or node == last:
            found_old = sha256(b"\x01", sibling, found_old)
            found_new = sha256(b"\x01", sibling, found_new)
            while node & 1 == 0 and node != 0:
                node, last = node >> 1, last >> 1
        else:
            found_new = sha256(b"\x01", found_new, sibling)
        node, last = node >> 1, last >> 1
    assert last == 0, "the path is too short"
    assert (found_old, found_new) == (old_root, new_root), "the newer log does not begin with the older"


def signature_of(signatures, name, kind, key):
    """What `key` signed under `name`, without the key's id; nothing if it did not."""
    key_id = sha256(name.encode(), b"\n", kind, key)[:4]
    for line in signatures.strip("\n").split("\n"):
        dash, signer, signature = line.split(" ")
        signature = base64.b64decode(signature, validate=True)
        if (dash, signer, signature[:4]) == ("\u2014", name, key_id):
            return signature[4:]
    return None


def is_cosigned(body, signatures, witness):
    signature = signature_of(signatures, "talka/" + witness.hex()[:10], b"\x04", witness)
    if signature is None:
        return False
    seconds = int.from_bytes(signature[:8], "big")
    text = f"cosignature/v1\ntime {seconds}\n{body}"
    check_signature(witness, text.encode(), signature[8:])
    return True


def check_checkpoint(text, key, witnesses):
    """The lines of the block in a checkpoint that `key` signed, and enough of the witnesses."""
    body, signatures = text.rsplit("\n\n", 1)
    body += "\n"
    lines = body.split("\n")
    assert len(lines) == 8, "a block has seven lines"
    signature = signature_of(signatures, lines[0], b"\x01", key)
    assert signature is not None, "the sequencer did not sign"
    check_signature(key, body.encode(), signature)
    cosigned = sum(is_cosigned(body, signatures, witness) for witness in witnesses)
    quorum = len(witnesses) - len(witnesses) // 3
    assert cosigned >= quorum, f"{cosigned} of {len(witnesses)} witnesses cosigned, not {quorum}"
    return lines


def size_and_root(lines):
    return int(lines[1]), base64.b64decode(lines[2], validate=True)


def check_consistency(text, key, witnesses, older):
    head, checkpoint = text.split("\n\n", 1)
    old, *path = head.split("\n")
    path = [base64.b64decode(line, validate=True) for line in path]
    lines = check_checkpoint(checkpoint, key, witnesses)
    older = older.rsplit("\n\n", 1)[0].split("\n")
    assert older[0] == lines[0], "two networks"
    (old_size, old_root), (size, root) = size_and_root(older), size_and_root(lines)
    assert old == f"old {old_size}", "made for another checkpoint"
    consistent(old_size, old_root, size, root, path)
    return f"consistency: {size} entries begin with {old_size} under {lines[0]}"


def check_proof(text, key, witnesses=(), older=None):
    if text.startswith("old "):
        assert older is not None, "consistency with what? name the older checkpoint with --old"
        return check_consistency(text, key, witnesses, older)
    head, checkpoint = text.split("\n\n", 1)
    kind, extra, index, *path = head.split("\n")
    lines = check_checkpoint(checkpoint, key, witnesses)
    assert extra.startswith("extra ") and index.startswith("index ")
    leaf, index = sha256(b"\x00", base64.b64decode(extra[6:], validate=True)), int(index[6:])
    path = [base64.b64decode(line, validate=True) for line in path]
    if kind == "c2sp.org/tlog-proof@v1":
        size, root = lines[1], lines[2]
        found = root_of(leaf, index, int(size), path)
    else:
        assert kind == "talka/state-proof@v1", "another kind of proof"
        word, size, root = lines[4].split(" ")
        assert word == "state"
        found = root_by_sides(leaf, index, path)
    assert found == base64.b64decode(root, validate=True), "the path leads to another root"
    return f"{kind}: leaf {index} of {size} under {lines[0]}"


def read(file):
    with open(file, encoding="utf-8", newline="") as opened:
        return opened.read()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--witness", type=bytes.fromhex, action="append", default=[])
    parser.add_argument("--old", type=read)
    parser.add_argument("sequencer", type=bytes.fromhex)
    parser.add_argument("proofs", nargs="+")
    asked = parser.parse_args()
    for file in asked.proofs:
        print(check_proof(read(file), asked.sequencer, asked.witness, asked.old))
