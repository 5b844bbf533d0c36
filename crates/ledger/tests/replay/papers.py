"""Schemas of everything that has an encoding: papers, events, entries, records of the state."""

from codec import BOOL, ID, INT, NOTHING, REQUEST, STR, UINT, listed, option, signed, struct

FACTORS = ("tuple", UINT, UINT, UINT, UINT)
TIMES = struct("Times", review=UINT, voting=UINT, delay=UINT)
RULES = struct(
    "Rules",
    votes=("enum", [NOTHING] * 2), approval=UINT, quorum=UINT, ordinary=TIMES, emergency=TIMES, appoints=BOOL,
)  # fmt: skip
PER_MEMBER, BY_STAKE = range(2)
STAKES = struct("Stakes", least=UINT, most=UINT, days_min=UINT, days_max=UINT, reporter=UINT)
FEI_TERMS = struct(
    "Fei", validators=UINT, fee=UINT, specialisation=UINT, loyalty=UINT, tiers=("tuple", *[UINT] * 6)
)  # fmt: skip
MARKET = struct("Market", base=UINT, price=UINT, supply=UINT, keeps=UINT, step=UINT)
BONUS = struct("Bonus", embedding=UINT, head=UINT, training=UINT, reputation=UINT)
NEURO_TERMS = struct(
    "Neuro",
    per_million=UINT, least=UINT, burn=UINT, market=MARKET, minute=UINT, minted_per_million=UINT, batch=UINT,
    stale_batch=UINT, is_per_layer=BOOL, stake=("enum", [NOTHING] * 2), bonus=BONUS,
)  # fmt: skip
POLICY = struct(
    "Policy",
    version=UINT, profile=("enum", [UINT, NOTHING, FEI_TERMS, NEURO_TERMS, NOTHING]), grant=UINT, day_budget=UINT, held_days=UINT,
    reservation_ms_max=UINT, factors=FACTORS, expiry=option(("tuple", UINT, UINT)), stake=STAKES, governance=RULES,
)  # fmt: skip
COOP, GFT, FEI, NEURO, TOKENLESS = range(5)
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
ORDER_CHANGE = struct("OrderChange", network=ID, number=UINT, by_turns=BOOL)
REMOVAL = struct("Removal", network=ID, node=ID, by=ID)
SESSION = struct("Session", request=REQUEST, cost=UINT, settled=BOOL, lanes=listed(("tuple", UINT, option(UINT))))
EPOCH = struct(
    "Epoch",
    number=UINT, papers=UINT, evidence=ID, sessions=listed(SESSION), earned=listed(("tuple", ID, UINT, UINT)),
    minted=UINT, burned=UINT, treasury=UINT,
)  # fmt: skip
SCORES = ("tuple", *[option(UINT)] * 3)
MEASURED = struct("Measured", kind=("enum", [NOTHING] * 4), scores=SCORES, hardware=ID)
RATING = struct("Rating", network=ID, node=ID, number=UINT, measured=MEASURED)
FINDING = ("enum", [REQUEST, ("tuple", REQUEST, BOOL), NOTHING])
JUDGEMENT = struct("Judgement", network=ID, judge=ID, node=ID, number=UINT, finding=FINDING)
CLEARED = 2
STAKE_ORDER = struct("StakeOrder", network=ID, by=ID, serial=UINT, change=("enum", [("tuple", UINT, UINT), UINT]))
KEY_ORDER = struct("KeyOrder", network=ID, member=ID, serial=UINT, change=("enum", [ID, ("tuple", ID, UINT), ID]))
JOB = ("enum", [UINT, UINT, ("tuple", UINT, UINT, UINT, option(UINT)), UINT])
TASK = struct("Task", job=JOB, role=("tuple", BOOL, BOOL, BOOL), replicas=option(UINT))
COMMON_WORK = struct("CommonWork", network=ID, serial=UINT, tasks=listed(("tuple", ID, TASK)))
ACTION = (
    "enum",
    [POLICY, ("tuple", ID, BOOL), ("tuple", ID, BOOL), ("tuple", ID, UINT, option(ID)), ("tuple", listed(ID))],
)
PARAMETERS, MODEL, SUSPENSION, SLASH, NAMING = range(5)
PROPOSAL = struct("Proposal", network=ID, by=ID, title=STR, is_emergency=BOOL, action=ACTION, at=UINT)
CHOICE = ("enum", [NOTHING] * 3)
YES, NO, ABSTAIN = range(3)
VOTE = struct("Vote", network=ID, by=ID, proposal=ID, choice=CHOICE)
PAPERS = {
    "membership": (1, MEMBERSHIP),
    "reservation": (1, RESERVATION),
    "settlement": (2, SETTLEMENT),
    "receipt": (2, RECEIPT),
    "cancellation": (1, CANCELLATION),
    "forwarding": (1, FORWARDING),
    "delivery": (1, DELIVERY),
    "appointment of witnesses": (1, APPOINTMENT),
    "order change": (1, ORDER_CHANGE),
    "removal": (1, REMOVAL),
    "voucher": (1, VOUCHER),
    "rating": (1, RATING),
    "judgement": (1, JUDGEMENT),
    "stake order": (1, STAKE_ORDER),
    "key order": (1, KEY_ORDER),
    "common work": (1, COMMON_WORK),
    "proposal": (3, PROPOSAL),
    "vote": (1, VOTE),
}
FOUNDED, JOINED, RESERVED, SETTLED, RELEASED, FORWARDED, DELIVERED, APPOINTED, REMOVED = range(9)
NODE_RATED, NODE_JUDGED, CLAIMED, EPOCHED, EXPIRED, STAKED, KEYS_CHANGED, REWARDED, PROPOSED, VOTED, DECIDED = range(9, 20)
ORDER_CHANGED, EPOCH_COUNTED, FREED = 20, 21, 22
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
        signed(RATING),
        signed(JUDGEMENT),
        signed(VOUCHER),
        EPOCH,
        ID,
        signed(STAKE_ORDER),
        signed(KEY_ORDER),
        signed(COMMON_WORK),
        signed(PROPOSAL),
        signed(VOTE),
        ID,
        signed(ORDER_CHANGE),
        ("tuple", EPOCH, listed(("tuple", ID, UINT))),
        ID,
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
ENTRY_VERSION, EVENT_VERSION, RECORD_VERSION, FOUNDING_VERSION, PROPOSAL_VERSION = 5, 4, 4, 4, 3
DAY_MS = 24 * 60 * 60 * 1000
SIGNED_MS_MAX = DAY_MS // 2
ZEROS = bytes(32)
U64 = 2**64 - 1


