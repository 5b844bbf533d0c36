"""BLAKE3, strict ed25519, and the trees of RFC 6962."""

import hashlib

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTE = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8


def compress(chain, block, counter, length, flags):
    """BLAKE3's compression function."""
    v = [*chain, *IV[:4], counter & 0xFFFFFFFF, counter >> 32, length, flags]
    m = [int.from_bytes(block[i : i + 4], "little") for i in range(0, 64, 4)]

    def turn(value, by):
        return (value >> by | value << (32 - by)) & 0xFFFFFFFF

    def mix(a, b, c, d, x, y):
        for word, by_d, by_b in ((x, 16, 12), (y, 8, 7)):
            v[a] = (v[a] + v[b] + word) & 0xFFFFFFFF
            v[d] = turn(v[d] ^ v[a], by_d)
            v[c] = (v[c] + v[d]) & 0xFFFFFFFF
            v[b] = turn(v[b] ^ v[c], by_b)

    for _ in range(7):
        for i in range(4):
            mix(i, 4 + i, 8 + i, 12 + i, m[2 * i], m[2 * i + 1])
        for i in range(4):
            mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[8 + 2 * i], m[9 + 2 * i])
        m = [m[i] for i in PERMUTE]
    return [v[i] ^ v[i + 8] for i in range(8)]


def blake3(data):
    def words(chain):
        return b"".join(word.to_bytes(4, "little") for word in chain)

    def chunk(number, piece, root):
        blocks = [piece[i : i + 64] for i in range(0, len(piece), 64)] or [b""]
        chain = IV
        for i, block in enumerate(blocks):
            flags = (CHUNK_START if i == 0 else 0) | ((CHUNK_END | root) if i == len(blocks) - 1 else 0)
            chain = compress(chain, block.ljust(64, b"\0"), number, len(block), flags)
        return chain

    def tree(first, piece, root):
        if len(piece) <= 1024:
            return chunk(first, piece, root)
        left = 1024
        while 2 * left < len(piece):
            left *= 2
        halves = tree(first, piece[:left], 0), tree(first + left // 1024, piece[left:], 0)
        return compress(IV, words(halves[0]) + words(halves[1]), 0, 64, PARENT | root)

    return words(tree(0, data, ROOT))


P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def add(one, other):
    (x1, y1, z1, t1), (x2, y2, z2, t2) = one, other
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(scalar, point):
    total = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point, scalar = add(point, point), scalar >> 1
    return total


def same(one, other):
    return (one[0] * other[2] - other[0] * one[2]) % P == 0 and (one[1] * other[2] - other[1] * one[2]) % P == 0


def point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        raise ValueError("not a point")
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and sign):
        raise ValueError("not a point")
    x = P - x if x % 2 != sign else x
    return (x, y, 1, x * y % P)


BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def is_signed(key, message, signature):
    """ed25519, strictly: no key or commitment of small order, no second spelling."""
    a, r = point(key), point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if s >= L or any(same(times(8, small), (0, 1, 1, 0)) for small in (a, r)):
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    return same(times(s, BASE), add(r, times(h, a)))


def leaf(data):
    return hashlib.sha256(b"\0" + data).digest()


def state_root(leaves):
    """Of keys and their leaves, in the order of the keys: the tree parts where these differ first."""
    if len(leaves) == 1:
        return leaves[0][1]
    (first, _), (last, _) = leaves[0], leaves[-1]
    at, bits = next((at, a ^ b) for at, (a, b) in enumerate(zip(first, last)) if a != b)
    bit = 1 << (bits.bit_length() - 1)
    half = next(place for place, (key, _) in enumerate(leaves) if key[at] & bit)
    return hashlib.sha256(b"\1" + state_root(leaves[:half]) + state_root(leaves[half:])).digest()
