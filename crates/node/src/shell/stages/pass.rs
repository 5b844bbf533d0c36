//! Steps of several sessions through the layers together.
//!
//! Decides which rows go next ([`share_out`], pure): sessions that want a token or a few come first, and
//! prompts share what room is left, so that a long one never holds up the others. Sessions join and leave
//! between passes.

use super::{Session, SessionKey, StageKey, Worker, check::Wrong, now};
use crate::{
    core::best,
    shell::{Shared, meter::Pass},
    wire::{Answer, Flow, GUESSES_MAX, Leg, Payload, Step, Wanted},
};
use std::time::{Duration, Instant};
use talka_base::LayerSpan;
use talka_engine::{BatchItem, LogitsWanted, Pooling, StageInput, StageOutput};

/// Rows of one pass: enough to use each weight often, few enough to be over soon.
const ROWS_MAX: usize = 256;

/// Rows of a step that is not cut: a token with its guesses.
const SHORT_ROWS: usize = GUESSES_MAX as usize + 1;

/// A step under way.
pub(super) struct Pending {
    step: Step,
    /// Rows that are through.
    done: usize,
    /// The output so far.
    hidden: Vec<f32>,
}

impl Pending {
    pub fn new(step: Step) -> Self {
        Self { step, done: 0, hidden: Vec::new() }
    }

    /// Where the session was before this step.
    pub fn position(&self) -> u32 {
        self.step.position
    }

    fn rows(&self, width: u32) -> usize {
        match &self.step.payload {
            Payload::Tokens(tokens) => tokens.len(),
            Payload::Hidden { values, .. } => values.len() / width as usize,
            Payload::Answer(_) => 0,
        }
    }
}

/// Sessions that can go through the layers together: same stage, same span of it.
type Group = (StageKey, LayerSpan);

/// A session that is in a pass, taken out of the table.
type Member = (SessionKey, Session);

/// What a session could do in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Want {
    rows: usize,
    /// All rows, or none.
    whole: bool,
}

/// How many rows each gets, in the order of waiting. The first always gets some.
fn share_out(wants: &[Want]) -> Vec<usize> {
    let mut shares = vec![0; wants.len()];
    let mut room = ROWS_MAX;
    let short = |want: &Want| want.whole || want.rows <= SHORT_ROWS;
    for (share, want) in shares.iter_mut().zip(wants) {
        if short(want) && (want.rows <= room || room == ROWS_MAX) {
            *share = want.rows;
            room = room.saturating_sub(want.rows);
        }
    }
    let mut prompts = wants.iter().filter(|want| !short(want)).count();
    // Prompts never starve behind tokens: at least an eighth of a pass is theirs.
    room = room.max(ROWS_MAX / 8);
    for (share, want) in shares.iter_mut().zip(wants).filter(|(_, want)| !short(want)) {
        *share = want.rows.min((room / prompts).max(1)).min(room);
        room -= *share;
        prompts -= 1;
    }
    shares
}

impl Worker {
    /// Whether no step waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes one batch of rows through a stage, and delivers what became ready.
    pub(super) fn pass(&mut self, shared: &Shared) {
        let Some((group, mut members)) = self.choose() else { return };
        let wants: Vec<Want> = members.iter().map(|(_, session)| want(session)).collect();
        let shares = share_out(&wants);
        let (layers, begun) = (members[0].1.cache.span().len(), Instant::now());
        let outputs = self.run_rows(group, &mut members, &shares);
        self.measured(shared, group, layers, shares.iter().sum(), begun.elapsed());
        for (((key, mut session), rows), output) in members.into_iter().zip(shares).zip(outputs) {
            let ended = output.map_or(Ok(()), |output| {
                let output = output.map_err(|error| error.to_string())?;
                session.finish_rows(shared, key.1, rows, output)
            });
            self.put_back(shared, key, session, ended);
        }
    }

    /// A pass of so many rows through so many layers took `time`.
    fn measured(&self, shared: &Shared, stage: StageKey, layers: u32, rows: usize, time: Duration) {
        // One token alone: what placements and routes reckon with.
        if rows == 1 {
            shared.meter.ran(stage.0, layers, time);
        }
        let Some(known) = shared.model_by_id(stage.0) else { return };
        let shape = known.model.shape();
        let row_flops = 2.0 * shape.layer_parameters() as f64 * f64::from(layers);
        let part = u64::from(layers) * known.model.span_bytes(stage.1) / u64::from(stage.1.len());
        shared.meter.passed(Pass { rows, row_flops, weight_bytes: part }, time);
    }

