"""Replays a ledger from docs/ledger-format.md alone, and prints what it amounts to.

In: signed entries from the founding on, one a line, in hexadecimal. Out: hash of the last entry and state root. Whatever
does not follow ends it with an error. Needs nothing but Python's own library; written to be read beside the document,
not to be fast. It leaves out ratings and judgements, which economy.md specifies: all nodes count alike here.
"""

import hashlib
import sys
from collections import namedtuple

# --- Conventions: encodings, as schemas of the types --------------------------------------------------------------------


class Codec:
    """Reads and writes postcard by a schema: `uint`, `int`, `bool`, `str`, `bytes N`, list, tuple, option, map, struct, enum."""

    def __init__(self, data=b""):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        if self.at > len(self.data):
            raise ValueError("truncated")
        return self.data[self.at - count : self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def read(self, schema):
        kind = schema[0]
        if kind == "uint":
            return self.varint()
        if kind == "int":
            value = self.varint()
            return value >> 1 if value % 2 == 0 else -(value >> 1) - 1
        if kind == "bool":
            return self.take(1) == b"\x01"
        if kind == "str":
            return self.take(self.varint()).decode()
        if kind == "bytes":
            return self.take(schema[1])
        if kind == "list":
            return [self.read(schema[1]) for _ in range(self.varint())]
        if kind == "tuple":
            return tuple(self.read(part) for part in schema[1:])
        if kind == "option":
            return self.read(schema[1]) if self.take(1) == b"\x01" else None
        if kind == "struct":
            return schema[1](*(self.read(part) for part in schema[2]))
        if kind == "enum":
            variant = self.varint()
            return (variant, self.read(schema[1][variant]))
        raise TypeError(kind)


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write(schema, value):
    kind = schema[0]
    if kind == "uint":
        return varint(value)
    if kind == "int":
        return varint(2 * value if value >= 0 else -2 * value - 1)
    if kind == "bool":
        return bytes([value])
    if kind == "str":
        return varint(len(value.encode())) + value.encode()
    if kind == "bytes":
        return value
    if kind == "list":
        return varint(len(value)) + b"".join(write(schema[1], item) for item in value)
    if kind == "tuple":
        return b"".join(write(part, item) for part, item in zip(schema[1:], value, strict=True))
    if kind == "option":
        return b"\x00" if value is None else b"\x01" + write(schema[1], value)
    if kind == "struct":
        return b"".join(write(part, item) for part, item in zip(schema[2], value, strict=True))
    if kind == "enum":
        return varint(value[0]) + write(schema[1][value[0]], value[1])
    raise TypeError(kind)


UINT, INT, BOOL, STR, NOTHING = ("uint",), ("int",), ("bool",), ("str",), ("tuple",)
ID, REQUEST = ("bytes", 32), ("bytes", 16)


def struct(title, /, **fields):
    return ("struct", namedtuple(title, fields), tuple(fields.values()))


def make(schema, *values):
    return schema[1](*values)


def signed(schema):
    return struct("Signed", value=schema, signer=ID, signature=("bytes", 64))


def listed(schema):
    return ("list", schema)


def option(schema):
    return ("option", schema)


FACTORS = ("tuple", UINT, UINT, UINT, UINT)
POLICY = struct("Policy", version=UINT, grant=UINT, reservation_ms_max=UINT, factors=FACTORS)
FOUNDING = struct("Founding", name=STR, founder=ID, founder_name=STR, policy=POLICY, nonce=REQUEST)
MEMBERSHIP = struct("Membership", network=ID, node=ID, member=ID, name=STR, invited_by=ID, issued_at=UINT)
SHAPE = struct(
    "Shape",
    layers=UINT, hidden=UINT, heads=UINT, kv_heads=UINT, head_dim=UINT, ffn=UINT, vocab=UINT, context=UINT,
    precision=("enum", [NOTHING] * 4),
)  # fmt: skip
RESERVATION = struct(
    "Reservation",
    network=ID, request=REQUEST, payer=ID, head=ID, model=ID, shape=SHAPE, prompt=UINT, new=UINT, at=UINT,
)  # fmt: skip
RECEIPT = struct(
    "Receipt",
    network=ID, request=REQUEST, lane=UINT, node=ID, model=ID, span=("tuple", UINT, UINT),
    start=UINT, positions=UINT, logits=UINT,
)  # fmt: skip
VOUCHER = struct(
    "Voucher",
    network=ID, session=REQUEST, lane=UINT, worker=ID, seq=UINT, amount=UINT, tokens_in=UINT, tokens_out=UINT,
    model=ID, route_root=ID, commitment_root=ID, previous=ID,
)  # fmt: skip
SETTLEMENT = struct(
    "Settlement",
    network=ID, request=REQUEST, positions=UINT, logits=UINT,
    receipts=listed(signed(RECEIPT)), vouchers=listed(signed(VOUCHER)),
)  # fmt: skip
CANCELLATION = struct("Cancellation", network=ID, request=REQUEST, node=ID)
TARIFF = ("enum", [("tuple", SHAPE, UINT), UINT])
FORWARDING = struct(
    "Forwarding",
    network=ID, request=REQUEST, payer=ID, head=ID, tariff=TARIFF, prompt=UINT, new=UINT, at=UINT,
)  # fmt: skip
DELIVERY = struct("Delivery", network=ID, request=REQUEST, prompt=UINT, new=UINT)
APPOINTMENT = struct("Appointment", network=ID, witnesses=listed(ID))
REMOVAL = struct("Removal", network=ID, node=ID, by=ID)
SESSION = struct("Session", request=REQUEST, cost=UINT, settled=BOOL, lanes=listed(("tuple", UINT, option(UINT))))
EPOCH = struct(
    "Epoch",
    number=UINT, papers=UINT, evidence=ID, sessions=listed(SESSION), earned=listed(("tuple", ID, UINT, UINT)),
)  # fmt: skip
PAPERS = {
    "membership": (1, MEMBERSHIP),
    "reservation": (1, RESERVATION),
    "settlement": (2, SETTLEMENT),
    "receipt": (2, RECEIPT),
    "cancellation": (1, CANCELLATION),
    "forwarding": (1, FORWARDING),
    "delivery": (1, DELIVERY),
    "appointment of witnesses": (1, APPOINTMENT),
    "removal": (1, REMOVAL),
    "voucher": (1, VOUCHER),
}
FOUNDED, JOINED, RESERVED, SETTLED, RELEASED, FORWARDED, DELIVERED, APPOINTED, REMOVED = range(9)
RATED, JUDGED, CLAIMED, EPOCHED = range(9, 13)
EVENT = (
    "enum",
    [
        FOUNDING,
        signed(MEMBERSHIP),
        signed(RESERVATION),
        signed(SETTLEMENT),
        ("tuple", REQUEST, ("enum", [signed(CANCELLATION), NOTHING])),
        signed(FORWARDING),
        signed(DELIVERY),
        signed(APPOINTMENT),
        signed(REMOVAL),
        None,
        None,
        signed(VOUCHER),
        EPOCH,
    ],
)
MEMBER_, MINT, BURN, TREASURY = range(4)
SPENDABLE, RESERVED_, HELD, STAKE = range(4)
ACCOUNT = ("enum", [("tuple", ID, ("enum", [NOTHING] * 4)), NOTHING, NOTHING, NOTHING])
POSTINGS = listed(("tuple", ACCOUNT, INT))
ENTRY = struct(
    "Entry",
    height=UINT, previous=ID, at=UINT, event_id=ID, author=ID, event=EVENT, evidence=ID, postings=POSTINGS,
)  # fmt: skip
ENTRY_VERSION, EVENT_VERSION, RECORD_VERSION, FOUNDING_VERSION = 3, 2, 2, 1
ZEROS = bytes(32)
U64 = 2**64 - 1


def account(member, bucket):
    return (MEMBER_, (member, (bucket, ())))


# --- Hashes and signatures ----------------------------------------------------------------------------------------------

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


def root(leaves):
    """RFC 6962, section 2.1."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else hashlib.sha256().digest()
    left = 1
    while 2 * left < len(leaves):
        left *= 2
    return hashlib.sha256(b"\1" + root(leaves[:left]) + root(leaves[left:])).digest()


# --- The ledger ---------------------------------------------------------------------------------------------------------

MARK = struct("Mark", height=UINT, at=UINT, event=ID)
CLAIM = struct("Claim", worker=ID, member=ID, amount=UINT, mark=MARK)
PAID = ("enum", [NOTHING, UINT, MARK])
BY_RECEIPT, BY_VOUCHER, BY_PROOF = range(3)
MEMBER = struct(
    "Member",
    name=STR, nodes=listed(ID), joined_height=UINT, joined_at=UINT, granted=UINT, spent=UINT, earned=UINT, work=UINT,
    requests=UINT, fined=UINT, rewarded=UINT,
)  # fmt: skip
NODE = struct("Node", member=ID, name=STR, joined_height=UINT)
OPEN = struct(
    "Open",
    reservation=RESERVATION, cap=UINT, claims=listed(("tuple", UINT, CLAIM)), height=UINT, at=UINT,
)  # fmt: skip
OUTSIDE = struct("Outside", forwarding=FORWARDING, cap=UINT, height=UINT, at=UINT)
CLOSED = struct(
    "Closed",
    payer=ID, head=ID, model=ID, signed=BOOL, left=UINT, lanes=listed(("tuple", UINT, PAID)),
)  # fmt: skip
# Outcomes of tasks, one bit each; how many; how consistent.
TASKS = struct("Tasks", outcomes=UINT, assigned=UINT, consistency=UINT)
TASKS_MAX = 100
STANDING = struct(
    "Standing",
    ratings=UINT, last_rating=option(MARK), judgements=UINT, last_judgement=option(MARK), rated=option(NOTHING),
    quarantine=option(NOTHING), changes=UINT, tasks=TASKS, halt=option(NOTHING),
)  # fmt: skip
RECORD = (
    "enum",
    [
        ("tuple", ID, STR, ID, UINT, ID, UINT),
        POLICY,
        ("tuple", ACCOUNT, INT),
        ("tuple", ID, MEMBER),
        ("tuple", ID, NODE),
        OPEN,
        OUTSIDE,
        ("tuple", REQUEST, MARK, option(MARK)),
        ("tuple", listed(ID), UINT),
        ("tuple", ID, ID, UINT),
        ("tuple", ID, STANDING),
        ("tuple", UINT, REQUEST, CLOSED),
        ("tuple", UINT, option(MARK)),
    ],
)


def require(holds, what):
    if not holds:
        raise ValueError(what)


def verify(name, paper, signer):
    version, schema = PAPERS[name]
    message = b"talka/" + name.encode() + b"\0" + bytes([version]) + write(schema, paper.value)
    require(paper.signer == signer and is_signed(signer, message, paper.signature), f"{name} is not signed")
    return paper.value


def flops(shape, span, start, end, logits):
    layer = 2 * shape.hidden * shape.head_dim * (shape.heads + shape.kv_heads) + 3 * shape.hidden * shape.ffn
    layer = min(layer, U64)
    pairs = (end - start) * (start + end + 1) // 2
    total = 2 * layer * (end - start) + 4 * shape.heads * shape.head_dim * pairs
    head = 2 * shape.hidden * shape.vocab * logits if span[1] == shape.layers else 0
    return min(total * (span[1] - span[0]) + head, U64)


class Ledger:
    def __init__(self, founding):
        self.founding, self.policy = founding, founding.policy
        self.network = blake3(bytes([FOUNDING_VERSION]) + write(FOUNDING, founding))
        self.head, self.entries, self.at = ZEROS, 0, 0
        self.balances, self.members, self.nodes = {}, {}, {}
        self.open, self.outside, self.requests, self.closed = {}, {}, {}, {}
        self.epochs, self.last_epoch, self.witnesses = 0, None, None
        self.removed, self.standings = {}, {}

    def apply(self, line):
        codec = Codec(line)
        require(codec.take(1) == bytes([ENTRY_VERSION]), "version")
        signed_entry = codec.read(signed(ENTRY))
        require(write(signed(ENTRY), signed_entry) == line[1:], "not canonical")
        entry = signed_entry.value
        body = bytes([ENTRY_VERSION]) + write(ENTRY, entry)
        founder = self.founding.founder
        require(signed_entry.signer == founder, "not the sequencer's")
        require(is_signed(founder, b"talka/ledger entry\0" + body, signed_entry.signature), "entry is not signed")
        require((entry.height, entry.previous) == (self.entries, self.head) and entry.at >= self.at, "place")
        event_id = blake3(bytes([EVENT_VERSION]) + write(EVENT, entry.event))
        self.mark = make(MARK, self.entries, entry.at, event_id)
        self.postings, self.author, self.evidence = [], founder, ZEROS
        self.event(*entry.event)
        require((entry.event_id, entry.author, entry.evidence) == (event_id, self.author, self.evidence), "fields")
        require(entry.postings == self.postings and sum(amount for _, amount in self.postings) == 0, "postings")
        for holder, amount in self.postings:
            self.balances[holder] = self.balances.get(holder, 0) + amount
        require(all(amount >= 0 or holder == (MINT, ()) for holder, amount in self.balances.items()), "overdrawn")
        limit = self.policy.reservation_ms_max
        self.closed = {key: closed for key, closed in self.closed.items() if key[0] + limit > entry.at}
        self.entries, self.head, self.at = self.entries + 1, blake3(body), entry.at

    def post(self, holder, amount):
        if amount:
            self.postings.append((holder, amount))

    def event(self, kind, event):
        require((kind == FOUNDED) == (self.entries == 0), "a founding comes first, and once")
        if kind == FOUNDED:
            self.join(event.founder, event.founder, event.founder_name, self.policy.grant)
        elif kind == JOINED:
            self.joined(verify("membership", event, event.value.invited_by))
        elif kind in (RESERVED, FORWARDED):
            self.begin(kind, event)
        elif kind == SETTLED:
            self.settled(event)
        elif kind == RELEASED:
            self.released(*event)
        elif kind == DELIVERED:
            self.delivered(event)
        elif kind == APPOINTED:
            paper = verify("appointment of witnesses", event, self.founding.founder)
            self.witnesses = (sorted(paper.witnesses), self.entries) if paper.witnesses else None
        elif kind == REMOVED:
            self.remove(verify("removal", event, event.value.by))
        elif kind == CLAIMED:
            self.claimed(event)
        elif kind == EPOCHED:
            self.epoch(event)
        else:
            raise ValueError("ratings and judgements are left out")

    def owner(self, node):
        require(node in self.nodes, "not a member's node")
        return self.nodes[node].member

    def change(self, member, **by):
        record = self.members[member]
        self.members[member] = record._replace(**{field: getattr(record, field) + add for field, add in by.items()})

    def join(self, node, member, name, grant):
        self.post((MINT, ()), -grant)
        self.post(account(member, SPENDABLE), grant)
        if member not in self.members:
            self.members[member] = make(MEMBER, name, [], self.entries, self.mark.at, grant, 0, 0, 0, 0, 0, 0)
        nodes = sorted([*self.members[member].nodes, node])
        self.members[member] = self.members[member]._replace(nodes=nodes)
        self.nodes[node] = make(NODE, member, name, self.entries)

    def joined(self, paper):
        self.author = paper.invited_by
        inviting = self.owner(paper.invited_by)
        require(paper.network == self.network and paper.node not in self.nodes, "membership")
        is_new = paper.member not in self.members
        require(paper.member == paper.node if is_new else paper.member == inviting, "a foreign account")
        self.join(paper.node, paper.member, paper.name, self.policy.grant if is_new else 0)

    def remove(self, paper):
        self.author = paper.by
        require(paper.network == self.network and paper.node != self.founding.founder, "removal")
        owner = self.owner(paper.node)
        require(paper.by == self.founding.founder or self.owner(paper.by) == owner, "removal")
        nodes = [node for node in self.members[owner].nodes if node != paper.node]
        self.members[owner] = self.members[owner]._replace(nodes=nodes)
        del self.nodes[paper.node]
        self.standings.pop(paper.node, None)
        self.removed[paper.node] = (owner, self.entries)

    def worker(self, node, begun):
        """Whose node it was when the request was reserved."""
        owner, height = self.removed.get(node, (None, -1))
        return owner if height > begun else self.owner(node)

    def completed(self, node, payer):
        if node not in self.nodes or self.nodes[node].member == payer:
            return
        start = make(STANDING, 0, None, 0, None, None, None, 0, make(TASKS, 0, 0, 10_000), None)
        standing = self.standings.get(node, start)
        tasks = standing.tasks
        outcomes = (tasks.outcomes << 1 | 1) % 2**TASKS_MAX
        tasks = tasks._replace(outcomes=outcomes, assigned=min(tasks.assigned + 1, TASKS_MAX))
        self.standings[node] = standing._replace(tasks=tasks)

    def price(self, shape, positions, logits):
        work = flops(shape, (0, shape.layers), 0, positions, logits)
        return min(-(-work * self.policy.factors[shape.precision[0]] // 1_000_000), U64)

    def tariff(self, tariff, prompt, new):
        kind, terms = tariff
        if kind == 0:
            shape, per_mille = terms
            require(per_mille > 1000, "too cheap")
            return min(-(-self.price(shape, prompt + new, new) * per_mille // 1000), U64)
        return min(-(-terms * (prompt + new) // 1000), U64)

    def begin(self, kind, event):
        paper = verify("reservation" if kind == RESERVED else "forwarding", event, event.value.head)
        self.author = paper.head
        require(paper.network == self.network and paper.request not in self.requests, "reservation")
        require(self.owner(paper.head) == paper.payer and paper.prompt > 0, "reservation")
        if kind == RESERVED:
            cap = self.price(paper.shape, paper.prompt + paper.new, paper.new)
            self.open[paper.request] = make(OPEN, paper, cap, [], self.entries, self.mark.at)
        else:
            cap = self.tariff(paper.tariff, paper.prompt, paper.new)
            self.outside[paper.request] = make(OUTSIDE, paper, cap, self.entries, self.mark.at)
        self.post(account(paper.payer, SPENDABLE), -cap)
        self.post(account(paper.payer, RESERVED_), cap)
        self.requests[paper.request] = (self.mark, None)

    def close(self, request, cost, lanes, is_signed):
        """Ends a request; says who paid it and what was set aside."""
        if request in self.open:
            session = self.open.pop(request)
            paper, left = session.reservation, session.cap - cost
            closed = make(CLOSED, paper.payer, paper.head, paper.model, is_signed, left, sorted(lanes.items()))
            self.closed[(self.mark.at, request)] = closed
        else:
            session = self.outside.pop(request)
            paper = session.forwarding
        require(cost <= session.cap, "beyond the cap")
        self.requests[request] = (self.requests[request][0], self.mark)
        self.change(paper.payer, spent=cost)
        return paper.payer, session.cap

    def pay(self, request, earned, lanes, is_signed, settled):
        cost = sum(credits for credits, _ in earned.values())
        payer, cap = self.close(request, cost, lanes, is_signed)
        self.change(payer, requests=int(settled))
        self.post(account(payer, RESERVED_), -cap)
        self.post(account(payer, SPENDABLE), cap - cost)
        self.earn(earned)

    def earn(self, earned):
        for member, (credits, work) in sorted(earned.items()):
            self.post(account(member, SPENDABLE), credits)
            self.change(member, earned=credits, work=work)

    def by_vouchers(self, owed):
        """What each member earns on lanes without a receipt, and how those were paid."""
        earned = {}
        for _, member, amount in owed.values():
            credits, work = earned.get(member, (0, 0))
            earned[member] = (credits + amount, work)
        return earned, {lane: (BY_VOUCHER, amount) for lane, (_, _, amount) in owed.items()}

    def notes(self, session):
        return {lane: (claim.worker, claim.member, claim.amount) for lane, claim in session.claims}

    def settled(self, event):
        request = event.value.request
        require(request in self.open, "not open")
        session = self.open[request]
        reserved = session.reservation
        paper = verify("settlement", event, reserved.head)
        self.author = reserved.head
        require(paper.network == self.network and (paper.receipts or paper.vouchers), "settlement")
        owed, last = self.notes(session), -1
        for voucher in paper.vouchers:
            voucher = self.voucher(voucher, reserved.head, reserved.model)
            require(voucher.session == request and voucher.lane > last, "lanes")
            last = voucher.lane
            worker, member, amount = owed.get(last, (voucher.worker, self.worker(voucher.worker, session.height), 0))
            require(worker == voucher.worker, "worker")
            owed[last] = (worker, member, max(amount, voucher.amount))
        lanes = [receipt.value.lane for receipt in paper.receipts]
        require(len(set(lanes)) == len(lanes), "lanes")
        earned, paid = self.by_vouchers({lane: to for lane, to in owed.items() if lane not in lanes})
        carried = sum(credits for credits, _ in earned.values())
        require(carried <= session.cap, "beyond the cap")
        if paper.receipts:
            require(1 <= paper.positions <= reserved.prompt + reserved.new and paper.logits <= reserved.new, "work")
            rest = max(self.price(reserved.shape, paper.positions, paper.logits) - carried, 0)
            work = self.work(reserved, paper, session.height)
            for member, (credits, work) in self.shares(rest, work).items():
                before = earned.get(member, (0, 0))
                earned[member] = (before[0] + credits, before[1] + work)
            paid |= {lane: (BY_RECEIPT, ()) for lane in lanes}
        else:
            require(paper.positions == paper.logits == 0, "work")
        self.pay(request, earned, paid, True, True)
        for node in {receipt.value.node for receipt in paper.receipts}:
            self.completed(node, reserved.payer)

    def work(self, reserved, paper, begun):
        work, layer = {}, 0
        for receipt in paper.receipts:
            receipt = verify("receipt", receipt, receipt.value.node)
            ends = receipt.span[1] == reserved.shape.layers
            expected = (self.network, reserved.request, reserved.model, paper.positions, paper.logits if ends else 0)
            found = (receipt.network, receipt.request, receipt.model, receipt.positions, receipt.logits)
            require(expected == found and receipt.start <= receipt.positions, "receipt")
            require(receipt.span[0] == layer and receipt.span[1] <= reserved.shape.layers, "layers")
            layer, member = receipt.span[1], self.worker(receipt.node, begun)
            done = flops(reserved.shape, receipt.span, receipt.start, receipt.positions, receipt.logits)
            work[member] = work.get(member, 0) + done
        require(layer == reserved.shape.layers, "layers")
        return work

    def shares(self, cost, work):
        """In proportion, rounded down; one µGFT more for the largest remainders, the lowest id first among equals."""
        total = sum(work.values())
        if total == 0:
            return {}
        shares = {member: cost * part // total for member, part in work.items()}
        order = sorted(work, key=lambda member: (-(cost * work[member] % total), member))
        for member in order[: cost - sum(shares.values())]:
            shares[member] += 1
        return {member: (shares[member], part) for member, part in work.items()}

    def released(self, request, reason):
        kind, paper = reason
        session = self.open.get(request) or self.outside.get(request)
        require(session, "not open")
        if kind == 0:
            self.author = paper.value.node
            paper = verify("cancellation", paper, paper.value.node)
            payer = session[0].payer
            require((paper.network, paper.request) == (self.network, request), "cancellation")
            require(self.owner(paper.node) == payer, "cancellation")
        else:
            require(self.mark.at >= session.at + self.policy.reservation_ms_max, "not expired")
        owed = self.notes(session) if request in self.open else {}
        earned, lanes = self.by_vouchers(owed)
        self.pay(request, earned, lanes, kind == 0, False)

    def delivered(self, event):
        request = event.value.request
        require(request in self.outside, "not open")
        promised = self.outside[request].forwarding
        paper = verify("delivery", event, promised.head)
        self.author = promised.head
        require(paper.network == self.network and 1 <= paper.prompt <= promised.prompt, "delivery")
        require(paper.new <= promised.new, "delivery")
        cost = self.tariff(promised.tariff, paper.prompt, paper.new)
        self.pay(request, {self.owner(promised.head): (cost, 0)}, {}, True, True)

    def voucher(self, voucher, head, model):
        paper = verify("voucher", voucher, head)
        require((paper.network, paper.model) == (self.network, model), "voucher")
        return paper

    def claimed(self, event):
        self.author, request, lane = event.signer, event.value.session, event.value.lane
        if request in self.open:
            session = self.open[request]
            paper = self.voucher(event, session.reservation.head, session.reservation.model)
            claims = dict(session.claims)
            known = claims.pop(lane, None)
            require(not known or (known.worker == paper.worker and known.amount < paper.amount), "claim")
            require(sum(c.amount for c in claims.values()) + paper.amount <= session.cap, "beyond the cap")
            claims[lane] = make(CLAIM, paper.worker, self.worker(paper.worker, session.height), paper.amount, self.mark)
            self.open[request] = session._replace(claims=sorted(claims.items()))
            return
        ended = self.requests[request][1]
        key = (ended.at, request)
        closed = self.closed[key]
        lanes = dict(closed.lanes)
        kind, paid = lanes.get(lane, (BY_VOUCHER, 0))
        require(kind == BY_VOUCHER, "the lane is done with")
        paper = self.voucher(event, closed.head, closed.model)
        require(paper.amount > paid, "nothing is owed")
        missing, payer = min(paper.amount - paid, closed.left), closed.payer
        worker = self.worker(paper.worker, self.requests[request][0].height)
        has = {bucket: self.balances.get(account(payer, bucket), 0) for bucket in (SPENDABLE, HELD, STAKE)}
        before = dict(has)

        def take(buckets, wanted):
            taken = 0
            for bucket in buckets:
                part = min(wanted - taken, has[bucket])
                has[bucket] -= part
                taken += part
            return taken

        made_good = take((SPENDABLE, HELD, STAKE), missing)
        fine = take((HELD, STAKE), missing) if closed.signed else 0
        for bucket in has:
            self.post(account(payer, bucket), has[bucket] - before[bucket])
        self.post(account(worker, SPENDABLE), made_good + fine // 2)
        self.post((BURN, ()), fine - fine // 2)
        lanes[lane] = (BY_PROOF, self.mark)
        self.closed[key] = closed._replace(left=closed.left - made_good, lanes=sorted(lanes.items()))
        self.change(payer, spent=made_good, fined=fine)
        self.change(worker, earned=made_good, rewarded=fine // 2)

    def epoch(self, epoch):
        self.evidence = epoch.evidence
        require(epoch.number == self.epochs + 1 and epoch.sessions, "epoch")
        ids, members = [s.request for s in epoch.sessions], [member for member, _, _ in epoch.earned]
        require(ids == sorted(set(ids)) and members == sorted(set(members)), "order")
        payers = {}
        for session in epoch.sessions:
            opened = self.open[session.request]
            lanes = [lane for lane, _ in session.lanes]
            require(lanes == sorted(set(lanes)), "lanes")
            require(session.settled or self.mark.at >= opened.at + self.policy.reservation_ms_max, "not expired")
            require(sum(amount or 0 for _, amount in session.lanes) <= opened.cap, "beyond the cap")
            paid = {l: (BY_RECEIPT, ()) if a is None else (BY_VOUCHER, a) for l, a in session.lanes}
            payer, cap = self.close(session.request, session.cost, paid, session.settled)
            self.change(payer, requests=int(session.settled))
            caps, costs = payers.get(payer, (0, 0))
            payers[payer] = (caps + cap, costs + session.cost)
        require(sum(c for _, c in payers.values()) == sum(c for _, c, _ in epoch.earned), "earnings")
        for payer, (caps, costs) in sorted(payers.items()):
            self.post(account(payer, RESERVED_), -caps)
            self.post(account(payer, SPENDABLE), caps - costs)
        self.earn({member: (credits, work) for member, credits, work in epoch.earned})
        self.epochs, self.last_epoch = self.epochs + 1, self.mark

    def records(self):
        yield (0, (self.network, self.founding.name, self.founding.founder, self.entries, self.head, self.at))
        yield (1, self.policy)
        yield from ((2, balance) for balance in sorted(self.balances.items()))
        yield from ((3, member) for member in sorted(self.members.items()))
        yield from ((4, node) for node in sorted(self.nodes.items()))
        yield from ((5, session) for _, session in sorted(self.open.items()))
        yield from ((6, outside) for _, outside in sorted(self.outside.items()))
        yield from ((7, (request, *marks)) for request, marks in sorted(self.requests.items()))
        if self.witnesses:
            yield (8, self.witnesses)
        yield from ((9, (node, *removed)) for node, removed in sorted(self.removed.items()))
        yield from ((10, standing) for standing in sorted(self.standings.items()))
        yield from ((11, (*key, closed)) for key, closed in sorted(self.closed.items()))
        yield (12, (self.epochs, self.last_epoch))

    def state_root(self):
        return root([leaf(bytes([RECORD_VERSION]) + write(RECORD, record)) for record in self.records()])


def main():
    ledger = None
    for number, line in enumerate(sys.stdin):
        line = bytes.fromhex(line)
        if ledger is None:
            kind, founding = Codec(line[1:]).read(signed(ENTRY)).value.event
            require(kind == FOUNDED, "a ledger begins with a founding")
            ledger = Ledger(founding)
        try:
            ledger.apply(line)
        except Exception as error:
            raise SystemExit(f"entry {number} does not follow: {error!r}") from error
    print("head", ledger.head.hex())
    print("state", ledger.state_root().hex())


main()
