//! The ledger: a chain of entries that one node orders, and the book they fold into.

use crate::{
    book::{Book, Member, NodeRecord, OpenReservation},
    common_work,
    entry::{Account, Bucket, Entry, Event, Founding, Posting},
    epoch::{self, Paper, Shares},
    error::{LedgerError, ReplayError},
    forward::OpenForwarding,
    govern::Ballot,
    lots,
    order::{Turns, Witnesses, witnesses},
    policy::Policy,
    profile::Task,
    proof::PATH_MAX,
    removal::RemovedNode,
    rules::{self, Outcome},
    share::Breakdown,
    standing::Standing,
    state::{self, RecordKey, StateRecord},
};
use talka_base::{
    Amount, Credits, EntryHash, Keypair, MemberId, ModelId, NetworkId, NodeId, ProposalId,
    RequestId, Signed, Tick, TreeHash,
};

/// The state after some entries, from the founding on. Two ledgers that applied the same entries
/// are equal, on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    book: Book,
}

impl Ledger {
    /// Founds a network: its ledger, and the entry at height 0 to be stored first.
    ///
    /// # Errors
    /// [`LedgerError`] if `keys` are not the founder's, a name does not fit, or the policy is of
    /// another version.
    pub fn found(
        keys: &Keypair,
        founding: Founding,
        at: Tick,
    ) -> Result<(Self, Signed<Entry>), LedgerError> {
        let event = Event::Founded(founding.clone());
        event.check_bounds()?;
        let mut ledger = Self { book: Book::blank(&founding) };
        let entry = ledger.propose(keys, at, event)?;
        ledger.apply(&entry)?;
        Ok((ledger, entry))
    }

    /// The ledger of the network that `first` founds. Which network that is, the caller compares.
    ///
    /// # Errors
    /// [`LedgerError`] if `first` is no valid founding.
    pub fn begin(first: &Signed<Entry>) -> Result<Self, LedgerError> {
        let event = &first.claimed_value().event;
        let Event::Founded(founding) = event else {
            let (height, expected, found) = (0, "founded", event.kind());
            return Err(LedgerError::Founding { height, expected, found });
        };
        event.check_bounds()?;
        let mut ledger = Self { book: Book::blank(founding) };
        ledger.apply(first)?;
        Ok(ledger)
    }

    /// Applies `entries` from the founding on, each checked in full.
    ///
    /// # Errors
    /// [`ReplayError`] names the first entry that does not follow; [`LedgerError::Empty`] at
    /// height 0 if there is none.
    pub fn replay(entries: impl IntoIterator<Item = Signed<Entry>>) -> Result<Self, ReplayError> {
        let mut entries = entries.into_iter();
        let at = |height| move |source| ReplayError { height, source };
        let first = entries.next().ok_or_else(|| at(0)(LedgerError::Empty))?;
        let mut ledger = Self::begin(&first).map_err(at(0))?;
        for (height, entry) in (1..).zip(entries) {
            ledger.apply(&entry).map_err(at(height))?;
        }
        Ok(ledger)
    }

    /// The next entry for `event`, signed, changing nothing: it counts once [`Ledger::apply`]
    /// took it, which is to happen after it is durable.
    ///
    /// The ledger's time never runs backwards: if `at` is before the last entry, that one's time
    /// is used.
    ///
    /// # Errors
    /// [`LedgerError`]; among them [`LedgerError::Duplicate`] for an event already recorded and
    /// [`LedgerError::Insufficient`] for a payer who cannot afford a reservation.
    pub fn propose(
        &self,
        keys: &Keypair,
        at: Tick,
        event: Event,
    ) -> Result<Signed<Entry>, LedgerError> {
        let orderer = NodeId(keys.public());
        self.check_orderer(orderer)?;
        let at = at.max(self.book.at);
        let Outcome { postings, .. } = rules::judge(&self.book, at, &event)?;
        let (height, previous) = (self.book.entries, self.book.head);
        let (event_id, author, evidence) = (event.id(), event.author(orderer), event.evidence());
        let entry = Entry { height, previous, at, event_id, author, event, evidence, postings };
        Ok(keys.sign(entry))
    }

