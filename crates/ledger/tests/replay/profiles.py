"""What work costs and what becomes of that: chapters *Profiles* and *Common work* of docs/economy.md."""

from collections import namedtuple

from papers import COOP, FEI, GFT, NEURO, U64
from standing import MILLION, ONE, log2_millionths

# A stage that is paid: whose node it is, the work, and what the ledger knows of the node.
Stage = namedtuple("Stage", "member work multiplier reliability")
Payout = namedtuple("Payout", "minted burned treasury earned")
THERE, AUDIT, TRAINING, INFERENCE = range(4)
GFT_MICRO = 1_000_000


def flops(shape, span, start, end, logits):
    layer = 2 * shape.hidden * shape.head_dim * (shape.heads + shape.kv_heads) + 3 * shape.hidden * shape.ffn
    layer = min(layer, U64)
    pairs = (end - start) * (start + end + 1) // 2
    total = 2 * layer * (end - start) + 4 * shape.heads * shape.head_dim * pairs
    head = 2 * shape.hidden * shape.vocab * logits if span[1] == shape.layers else 0
    return min(total * (span[1] - span[0]) + head, U64)


def locked(policy, cap, tokens):
    """For a session that reserved so much for so many tokens: its price stays, wherever the market goes."""
    kind, terms = policy.profile
    if kind != NEURO:
        return policy
    paid = cap - cap * terms.burn // (ONE + terms.burn)
    market = terms.market._replace(base=max(tokens, 1), price=paid)
    return policy._replace(profile=(kind, terms._replace(per_million=MILLION, market=market)))


