"""Replays a ledger from docs/ledger-format.md alone, and prints what it amounts to.

In: signed entries from the founding on, one a line, in hexadecimal. Out: hash of the last entry and state root. Whatever
does not follow ends it with an error. Needs nothing but Python's own library; written to be read beside the document,
not to be fast. Of docs/economy.md it has every profile and whatever else changes the state.
"""

import sys

import profiles
import standing
from codec import Codec, make, signed, write
from hashes import blake3, is_signed, leaf, state_root
from papers import *  # noqa: F403 (every schema, by its name in the document)
from profiles import Payout, Stage, Worker, flops, in_proportion


def require(holds, what):
    if not holds:
        raise ValueError(what)


def verify(name, paper, signer):
    version, schema = PAPERS[name]
    message = b"talka/" + name.encode() + b"\0" + bytes([version]) + write(schema, paper.value)
    require(paper.signer == signer and is_signed(signer, message, paper.signature), f"{name} is not signed")
    return paper.value


def times_of(ballot):
    return ballot.rules.emergency if ballot.proposal.is_emergency else ballot.rules.ordinary


def decided_at(ballot):
    return ballot.at + sum(times_of(ballot))


def together(payouts):
    earned = {}
    for payout in payouts:
        for member, credits in payout.earned.items():
            earned[member] = earned.get(member, 0) + credits
    kept = [sum(getattr(payout, field) for payout in payouts) for field in ("minted", "burned", "treasury")]
    return Payout(*kept, earned)