    /// Takes the next entry, checking everything about it: whether its signer may order, its place in
    /// the chain, its time, its event and the postings that follow from that.
    ///
    /// # Errors
    /// [`LedgerError`]; the ledger is then unchanged.
    pub fn apply(&mut self, signed: &Signed<Entry>) -> Result<(), LedgerError> {
        let claimed = NodeId(*signed.claimed_signer());
        let orderer = if self.may_order(&claimed) { claimed } else { self.book.founder };
        let entry = signed.verify_by(&orderer.0)?;
        self.check_orderer(orderer)?;
        self.check_place(entry)?;
        let Outcome { postings, change } = rules::judge(&self.book, entry.at, &entry.event)?;
        self.check_fields(entry, orderer)?;
        check_postings(&postings, &entry.postings)?;
        self.book.post(entry.at, &postings);
        self.book.fold(entry.at, change);
        self.book.entries += 1;
        self.book.head = entry.hash();
        self.book.at = entry.at;
        Ok(())
    }

    fn check_orderer(&self, found: NodeId) -> Result<(), LedgerError> {
        if self.may_order(&found) {
            return Ok(());
        }
        Err(if self.book.turns.by_turns {
            LedgerError::NotWitness { found }
        } else {
            LedgerError::NotSequencer { expected: self.book.founder, found }
        })
    }

    fn check_place(&self, entry: &Entry) -> Result<(), LedgerError> {
        let (expected, found) = (self.book.entries, entry.height);
        if found != expected {
            return Err(LedgerError::Height { expected, found });
        }
        let (expected, found) = (self.book.head, entry.previous);
        if found != expected {
            return Err(LedgerError::Previous { height: entry.height, expected, found });
        }
        let (expected, found) = (self.book.at, entry.at);
        if found < expected {
            return Err(LedgerError::Backwards { expected, found });
        }
        Ok(())
    }

    /// What the entry says of its event is what the event says of itself.
    fn check_fields(&self, entry: &Entry, orderer: NodeId) -> Result<(), LedgerError> {
        let event = &entry.event;
        rules::check_field("entry", "event id", event.id(), entry.event_id)?;
        rules::check_field("entry", "author", event.author(orderer), entry.author)?;
        rules::check_field("entry", "evidence", event.evidence(), entry.evidence)
    }

    /// Whether `event` would be taken now, at `at`: what its author asks before sending it.
    ///
    /// # Errors
    /// As [`Ledger::propose`].
    pub fn would_take(&self, at: Tick, event: &Event) -> Result<(), LedgerError> {
        rules::judge(&self.book, at.max(self.book.at), event).map(|_| ())
    }

    pub(crate) const fn from_book(book: Book) -> Self {
        Self { book }
    }

    pub(crate) const fn book(&self) -> &Book {
        &self.book
    }

    /// The network.
    pub const fn network(&self) -> NetworkId {
        self.book.network
    }

    /// What people call the network.
    pub fn name(&self) -> &str {
        &self.book.name
    }

    /// The node that founded the network. It orders the entries, unless the witnesses do by turns.
    pub const fn founder(&self) -> NodeId {
        self.book.founder
    }

    /// The policy in force: the founding one until the members decide on another.
    pub const fn policy(&self) -> &Policy {
        &self.book.policy
    }

    /// The height of the last entry.
    pub const fn height(&self) -> u64 {
        self.book.entries - 1
    }

    /// The hash of the last entry.
    pub const fn head_hash(&self) -> EntryHash {
        self.book.head
    }

    /// The time of the last entry.
    pub const fn at(&self) -> Tick {
        self.book.at
    }

    /// The root of the tree over everything the entries amount to. Takes time in proportion to what changed since this ledger, or one
    /// that it is a copy of, was asked last.
    pub fn state_root(&self) -> TreeHash {
        self.state_tree().1
    }

    /// How many [records](Ledger::records) there are, and the root of the tree over them.
    pub(crate) fn state_tree(&self) -> (u64, TreeHash) {
        state::root(&self.book)
    }

    /// Everything the entries amount to, in the order of the state's tree.
    pub fn records(&self) -> impl Iterator<Item = StateRecord> {
        state::records(&self.book)
    }

    /// A record with its path to the state root, and, bit by bit, which hashes of that stand on the left. Nothing if
    /// there is no such record.
    pub fn prove_record(&self, which: RecordKey) -> Option<(u64, StateRecord, Vec<TreeHash>)> {
        let (record, path) = state::prove(&self.book, which)?;
        let is_left = |level: usize| u64::from(path[level].0) << level;
        // Longer only where somebody sought ids that are alike to 60 bits.
        let index = (path.len() <= PATH_MAX).then(|| (0..path.len()).map(is_left).sum())?;
        Some((index, record, path.into_iter().map(|(_, hash)| hash).collect()))
    }