def account(member, bucket):
    return (MEMBER_, (member, (bucket, ())))


# Records of the state

MARK = struct("Mark", height=UINT, at=UINT, event=ID)
CLAIM = struct("Claim", worker=ID, member=ID, amount=UINT, mark=MARK)
PAID = ("enum", [NOTHING, UINT, MARK])
BY_RECEIPT, BY_VOUCHER, BY_PROOF = range(3)
MEMBER = struct(
    "Member",
    name=STR, nodes=listed(ID), joined_height=UINT, joined_at=UINT, granted=UINT, spent=UINT, earned=UINT, work=UINT,
    requests=UINT, fined=UINT, rewarded=UINT,
    keys=struct("Keys", root=option(ID), serial=UINT, delegated=listed(("tuple", ID, UINT))),
    stake=struct("Lock", until=UINT, serial=UINT),
)  # fmt: skip
KEYS, LOCK = MEMBER[2][-2:]
BALLOT = struct(
    "Ballot",
    proposal=PROPOSAL, member=ID, height=UINT, at=UINT, rules=RULES, electorate=UINT,
    votes=listed(("tuple", ID, ("tuple", CHOICE, UINT))),
    decided=option(("tuple", ("enum", [NOTHING] * 2), UINT)),
)  # fmt: skip
ENACTED, REJECTED = range(2)
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
RATED = struct("Rated", measured=MEASURED, at=UINT)
QUARANTINE = struct("Quarantine", until=UINT, multiplier=UINT)
STANDING = struct(
    "Standing",
    ratings=UINT, last_rating=option(MARK), judgements=UINT, last_judgement=option(MARK), rated=option(RATED),
    quarantine=option(QUARANTINE), changes=UINT, tasks=TASKS, halt=option(("enum", [NOTHING] * 2)),
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
        ("tuple", ID, listed(("tuple", UINT, UINT))),
        ("tuple", ID, BALLOT),
        ID,
        ID,
        ("tuple", UINT, UINT, UINT),
        ("tuple", BOOL, UINT, UINT),
        ("tuple", ID, listed(("tuple", UINT, UINT))),
    ],
)
