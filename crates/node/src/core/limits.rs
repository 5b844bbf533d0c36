//! What the owner of a running node changes: when others are served, how much memory the node offers, and which models
//! rest.
//!
//! A model that rests has no memory here: it gives its layers back at once, whoever serves them, and sessions under way
//! keep theirs until they end. Nothing here is remembered: the shell does that.

use super::{Core, OwnModel, owner::Opening};
use talka_base::ModelId;

impl Core {
    /// When this node gives work to others, apart from what is seen.
    pub fn opening(&self) -> &Opening {
        self.owner.opening()
    }

    /// Models that rest.
    pub fn resting(&self) -> impl Iterator<Item = ModelId> + '_ {
        self.models.iter().filter(|model| model.rests).map(|model| model.id)
    }

    /// The owner sets other limits; what opens or closes shows at the next look at the machine.
    pub(super) fn limited(&mut self, opening: Opening, memory_bytes: u64) {
        self.owner.reopen(opening);
        self.memory_bytes = memory_bytes;
    }

    /// The owner has one more model: what each may take of the memory is decided anew.
    pub(super) fn serve(&mut self, model: OwnModel) {
        if self.models.iter().all(|own| own.id != model.id) {
            self.models.push(model);
        }
    }

    /// The owner lets a model rest, or wakes it: then spans that could not be loaded are tried again.
    pub(super) fn rest(&mut self, model: ModelId, rests: bool) {
        for own in self.models.iter_mut().filter(|own| own.id == model) {
            own.rests = rests;
            own.failed.clear();
        }
    }
}