def moved(policy, start, end, tokens_of_payers):
    """What the market makes of the time from one entry to the next, and of the tokens that each payer has open."""
    kind, terms = policy.profile
    if kind != NEURO or terms.market.step == 0:
        return policy
    market = terms.market
    minute = 60 * min(max(market.supply, 1), 50_000)
    pending = min(sum(min(tokens, minute) for tokens in tokens_of_payers), 2**32 - 1)
    target = min(min(market.base, 2**60) * (minute + pending) ** 2 // minute**2, U64)
    price, keeps = market.price, min(market.keeps, ONE)
    for _ in range(end // market.step - start // market.step):
        step = min((price * keeps + target * (ONE - keeps)) // ONE, U64)
        if step == price:
            break
        price = step
    return policy._replace(profile=(kind, terms._replace(market=market._replace(price=price))))


def charge(policy, shape, positions, logits):
    """What a request costs its payer."""
    kind, terms = policy.profile
    if kind in (COOP, GFT, FEI):
        work = flops(shape, (0, shape.layers), 0, positions, logits)
        return min(-(-work * policy.factors[shape.precision[0]] // 1_000_000), U64)
    if kind == NEURO:
        at_base = min(-(-positions * terms.per_million // MILLION), U64)
        paid = min(-(-at_base * terms.market.price // max(terms.market.base, 1)), U64)
        paid = max(paid, terms.least)
        return min(paid + paid * terms.burn // ONE, U64)
    return 0


def work_for(policy, shape, amount):
    """The work that so much pays for: of a lane that was paid by its voucher."""
    return min(max(amount * 1_000_000 // max(policy.factors[shape.precision[0]], 1), 1), U64)


def in_proportion(whole, weights):
    """Rounded down; one µGFT more for the largest remainders, the lowest id first among equals."""
    total = sum(weights.values())
    if total == 0:
        return {}
    shares = {member: whole * part // total for member, part in weights.items()}
    order = sorted(weights, key=lambda member: (-(whole * weights[member] % total), member))
    for member in order[: whole - sum(shares.values())]:
        shares[member] += 1
    return shares


def summed(stages, weigh):
    weights = {}
    for stage in stages:
        weights[stage.member] = weights.get(stage.member, 0) + weigh(stage)
    return weights


def earned_by(work, multiplier, reliability):
    return min(work * multiplier * reliability // 10**8 // 1000, U64)


def payout(policy, cost, stages):
    """What becomes of a cost."""
    kind, terms = policy.profile
    if kind == COOP:
        weights = summed(stages, lambda stage: stage.work * stage.multiplier * stage.reliability)
        return Payout(0, 0, 0, in_proportion(cost, weights))
    if kind == GFT:
        earned, minted = {}, 0
        for stage in stages:
            one = min(earned_by(stage.work, stage.multiplier, stage.reliability), 2**63 - 1 - minted)
            minted += one
            earned[stage.member] = earned.get(stage.member, 0) + one
        return Payout(minted, cost, 0, earned)
    work = summed(stages, lambda stage: stage.work)
    if kind == FEI:
        treasury = cost * min(terms.validators, ONE) // ONE
        kept = summed(stages, lambda stage: stage.work * stage.reliability)
        shares = in_proportion(cost - treasury, work)
        earned = {m: share * kept[m] // (ONE * work[m]) if work[m] else 0 for m, share in shares.items()}
        return Payout(0, cost - treasury - sum(earned.values()), treasury, earned)
    if kind == NEURO:
        burned = cost * terms.burn // (ONE + terms.burn)
        return Payout(0, burned, 0, in_proportion(cost - burned, work))
    return Payout(0, 0, 0, {})


# What the ledger knows of who did a task.
Worker = namedtuple("Worker", "multiplier reliability stake nodes")


def worth(policy, task, worker):
    """What common work is worth before the day's budget bounds it."""
    kind, terms = policy.profile
    job, about = task.job
    if kind == NEURO:
        return neuro_worth(terms, task, worker)
    if kind not in (COOP, GFT, FEI) or job == INFERENCE:
        return 0
    work = about[0] if job == TRAINING else about
    if kind == FEI:
        return fei_worth(terms, job, work, worker)
    if job == THERE:
        return min(terms * work // 3600, U64) * worker.reliability // ONE if kind == COOP else 0
    return earned_by(work, worker.multiplier, worker.reliability)


def fei_worth(terms, job, work, worker):
    base = min(work // 1000, U64)
    if job == THERE:
        tier = sum(worker.multiplier < least for least in (80_000, 30_000, 20_000, 10_000, 5_000))
        base = min(terms.tiers[tier] * work // 86_400, U64)
    for factor in (worker.reliability, terms.specialisation if job == TRAINING else ONE, terms.loyalty):
        base = min(base * factor // ONE, U64)
    return max(base - terms.fee, 0)


def neuro_worth(terms, task, worker):
    job, about = task.job
    if job == THERE:
        base = terms.minute * about // 60
    elif job == INFERENCE:
        base = terms.minted_per_million * about // MILLION
    elif job == TRAINING:
        _, batches, layers, age = about
        rate, fresh = (terms.batch, ONE) if age is None else (terms.stale_batch, freshness(age))
        base = min(rate * batches * (layers if terms.is_per_layer else 1), U64) * fresh // ONE
    else:
        base = 0
    bonus = terms.bonus
    roles = zip(task.role, (bonus.embedding, bonus.head, bonus.training), strict=True)
    role = ONE + sum(min(part, ONE) for has, part in roles if has)
    reputation = ONE + (2 * worker.reliability - ONE) * min(bonus.reputation, ONE) // ONE
    scarcity = ONE if task.replicas is None else rarity(task.replicas, worker.nodes)
    staked = min(base, U64) * stake_millionths(terms.stake[0], worker.stake)
    return min(staked * role * reputation // ONE**2 * scarcity // ONE // MILLION, U64)


def freshness(age):
    return 10_000 if age < 3_600 else 7_000 if age < 86_400 else 5_000 if age < 604_800 else 3_000


def rarity(replicas, nodes):
    target = max(nodes // 10, 3)
    return ONE + max(target - replicas, 0) * (ONE // 2) // target


def stake_millionths(kind, stake):
    if kind == 0:
        return min(MILLION + stake // 10_000, 2 * MILLION)
    unit = 1000 * GFT_MICRO
    return min(MILLION + (log2_millionths(unit + stake, unit) + 5) // 10, 2 * MILLION)