    /// The hash of the parameters in force, as blocks name them.
    pub fn parameters_hash(&self) -> TreeHash {
        state::parameters_hash(&self.book.policy)
    }

    /// A member's spendable credits, or `None` if it has no account.
    pub fn balance(&self, member: &MemberId) -> Option<Credits> {
        self.book.members.contains_key(member).then(|| self.bucket(member, Bucket::Spendable))
    }

    /// A member's credits in `bucket`; none if it has no account.
    pub fn bucket(&self, member: &MemberId, bucket: Bucket) -> Credits {
        let Amount(amount) = self.book.balance(Account::Member(*member, bucket));
        Credits(amount.try_into().expect("a member's bucket is never below zero"))
    }

    /// Any account's balance; zero if it was never used.
    pub fn account(&self, account: Account) -> Amount {
        self.book.balance(account)
    }

    /// Every account ever used, in order.
    pub fn accounts(&self) -> impl Iterator<Item = (Account, Amount)> {
        self.book.balances.iter().map(|(&account, &amount)| (account, amount))
    }

    /// Every member, by id.
    pub fn members(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.book.members.iter().map(|(&id, member)| (id, member))
    }

    /// One member.
    pub fn member(&self, member: &MemberId) -> Option<&Member> {
        self.book.members.get(member)
    }