    /// Sessions that wait for the stage whose turn it is, the longest waiting first, taken out of the table.
    fn choose(&mut self) -> Option<(StageKey, Vec<Member>)> {
        let mut chosen = None::<(Group, usize)>;
        let mut members = Vec::new();
        for key in std::mem::take(&mut self.waiting) {
            // One that broke meanwhile has nothing to do.
            let waits = |session: &&Session| !session.pending.is_empty();
            let Some(session) = self.sessions.get(&key).filter(waits) else { continue };
            let group = session.group();
            let (turn, most) = *chosen.get_or_insert_with(|| (group, self.together(group)));
            if turn == group && members.len() < most {
                members.extend(self.sessions.remove(&key).map(|session| (key, session)));
            } else {
                self.waiting.push_back(key);
            }
        }
        chosen.map(|((stage, _), _)| (stage, members))
    }

    /// How many sessions go through a stage together at most: so few that every stage of their routes has
    /// some. All at once would have the other stages wait.
    fn together(&self, group: Group) -> usize {
        let sessions = self.sessions.values().filter(|session| session.group() == group);
        let hops = sessions.clone().map(|session| session.open.route.len()).max();
        sessions.count().div_ceil(hops.unwrap_or(1))
    }

    /// The outputs of those members that have rows in this pass.
    fn run_rows(
        &mut self,
        stage: StageKey,
        members: &mut [Member],
        shares: &[usize],
    ) -> Vec<Option<Result<StageOutput, talka_engine::StageError>>> {
        let mut items = Vec::new();
        for ((_, session), rows) in members.iter_mut().zip(shares).filter(|(_, rows)| **rows > 0) {
            items.push(session.item(*rows));
        }
        let loaded = self.stages.get_mut(&stage).expect("stages outlive their sessions");
        let mut outputs = loaded.stage.run_batch(&mut items).into_iter();
        shares.iter().map(|rows| if *rows > 0 { outputs.next() } else { None }).collect()
    }

    /// Returns a session to the table, or ends it with the reason why it cannot go on.
    fn put_back(
        &mut self,
        shared: &Shared,
        key: SessionKey,
        session: Session,
        ended: Result<(), Wrong>,
    ) {
        let (waits, closing) = (!session.pending.is_empty(), session.closing);
        // What nobody signs for waits for a voucher.
        let goes_on = session.pay.may_go_on();
        self.sessions.insert(key, session);
        match ended {
            Err(wrong) => self.fail(shared, key, wrong),
            Ok(()) if waits && goes_on => self.waiting.push_back(key),
            Ok(()) if waits && !closing => {}
            Ok(()) if closing => self.end(shared, key),
            Ok(()) => {}
        }
    }
}

/// Whether an answer needs nothing of rows that sequences before have computed, but for the last.
fn may_adopt(wants: Wanted) -> bool {
    match wants {
        Wanted::Logits(logits) => logits != LogitsWanted::All,
        Wanted::Vector(pooling) => pooling == Pooling::Last,
    }
}

fn want(session: &Session) -> Want {
    let pending = session.pending.front().expect("a session that waits has a step");
    let rows = pending.rows(session.width) - pending.done;
    // A step whose every row is answered stays whole, and a text whose rows see later ones.
    Want { rows, whole: pending.step.wants.is_whole() || session.sees_ahead }
}

impl Session {
    fn group(&self) -> Group {
        (self.stage, self.cache.span())
    }