class Ledger:
    def __init__(self, founding):
        self.founding, self.policy = founding, founding.policy
        self.network = blake3(bytes([FOUNDING_VERSION]) + write(FOUNDING, founding))
        self.head, self.entries, self.at = ZEROS, 0, 0
        self.balances, self.members, self.nodes = {}, {}, {}
        self.open, self.outside, self.requests, self.closed = {}, {}, {}, {}
        self.epochs, self.last_epoch, self.witnesses, self.turns = 0, None, None, None
        self.removed, self.standings = {}, {}
        self.held_lots = {}
        self.lots, self.ballots, self.forbidden, self.suspended, self.purse = {}, {}, set(), set(), (0, 0, 0)

    def apply(self, line):
        codec = Codec(line)
        require(codec.take(1) == bytes([ENTRY_VERSION]), "version")
        signed_entry = codec.read(signed(ENTRY))
        require(write(signed(ENTRY), signed_entry) == line[1:], "not canonical")
        entry = signed_entry.value
        body = bytes([ENTRY_VERSION]) + write(ENTRY, entry)
        orderer = signed_entry.signer
        by_turns = self.turns and self.turns[0]
        may_order = self.witnesses[0] if by_turns else [self.founding.founder]
        require(orderer in may_order, "not by a node that may order")
        require(is_signed(orderer, b"talka/ledger entry\0" + body, signed_entry.signature), "entry is not signed")
        require((entry.height, entry.previous) == (self.entries, self.head) and entry.at >= self.at, "place")
        event_id = blake3(bytes([EVENT_VERSION]) + write(EVENT, entry.event))
        self.mark = make(MARK, self.entries, entry.at, event_id)
        self.postings, self.author, self.evidence, self.enacts = [], orderer, ZEROS, None
        moved = self.moved(entry.at)
        self.event(*entry.event)
        require((entry.event_id, entry.author, entry.evidence) == (event_id, self.author, self.evidence), "fields")
        require(entry.postings == self.postings and sum(amount for _, amount in self.postings) == 0, "postings")
        for holder, amount in self.postings:
            self.balances[holder] = self.balances.get(holder, 0) + amount
        self.date(entry.at)
        require(all(amount >= 0 or holder == (MINT, ()) for holder, amount in self.balances.items()), "overdrawn")
        self.policy = self.enacts or moved
        limit = self.policy.reservation_ms_max
        self.closed = {key: closed for key, closed in self.closed.items() if key[0] + limit > entry.at}
        kept = max(limit, 2 * SIGNED_MS_MAX)
        is_over = {id_ for id_, (_, end) in self.requests.items() if end and end.at + kept <= entry.at}
        self.requests = {id_: marks for id_, marks in self.requests.items() if id_ not in is_over}
        self.entries, self.head, self.at = self.entries + 1, blake3(body), entry.at

    def moved(self, at):
        """The rules after this entry, if no vote changes them: the time before it may have moved a price."""
        tokens = {}
        for session in self.open.values():
            paper = session.reservation
            tokens[paper.payer] = tokens.get(paper.payer, 0) + paper.prompt + paper.new
        return profiles.moved(self.policy, self.at, at, tokens.values()) if self.entries else self.policy

    def post(self, holder, amount):
        if amount:
            self.postings.append((holder, amount))

    def event(self, kind, event):
        require((kind == FOUNDED) == (self.entries == 0), "a founding comes first, and once")
        waiting = sorted((decided_at(b), id_) for id_, b in self.ballots.items() if b.decided is None)
        if waiting and self.mark.at >= waiting[0][0]:
            require((kind, event) == (DECIDED, waiting[0][1]), "a decision is due")
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
            require(self.may_witness(paper.witnesses), "witnesses")
            self.witnesses = (paper.witnesses, self.entries)
        elif kind == REMOVED:
            self.remove(verify("removal", event, event.value.by))
        elif kind == NODE_RATED:
            self.rate(verify("rating", event, event.value.node))
        elif kind == NODE_JUDGED:
            self.judge(verify("judgement", event, self.founding.founder))
        elif kind == CLAIMED:
            self.claimed(event)
        elif kind == EPOCHED:
            self.epoch(event, [])
        elif kind == EPOCH_COUNTED:
            self.epoch(*event)
        elif kind == EXPIRED:
            self.expire(event)
        elif kind == FREED:
            self.free(event)
        elif kind == STAKED:
            self.stake(verify("stake order", event, event.value.by))
        elif kind == KEYS_CHANGED:
            self.change_keys(event)
        elif kind == REWARDED:
            self.reward(verify("common work", event, self.founding.founder))
            self.author = self.founding.founder
        elif kind == PROPOSED:
            self.propose(verify("proposal", event, event.value.by))
        elif kind == VOTED:
            self.vote(verify("vote", event, event.value.by))
        elif kind == DECIDED:
            self.decide(event)
        elif kind == ORDER_CHANGED:
            self.change_order(verify("order change", event, self.founding.founder))
        else:
            raise ValueError("unknown event")

    def standing(self, node):
        return self.standings.get(node, standing.NEW)

    def rate(self, paper):
        self.author, known, measured = paper.node, self.standing(paper.node), paper.measured
        require(paper.network == self.network and paper.number == known.ratings, "rating")
        require(self.owner(paper.node) and all(score <= 10_000 for score in measured.scores if score), "rating")
        is_same = known.rated and known.rated.measured.hardware == measured.hardware
        require(not is_same or self.mark.at >= known.rated.at + DAY_MS, "rated lately")
        self.standings[paper.node] = standing.rate(known, self.mark, measured)

    def judge(self, paper):
        self.author, known, (kind, about) = paper.judge, self.standing(paper.node), paper.finding
        require((paper.network, paper.judge) == (self.network, self.founding.founder), "judgement")
        require(self.owner(paper.node) and paper.number == known.judgements, "judgement")
        if kind == CLEARED:
            require(known.halt, "not halted")
        else:
            require((about if kind == 0 else about[0]) in self.requests, "request")
        self.standings[paper.node] = standing.judge(known, self.mark, paper.finding)

    def may_witness(self, nodes):
        before = set(self.witnesses[0]) if self.witnesses else set()
        may = not (self.turns and self.turns[0]) and nodes == sorted(set(nodes)) and set(nodes) != before
        may = may and len(nodes) % 3 == 1 and len(nodes) <= 64 and all(node in self.nodes for node in nodes)
        may = may and len({self.nodes[node].member for node in nodes}) == len(nodes)
        return may and len(before & set(nodes)) >= len(before) - len(before) // 3

    def change_order(self, paper):
        by_turns, changes, _ = self.turns or (False, 0, 0)
        require(paper.network == self.network, "network")
        require((paper.number, paper.by_turns) == (changes + 1, not by_turns), "the next change")
        require(not paper.by_turns or len(self.witnesses[0]) >= 4, "four witnesses")
        self.author, self.turns = self.founding.founder, (paper.by_turns, paper.number, self.entries)

    def owner(self, node):
        require(node in self.nodes, "not a member's node")
        return self.nodes[node].member

    def acting(self, node):
        """The member that a node may act for."""
        owner = self.owner(node)
        keys = self.members[owner].keys
        require(keys.root is None or self.mark.at < dict(keys.delegated).get(node, 0), "not delegated")
        require(owner not in self.suspended, "suspended")
        return owner

    def date(self, at):
        """What came is of this day; what left, of the oldest. Of what is held too."""
        changes = {}
        for holder, amount in self.postings:
            if holder[0] == MEMBER_:
                member, (bucket, _) = holder[1]
                changes[member] = changes.get(member, 0) + amount
                if bucket == HELD:
                    self.move_lots(self.held_lots.setdefault(member, {}), at // DAY_MS, amount)
        for member, change in changes.items():
            self.move_lots(self.lots.setdefault(member, {}), at // DAY_MS, change)

    @staticmethod
    def move_lots(lots, day, change):
        if change > 0:
            lots[day] = lots.get(day, 0) + change
        while change < 0:
            oldest = min(lots)
            taken = min(lots[oldest], -change)
            change += taken
            lots[oldest] -= taken
            if lots[oldest] == 0:
                del lots[oldest]

    def held(self, member, bucket):
        return self.balances.get(account(member, bucket), 0)

    def expire(self, member):
        require(self.policy.expiry, "nothing expires")
        days, _ = self.policy.expiry
        old = sum(lot for day, lot in self.lots.get(member, {}).items() if day + days <= self.mark.at // DAY_MS)
        due = min(old, self.held(member, SPENDABLE))
        require(due > 0, "nothing expires")
        self.post(account(member, SPENDABLE), -due)
        self.post((BURN, ()), due)

    def free(self, member):
        lots = self.held_lots.get(member, {})
        due = sum(lot for day, lot in lots.items() if day + self.policy.held_days <= self.mark.at // DAY_MS)
        require(due > 0, "nothing is free")
        self.post(account(member, HELD), -due)
        self.post(account(member, SPENDABLE), due)

    def stake(self, paper):
        self.author, member = paper.by, self.acting(paper.by)
        lock, rules = self.members[member].stake, self.policy.stake
        require((paper.network, paper.serial) == (self.network, lock.serial + 1), "stake order")
        kind, change = paper.change
        if kind == 0:
            credits, days = change
            room = rules.most - self.held(member, STAKE)
            require(rules.least <= credits <= room and rules.days_min <= days <= rules.days_max, "stake")
            until, buckets = max(lock.until, self.mark.at + days * DAY_MS), (SPENDABLE, STAKE)
        else:
            require(self.mark.at >= lock.until, "locked")
            credits, until, buckets = change, lock.until, (STAKE, SPENDABLE)
        self.post(account(member, buckets[0]), -credits)
        self.post(account(member, buckets[1]), credits)
        self.members[member] = self.members[member]._replace(stake=make(LOCK, until, paper.serial))

    def change_keys(self, event):
        member = event.value.member
        keys = self.members[member].keys
        paper = verify("key order", event, keys.root or member)
        self.author = paper_signer = event.signer
        require((paper.network, paper.serial) == (self.network, keys.serial + 1), "key order")
        kind, change = paper.change
        root_, delegated = keys.root, dict(keys.delegated)
        if kind == 0:
            root_ = change
        else:
            require(root_ == paper_signer, "no root")
        if kind == 1:
            node, expires_at = change
            require(node in self.members[member].nodes, "not its node")
            require(self.mark.at < expires_at <= self.mark.at + 366 * DAY_MS, "delegation")
            delegated[node] = expires_at
        elif kind == 2:
            delegated.pop(change, None)
        keys = make(KEYS, root_, paper.serial, sorted(delegated.items()))
        self.members[member] = self.members[member]._replace(keys=keys)

    def reward(self, paper):
        serial, last, paid = self.purse
        require((paper.network, paper.serial) == (self.network, serial + 1), "common work")
        today = self.mark.at // DAY_MS
        paid = paid if last == today else 0
        worth = {}
        for node, task in paper.tasks:
            member, known = self.owner(node), self.standing(node)
            factors = (standing.multiplier(known, self.mark.at), standing.reliability(known))
            worker = Worker(*factors, self.held(member, STAKE), len(self.nodes))
            worth[member] = worth.get(member, 0) + profiles.worth(self.policy, task, worker)
        pays = min(sum(worth.values()), max(self.policy.day_budget - paid, 0))
        self.post((MINT, ()), -pays)
        self.earn(in_proportion(pays, worth), {}, HELD if self.policy.held_days > 0 else SPENDABLE)
        self.purse = (paper.serial, today, paid + pays)

    def propose(self, paper):
        self.author, member = paper.by, self.acting(paper.by)
        id_ = blake3(bytes([PROPOSAL_VERSION]) + write(PROPOSAL, paper))
        require(paper.network == self.network and id_ not in self.ballots, "proposal")
        require(all(b.decided or b.member != member for b in self.ballots.values()), "one at a time")
        rules, (kind, action) = self.policy.governance, paper.action
        require(kind != NAMING or (rules.appoints and self.may_witness(action[0])), "witnesses")
        if rules.votes[0] == PER_MEMBER:
            electorate = sum(voter not in self.suspended for voter in self.members)
        else:
            electorate = sum(self.held(voter, STAKE) for voter in self.members)
        require(electorate > 0, "nobody can vote")
        self.ballots[id_] = make(BALLOT, paper, member, self.entries, self.mark.at, rules, electorate, [], None)

    def vote(self, paper):
        self.author, member = paper.by, self.acting(paper.by)
        ballot, account_ = self.ballots[paper.proposal], self.members[member]
        times = times_of(ballot)
        begins = ballot.at + times.review
        ends = begins + times.voting
        require(paper.network == self.network and begins <= self.mark.at < ends, "not voting")
        require(member not in dict(ballot.votes) and account_.joined_height <= ballot.height, "no vote")
        weight = 1
        if ballot.rules.votes[0] == BY_STAKE:
            weight = self.held(member, STAKE) if account_.stake.until >= ends else 0
        require(weight > 0, "no vote")
        votes = sorted([*ballot.votes, (member, (paper.choice, weight))])
        self.ballots[paper.proposal] = ballot._replace(votes=votes)

    def decide(self, id_):
        ballot = self.ballots[id_]
        require(ballot.decided is None and self.mark.at >= decided_at(ballot), "not due")
        sums = [sum(weight for _, (choice, weight) in ballot.votes if choice[0] == which) for which in (YES, NO, ABSTAIN)]
        yes, no, rules = sums[YES], sums[NO], ballot.rules
        approved = yes > 0 and sum(sums) * 10_000 >= ballot.electorate * rules.quorum
        approved = approved and yes * 10_000 >= (yes + no) * rules.approval
        kind, action = ballot.proposal.action
        approved = approved and (kind != NAMING or self.may_witness(action[0]))
        self.ballots[id_] = ballot._replace(decided=((ENACTED if approved else REJECTED, ()), self.entries))
        if not approved:
            return
        if kind == PARAMETERS:
            self.enacts = action
        elif kind in (MODEL, SUSPENSION):
            ids = self.forbidden if kind == MODEL else self.suspended
            is_in = action[1] if kind == SUSPENSION else not action[1]
            (ids.add if is_in else ids.discard)(action[0])
        elif kind == NAMING:
            self.witnesses = (action[0], self.entries)
        else:
            member, penalty, reporter = action
            of_stake = min(penalty, self.held(member, STAKE))
            of_held = min(penalty - of_stake, self.held(member, HELD))
            taken = of_stake + of_held
            part = taken * self.policy.stake.reporter // 10_000 if reporter else 0
            self.post(account(member, STAKE), -of_stake)
            self.post(account(member, HELD), -of_held)
            self.post((BURN, ()), taken - part)
            if reporter:
                self.post(account(reporter, SPENDABLE), part)

    def change(self, member, **by):
        record = self.members[member]
        self.members[member] = record._replace(**{field: getattr(record, field) + add for field, add in by.items()})

    def join(self, node, member, name, grant):
        self.post((MINT, ()), -grant)
        self.post(account(member, SPENDABLE), grant)
        if member not in self.members:
            self.members[member] = make(
                MEMBER, name, [], self.entries, self.mark.at, grant, 0, 0, 0, 0, 0, 0,
                make(KEYS, None, 0, []), make(LOCK, 0, 0),
            )  # fmt: skip
        nodes = sorted([*self.members[member].nodes, node])
        self.members[member] = self.members[member]._replace(nodes=nodes)
        self.nodes[node] = make(NODE, member, name, self.entries)

    def joined(self, paper):
        self.author = paper.invited_by
        inviting = self.acting(paper.invited_by)
        require(paper.network == self.network and paper.node not in self.nodes, "membership")
        is_new = paper.member not in self.members
        require(paper.member == paper.node if is_new else paper.member == inviting, "a foreign account")
        self.join(paper.node, paper.member, paper.name, self.policy.grant if is_new else 0)

    def remove(self, paper):
        self.author = paper.by
        require(paper.network == self.network and paper.node != self.founding.founder, "removal")
        require(not self.witnesses or paper.node not in self.witnesses[0], "a witness")
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
        if node in self.nodes and self.nodes[node].member != payer:
            self.count_task(node)

    def count_task(self, node):
        self.standings[node] = standing.task(self.standing(node), True)

    def price(self, shape, positions, logits):
        return profiles.charge(self.policy, shape, positions, logits)

    def stage(self, node, member, work, begun):
        """As the ledger knows the node now, at the time at which the request was reserved."""
        known = self.standing(node)
        return Stage(member, work, standing.multiplier(known, begun), standing.reliability(known))

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
        require(self.acting(paper.head) == paper.payer and paper.prompt > 0, "reservation")
        require(abs(paper.at - self.mark.at) <= SIGNED_MS_MAX, "signed at another time")
        if kind == RESERVED:
            require(paper.model not in self.forbidden, "a model that the members forbade")
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

    def pay(self, request, cost, payout, work, lanes, is_signed, settled):
        payer, cap = self.close(request, cost, lanes, is_signed)
        self.change(payer, requests=int(settled))
        self.post(account(payer, RESERVED_), -cap)
        self.post(account(payer, SPENDABLE), cap - cost)
        self.pay_out(payout, work)

    def pay_out(self, payout, work):
        self.post((MINT, ()), -payout.minted)
        self.post((BURN, ()), payout.burned)
        self.post((TREASURY, ()), payout.treasury)
        self.earn(payout.earned, work)

    def earn(self, earned, work, bucket=SPENDABLE):
        for member, credits in sorted(earned.items()):
            self.post(account(member, bucket), credits)
            self.change(member, earned=credits)
        for member, done in work.items():
            self.change(member, work=done)

    def by_vouchers(self, session, owed):
        """What lanes without a receipt cost, what becomes of that, and how they were paid."""
        shape, payouts = session.reservation.shape, []
        for worker, member, amount in owed.values():
            stage = self.stage(worker, member, profiles.work_for(self.policy, shape, amount), session.at)
            payouts.append(profiles.payout(self.policy, amount, [stage]))
        cost = sum(amount for _, _, amount in owed.values())
        return cost, payouts, {lane: (BY_VOUCHER, amount) for lane, (_, _, amount) in owed.items()}

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
        carried, payouts, paid = self.by_vouchers(session, {l: to for l, to in owed.items() if l not in lanes})
        require(carried <= session.cap, "beyond the cap")
        work, cost = {}, carried
        if paper.receipts:
            require(1 <= paper.positions <= reserved.prompt + reserved.new and paper.logits <= reserved.new, "work")
            stages = self.work(reserved, paper, session)
            work = profiles.summed(stages, lambda stage: stage.work)
            if any(work.values()):
                terms = profiles.locked(self.policy, session.cap, reserved.prompt + reserved.new)
                cost = profiles.charge(terms, reserved.shape, paper.positions, paper.logits)
                cost = max(min(cost, session.cap), carried)
                payouts.append(profiles.payout(self.policy, cost - carried, stages))
            paid |= {lane: (BY_RECEIPT, ()) for lane in lanes}
        else:
            require(paper.positions == paper.logits == 0, "work")
        self.pay(request, cost, together(payouts), work, paid, True, True)
        for node in {receipt.value.node for receipt in paper.receipts}:
            self.completed(node, reserved.payer)

    def work(self, reserved, paper, session):
        stages, layer = [], 0
        for receipt in paper.receipts:
            receipt = verify("receipt", receipt, receipt.value.node)
            ends = receipt.span[1] == reserved.shape.layers
            expected = (self.network, reserved.request, reserved.model, paper.positions, paper.logits if ends else 0)
            found = (receipt.network, receipt.request, receipt.model, receipt.positions, receipt.logits)
            require(expected == found and receipt.start <= receipt.positions, "receipt")
            require(receipt.span[0] == layer and receipt.span[1] <= reserved.shape.layers, "layers")
            layer, member = receipt.span[1], self.worker(receipt.node, session.height)
            done = flops(reserved.shape, receipt.span, receipt.start, receipt.positions, receipt.logits)
            stages.append(self.stage(receipt.node, member, done, session.at))
        require(layer == reserved.shape.layers, "layers")
        return stages

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
        is_open = request in self.open
        cost, payouts, lanes = self.by_vouchers(session, self.notes(session)) if is_open else (0, [], {})
        self.pay(request, cost, together(payouts), {}, lanes, kind == 0, False)

    def delivered(self, event):
        request = event.value.request
        require(request in self.outside, "not open")
        promised = self.outside[request].forwarding
        paper = verify("delivery", event, promised.head)
        self.author = promised.head
        require(paper.network == self.network and 1 <= paper.prompt <= promised.prompt, "delivery")
        require(paper.new <= promised.new, "delivery")
        cost = min(self.tariff(promised.tariff, paper.prompt, paper.new), self.outside[request].cap)
        self.pay(request, cost, Payout(0, 0, 0, {self.owner(promised.head): cost}), {}, {}, True, True)

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

    def epoch(self, epoch, tasks):
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
        kind = self.policy.profile[0]
        require(kind == GFT or not epoch.minted, "only gft mints")
        require(kind not in (COOP, TOKENLESS) or not (epoch.burned or epoch.treasury), "all is earned")
        came = sum(cost for _, cost in payers.values()) + epoch.minted
        went = sum(credits for _, credits, _ in epoch.earned) + epoch.burned + epoch.treasury
        require(came == went and all(member in self.members for member in members), "earnings")
        for payer, (caps, costs) in sorted(payers.items()):
            self.post(account(payer, RESERVED_), -caps)
            self.post(account(payer, SPENDABLE), caps - costs)
        earned = {member: credits for member, credits, _ in epoch.earned}
        work = {member: done for member, _, done in epoch.earned}
        self.pay_out(Payout(epoch.minted, epoch.burned, epoch.treasury, earned), work)
        nodes, settled = [node for node, _ in tasks], sum(session.settled for session in epoch.sessions)
        require(nodes == sorted(set(nodes)), "order of nodes")
        for node, count in tasks:
            require(node in self.nodes and 1 <= count <= settled, "tasks")
            for _ in range(min(count, TASKS_MAX)):
                self.count_task(node)
        self.epochs, self.last_epoch = self.epochs + 1, self.mark

    def records(self):
        """By key."""
        holder = (self.network, self.founding.name, self.founding.founder, self.entries, self.head, self.at)
        single = {0: holder, 1: self.policy, 8: self.witnesses, 12: (self.epochs, self.last_epoch), 17: self.purse}
        for kind, record in {**single, 18: self.turns}.items():
            if record is not None:
                yield bytes([kind]), (kind, record)
        for holder, amount in self.balances.items():
            kind, of = holder
            member, bucket = (of[0], of[1][0]) if of else (ZEROS, 0)
            yield bytes([2, kind]) + member + bytes([bucket]), (2, (holder, amount))
        pairs = {3: self.members, 4: self.nodes, 10: self.standings, 14: self.ballots}
        lots = {13: self.lots, 19: self.held_lots}
        for kind, each in [*pairs.items(), *lots.items()]:
            for id_, value in each.items():
                yield bytes([kind]) + id_, (kind, (id_, sorted(value.items()) if kind in lots else value))
        for kind, each in {5: self.open, 6: self.outside}.items():
            for id_, value in each.items():
                yield bytes([kind]) + id_, (kind, value)
        for kind, each in {7: self.requests, 9: self.removed}.items():
            for id_, value in each.items():
                yield bytes([kind]) + id_, (kind, (id_, *value))
        for (at, request), closed in self.closed.items():
            yield bytes([11]) + at.to_bytes(8, "big") + request, (11, (at, request, closed))
        for kind, each in {15: self.forbidden, 16: self.suspended}.items():
            for id_ in each:
                yield bytes([kind]) + id_, (kind, id_)

    def state_root(self):
        hashed = {key: leaf(bytes([RECORD_VERSION]) + write(RECORD, record)) for key, record in self.records()}
        return state_root(sorted(hashed.items()))


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