    /// Every node, by id.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeRecord)> {
        self.book.nodes.iter().map(|(&id, node)| (id, node))
    }

    /// A node of a member.
    pub fn node(&self, node: &NodeId) -> Option<&NodeRecord> {
        self.book.nodes.get(node)
    }

    /// The nodes whose cosignatures blocks need; none while the ledger is solo.
    pub const fn witnesses(&self) -> &Witnesses {
        &self.book.witnesses
    }

    /// Whether an entry with this event, as the next one, names witnesses.
    pub fn names_witnesses(&self, event: &Event) -> bool {
        witnesses::are_named_by(&self.book, event)
    }

    /// The height of the entry that named them; 0 while nobody was named.
    pub const fn appointed_at(&self) -> u64 {
        self.book.appointed
    }

    /// Who may order entries, and since when.
    pub const fn turns(&self) -> Turns {
        self.book.turns
    }

    /// Whether this node may order the next entry.
    pub fn may_order(&self, node: &NodeId) -> bool {
        match self.book.turns.by_turns {
            true => self.book.witnesses.contains(node),
            false => *node == self.book.founder,
        }
    }

    /// The nodes whose signature makes a note a block of this ledger, beside cosignatures: whoever orders now, or did
    /// when these witnesses were named.
    pub fn signers(&self) -> impl Iterator<Item = NodeId> {
        std::iter::once(self.book.founder).chain(self.book.witnesses.nodes())
    }

    /// Whose node it is.
    pub fn member_of(&self, node: &NodeId) -> Option<MemberId> {
        self.book.nodes.get(node).map(|record| record.member)
    }

    /// A node that was part of the network and was removed.
    pub fn removed(&self, node: &NodeId) -> Option<RemovedNode> {
        self.book.removed.get(node).copied()
    }

    /// Whether the node belongs to the network.
    pub fn is_member_node(&self, node: &NodeId) -> bool {
        self.book.nodes.contains_key(node)
    }

    /// How `request`, which the entry at `height` settled, was shared, if it is one of the last.
    pub fn breakdown(&self, height: u64, request: &RequestId) -> Option<&Breakdown> {
        self.book.breakdowns.get(&(height, *request))
    }

    /// Keeps, for people, how the sessions of the epoch at `height` were shared.
    pub fn remember(&mut self, height: u64, shares: Shares) {
        for (request, breakdown) in shares {
            self.book.remember(height, request, breakdown);
        }
    }

    /// As [`Ledger::apply`]; if it is an epoch, whether it is what its `papers` give, too, and how they were shared is
    /// [remembered](Ledger::remember).
    ///
    /// # Errors
    /// [`LedgerError`]; the ledger is then unchanged.
    pub fn apply_with(
        &mut self,
        signed: &Signed<Entry>,
        papers: &[Paper],
    ) -> Result<(), LedgerError> {
        let entry = signed.claimed_value();
        let Event::EpochCounted(counted) = &entry.event else { return self.apply(signed) };
        let shares = epoch::check(self, entry.at, counted, papers)?;
        self.apply(signed)?;
        self.remember(entry.height, shares);
        Ok(())
    }

    /// What a node's work counts for; of a stranger, what that of a new node does.
    pub fn standing(&self, node: &NodeId) -> Standing {
        self.book.standing(node)
    }

    /// The request's reservation, as long as it is neither settled nor released.
    pub fn reservation(&self, request: &RequestId) -> Option<&OpenReservation> {
        self.book.open.get(request)
    }

    /// Every open reservation, by request.
    pub fn reservations(&self) -> impl Iterator<Item = &OpenReservation> {
        self.book.open.values()
    }

    /// The request's forwarding, as long as it is neither delivered nor released.
    pub fn forwarding(&self, request: &RequestId) -> Option<&OpenForwarding> {
        self.book.forwarded.get(request)
    }

    /// Whether the request that the entry at `height` began is over, as far as this ledger goes.
    pub fn is_over(&self, request: &RequestId, height: u64) -> bool {
        height <= self.height() && self.book.cap(request).is_none()
    }

    /// Whether the request was settled, delivered or released lately: the ledger forgets.
    pub fn is_closed(&self, request: &RequestId) -> bool {
        self.book.requests.get(request).is_some_and(|history| history.closed.is_some())
    }

    /// What is set aside for each open request, with its payer.
    pub fn caps(&self) -> impl Iterator<Item = (RequestId, MemberId, Credits)> {
        self.book.caps().map(|(request, cap)| (request, cap.payer, cap.credits))
    }

    /// Open requests that the sequencer may release as expired at `now`.
    pub fn expired(&self, now: Tick) -> Vec<RequestId> {
        let caps = self.book.caps();
        caps.filter(|(_, cap)| rules::expires_at(&self.book, cap) <= now)
            .map(|(request, _)| request)
            .collect()
    }

    /// Members with credits that expire at `now`: what [`Event::Expired`] may burn.
    pub fn expiring_now(&self, now: Tick) -> Vec<MemberId> {
        let members = self.book.members.keys().copied();
        members.filter(|member| lots::due(&self.book, now, *member) > Credits::ZERO).collect()
    }

    /// Members with held earnings that can be spent from `now` on: what [`Event::Freed`] may move.
    pub fn freed_now(&self, now: Tick) -> Vec<MemberId> {
        let members = self.book.held.keys().copied();
        let is_due = |id: &MemberId| common_work::free(&self.book, now, *id) > Credits::ZERO;
        members.filter(is_due).collect()
    }

    /// What of a member's credits expires within the time of which the policy warns, counted from `now`, and when the
    /// first of it does; nothing if nothing does.
    pub fn expiring_soon(&self, member: &MemberId, now: Tick) -> Option<(Credits, Tick)> {
        lots::warning(&self.book, now, *member)
    }

    /// The proposal to be decided before anything else may be recorded at `now`.
    pub fn undecided(&self, now: Tick) -> Option<ProposalId> {
        let (since, proposal) = self.book.assembly.waiting.first()?;
        (now >= *since).then_some(*proposal)
    }

    /// Every proposal ever made, by id.
    pub fn ballots(&self) -> impl Iterator<Item = (ProposalId, &Ballot)> {
        self.book.assembly.ballots.iter().map(|(&id, ballot)| (id, ballot))
    }

    /// One proposal.
    pub fn ballot(&self, proposal: &ProposalId) -> Option<&Ballot> {
        self.book.assembly.ballots.get(proposal)
    }

    /// Whether requests for a model are taken.
    pub fn is_allowed(&self, model: &ModelId) -> bool {
        !self.book.assembly.forbidden.contains_key(model)
    }

    /// Whether a member was suspended by the others.
    pub fn is_suspended(&self, member: &MemberId) -> bool {
        self.book.assembly.suspended.contains_key(member)
    }

    /// What a task of `node` would be worth at `now` in this economy, whatever is left of the day's budget; nothing for a
    /// node of nobody here.
    pub fn worth(&self, node: &NodeId, task: &Task, now: Tick) -> Option<Credits> {
        common_work::worth(&self.book, now, *node, task).ok().map(|(_, credits)| credits)
    }

    /// The number that the next report of common work carries.
    pub const fn next_report(&self) -> u64 {
        self.book.purse.serial + 1
    }
}

fn check_postings(expected: &[Posting], found: &[Posting]) -> Result<(), LedgerError> {
    for index in 0..expected.len().max(found.len()) {
        let (expected, found) = (expected.get(index).copied(), found.get(index).copied());
        if expected != found {
            return Err(LedgerError::Postings { index, expected, found });
        }
    }
    Ok(())
}
