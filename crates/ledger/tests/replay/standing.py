"""What a node's work counts for: chapter *Standing* of docs/economy.md."""

from decimal import Decimal, localcontext

from codec import make
from papers import DAY_MS, MEASURED, QUARANTINE, RATED, STANDING, TASKS, TASKS_MAX

ONE, MILLION = 10_000, 1_000_000
BANDS = [(0, 500), (500, 1_000), (1_500, 5_000), (3_500, 10_000), (5_500, 20_000), (7_000, 30_000), (8_200, 50_000)]
BANDS = [*BANDS, (9_200, 80_000)]
LEAST = BANDS[0][1]
SUSPENDED, REVIEW = (0, ()), (1, ())
NEW = make(STANDING, 0, None, 0, None, None, None, 0, make(TASKS, 0, 0, ONE), None)


def log2_millionths(numerator, denominator):
    """To the nearest."""
    with localcontext() as context:
        context.prec = 60
        return int(((Decimal(numerator) / denominator).ln() / Decimal(2).ln() * MILLION).to_integral_value())


def measured_multiplier(measured):
    """Scores to an index, that to what the kind of device may reach, and that to the multiplier."""
    scores = measured.scores
    index = 0 if None in scores else (5 * scores[0] + 3 * scores[1] + 2 * scores[2] + 5) // 10
    kind = measured.kind[0]
    if kind == 3:
        index = max(index, 1_500)
    else:
        start, width = ((0, 499), (500, 999), (1_500, 1_999))[kind]
        index = start + width * index // ONE
    place = max(number for number, (start, _) in enumerate(BANDS) if start <= index)
    start, low = BANDS[place]
    if place == len(BANDS) - 1:
        return low
    width, rise = BANDS[place + 1][0] - start, BANDS[place + 1][1] - low
    return low + (2 * (index - start) * rise + width) // (2 * width)


def earned_multiplier(standing, at):
    if standing.quarantine and at < standing.quarantine.until:
        return standing.quarantine.multiplier
    return measured_multiplier(standing.rated.measured) if standing.rated else ONE


def multiplier(standing, at):
    return LEAST if standing.halt else earned_multiplier(standing, at)


def reliability(standing):
    tasks = standing.tasks
    completed, assigned = (tasks.outcomes.bit_count(), tasks.assigned) if tasks.assigned else (1, 1)
    return 5_000 + (completed * tasks.consistency + assigned) // (2 * assigned)


def rate(standing, mark, measured):
    old, new = earned_multiplier(standing, mark.at), measured_multiplier(measured)
    waits = DAY_MS * max(log2_millionths(new, old), 0) // MILLION
    was, quarantine, changes, halt = standing.rated, None, standing.changes, standing.halt
    if waits:
        until, pending = mark.at + waits, standing.quarantine
        is_pending = pending and mark.at < pending.until
        if is_pending and was and new <= measured_multiplier(was.measured):
            until = min(until, pending.until)
        quarantine = make(QUARANTINE, until, old)
    if was and was.measured.hardware != measured.hardware:
        changes += 1
        halt = REVIEW if changes >= 3 else halt
    rated = make(RATED, make(MEASURED, *measured), mark.at)
    return standing._replace(
        ratings=standing.ratings + 1, last_rating=mark, rated=rated, quarantine=quarantine, changes=changes, halt=halt
    )


def suspend(standing):
    few = standing.tasks.assigned < 10
    return standing if standing.halt or few or reliability(standing) >= 5_200 else standing._replace(halt=SUSPENDED)


def task(standing, completed):
    tasks = standing.tasks
    outcomes = (tasks.outcomes << 1 | completed) % 2**TASKS_MAX
    tasks = tasks._replace(outcomes=outcomes, assigned=min(tasks.assigned + 1, TASKS_MAX))
    return suspend(standing._replace(tasks=tasks))


def audit(standing, passed):
    outcomes, assigned, consistency = standing.tasks
    if passed:
        consistency += -(-(ONE - consistency) // 5)
    else:
        consistency -= -(-consistency // 5)
        outcomes &= max(outcomes - 1, 0)
    return suspend(standing._replace(tasks=make(TASKS, outcomes, assigned, consistency)))


def judge(standing, mark, finding):
    standing = standing._replace(judgements=standing.judgements + 1, last_judgement=mark)
    kind, about = finding
    if kind == 0:
        return task(standing, False)
    if kind == 1:
        return audit(standing, about[1])
    return standing._replace(tasks=NEW.tasks, changes=0, halt=None)