    /// The next `rows` rows of its first step.
    fn item(&mut self, rows: usize) -> BatchItem<'_> {
        let pending = self.pending.front().expect("a session that waits has a step");
        let range = pending.done..pending.done + rows;
        let is_last = range.end == pending.rows(self.width);
        let width = self.width as usize;
        let input = match &pending.step.payload {
            Payload::Hidden { values, .. } => {
                StageInput::Hidden(&values[range.start * width..range.end * width])
            }
            Payload::Tokens(tokens) => StageInput::Tokens(&tokens[range]),
            Payload::Answer(_) => {
                unreachable!("such a step was refused when it came")
            }
        };
        let ends = self.ends;
        let logits = if is_last && ends { pending.step.wants.logits() } else { LogitsWanted::None };
        BatchItem { input, cache: &mut self.cache, logits }
    }

    /// Notes that `rows` more rows are through; delivers the step once it is complete.
    fn finish_rows(
        &mut self,
        shared: &Shared,
        leg: Leg,
        rows: usize,
        output: StageOutput,
    ) -> Result<(), Wrong> {
        let next = self.next_hop(leg).zip(self.next);
        let width = self.width;
        let pending = self.pending.front_mut().expect("rows of a step were run");
        pending.done += rows;
        let is_complete = pending.done == pending.rows(width);
        let values = match output {
            StageOutput::Logits(values) => Some(values),
            StageOutput::Hidden(values) => {
                // The end of the model keeps nothing of a prompt that goes on.
                if next.is_some() || matches!(pending.step.wants, Wanted::Vector(_)) {
                    pending.hidden.extend(values);
                }
                None
            }
        };
        self.used_at = now();
        self.pay.worked(self.cache.len(), self.logits);
        if !is_complete {
            return Ok(());
        }
        let Pending { step, hidden, .. } = self.pending.pop_front().expect("it was there");
        let rows = self.cache.len() - step.position;
        let is_answered_whole = step.wants.is_whole();
        self.rewindable = if is_answered_whole { (rows - 1).min(GUESSES_MAX) } else { 0 };
        let (to, payload) = match (values, next, step.wants) {
            (Some(values), ..) => {
                self.logits += if is_answered_whole { rows } else { 1 };
                (self.head, Payload::Answer(self.answer(values)))
            }
            (None, Some((next, party)), _) => {
                if let Some(told) = &mut self.told {
                    told.extend_from_slice(&hidden);
                }
                // A stage that is not fresh holds what is told again.
                if self.cache.len() <= self.open.held && !next.fresh {
                    return self.start_step();
                }
                let dtype = self.open.frames;
                (party, Payload::Hidden { width, dtype, values: hidden })
            }
            (None, None, Wanted::Vector(pooling)) => {
                let vector = pooling.pool(&hidden, width as usize);
                (self.head, Payload::Answer(Answer::Vector(vector)))
            }
            // The last stage, and the head wants nothing yet.
            (None, None, Wanted::Logits(_)) => return self.start_step(),
        };
        let step = Step { leg: leg.next(), payload, ..step };
        shared.deliver_to(to, Flow::Step(step));
        self.start_step()
    }

    /// What the head needs of `logits` `[T, V]`.
    fn answer(&self, values: Vec<f32>) -> Answer {
        let vocab = self.vocab;
        let Some(wanted) = &self.open.best else { return Answer::Logits { vocab, values } };
        let rows = values.chunks_exact(vocab as usize);
        let picks: Vec<_> = rows.map(|row| best::pick(row, wanted)).collect();
        Answer::Best { count: picks[0].len() as u32, picks: picks.concat() }
    }

    /// Makes ready for the first step that waits: forgets wrong guesses, and takes from sequences before
    /// what they have in common.
    pub(super) fn start_step(&mut self) -> Result<(), Wrong> {
        let Some(pending) = self.pending.front() else { return Ok(()) };
        let position = pending.step.position;
        self.rewind(position)?;
        let pending = self.pending.front_mut().expect("it is still there");
        match &pending.step.payload {
            Payload::Tokens(tokens) if self.ends && may_adopt(pending.step.wants) => {
                pending.done = self.cache.adopt(tokens);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prompt(rows: usize) -> Want {
        Want { rows, whole: false }
    }

    #[test]
    fn tokens_go_before_prompts_and_prompts_share_the_rest() {
        let shares = share_out(&[prompt(5_000), prompt(1), prompt(100), prompt(3)]);
        assert_eq!(shares, [126, 1, 100, 3]);
        let many = vec![prompt(1); 300];
        assert_eq!(share_out(&many).iter().sum::<usize>(), ROWS_MAX);
        assert_eq!(share_out(&[Want { rows: 900, whole: true }]), [900]);
    }

    proptest! {
        #[test]
        fn every_pass_moves_somebody_and_none_takes_too_much(
            wants in prop::collection::vec((1_usize..3_000, any::<bool>()), 1..40)
        ) {
            let wants: Vec<Want> =
                wants.into_iter().map(|(rows, whole)| Want { rows, whole }).collect();
            let shares = share_out(&wants);
            prop_assert!(shares.iter().any(|share| *share > 0));
            for (share, want) in shares.iter().zip(&wants) {
                prop_assert!(*share <= want.rows);
                prop_assert!(!want.whole || *share == 0 || *share == want.rows);
            }
            // A prompt is never shut out, whoever else is there.
            let long = |want: &Want| !want.whole && want.rows > SHORT_ROWS;
            if let Some(first) = wants.iter().position(long) {
                prop_assert!(shares[first] > 0);
            }
            // The one that waited longest goes on.
            prop_assert!(shares[0] > 0);
        }
    }
}
