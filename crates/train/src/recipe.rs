//! What whoever joins a job needs to know of it: one document, and the things it names by their hashes.
//!
//! Terms name the recipe by its hash, and the recipe names the tokenizer and the tokens. So all members train on the same tokens
//! in the same order, and nobody needs the files they came from.

use crate::{
    CourseError, Job, JobError, JobFile, Parameters, Shared, TextTokenizer,
    data::TokenSplit,
    depot::{Depot, Hash, Kind},
    material::Material,
    round::Terms,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use talka_base::{NodeId, WeightsHash};

/// Raised whenever members of two versions could not train together.
const VERSION: u32 = 2;
/// The longest recipe: a job file and some numbers.
pub const RECIPE_BYTES_MAX: u64 = 2 << 20;
/// The longest tokenizer.
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;

/// All that members have to agree on beside the terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    version: u32,
    /// The job, with the names of its data files only.
    pub job: JobFile,
    /// Steps of a member, over all rounds.
    pub steps: u64,
    /// Tokens of the vocabulary.
    pub vocab: u32,
    tokenizer: Thing,
    tokens: Thing,
}

/// Something that is fetched by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thing {
    /// Its BLAKE3 digest.
    pub hash: Hash,
    /// Its length.
    pub bytes: u64,
}

/// Why a recipe is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum RecipeError {
    #[error("the job's recipe is not understood: {0}")]
    Format(String),
    #[error(
        "the job was made by another version of Talka: its recipe has version {found}, expected {VERSION}"
    )]
    Version { found: u32 },
    #[error("the job's recipe is wrong: {0}")]
    Job(#[from] JobError),
    #[error("the job's recipe is wrong: {what} is {found}, expected {expected}")]
    Value { what: &'static str, found: u64, expected: String },
}

impl Recipe {
    /// Reads a recipe that somebody else wrote.
    ///
    /// # Errors
    /// [`RecipeError`] says what is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<(Self, Job), RecipeError> {
        let recipe: Self = serde_json::from_slice(bytes)
            .map_err(|error| RecipeError::Format(error.to_string()))?;
        if recipe.version != VERSION {
            return Err(RecipeError::Version { found: recipe.version });
        }
        let job = Job::try_from(recipe.job.clone())?;
        let bounds = [
            ("its number of steps", recipe.steps, 1 << 40),
            ("its vocabulary", recipe.vocab.into(), job.vocab_max().into()),
            ("its tokenizer's length", recipe.tokenizer.bytes, TOKENIZER_BYTES_MAX),
        ];
        for (what, found, max) in bounds {
            if !(1..=max).contains(&found) {
                return Err(RecipeError::Value { what, found, expected: format!("1 to {max}") });
            }
        }
        if job.network.is_none() {
            return Err(RecipeError::Format("it says nothing of [network]".into()));
        }
        Ok((recipe, job))
    }

    /// What has to be fetched before training begins.
    pub const fn things(&self) -> [Thing; 2] {
        [self.tokenizer, self.tokens]
    }

    /// What is trained on, once its things are in `depot`.
    pub(crate) fn material(&self, job: &Job, depot: &Depot) -> Result<Material, CourseError> {
        let thing = |thing: Thing| {
            let bytes = depot.read(&thing.hash)?;
            bytes
                .ok_or_else(|| RecipeError::Format("a thing it names is not here".into()))
                .map_err(CourseError::from)
        };
        let tokenizer = String::from_utf8(thing(self.tokenizer)?)
            .map_err(|error| RecipeError::Format(error.to_string()))?;
        let tokenizer = TextTokenizer::from_json(&tokenizer)?;
        let tokens = read_tokens(&thing(self.tokens)?, self.vocab)?;
        let (vocab, expected) = (tokenizer.vocab(), self.vocab);
        if vocab != expected {
            let (what, expected) = ("its tokenizer's vocabulary", expected.to_string());
            return Err(RecipeError::Value { what, found: vocab.into(), expected }.into());
        }
        Ok(Material::new(job, tokenizer, tokens))
    }
}

/// Begins a job that members train together: puts all that they need into `depot` and says on what they have to agree. The
/// tokenizer is kept in `folder`.
///
/// # Errors
/// The data cannot be used, or files cannot be written.
///
/// # Panics
/// If the job is not one for members.
pub fn found(
    job: &Job,
    file: &JobFile,
    folder: &Path,
    depot: &Depot,
    founder: NodeId,
) -> Result<Terms, CourseError> {
    let plan = job.network.as_ref().expect("asked for jobs with [network] only");
    let material = Material::read(job, folder)?;
    let vocab = material.tokenizer.vocab();
    // What is wrong with windows is said before anybody joins.
    let (steps, _) = (material.steps(job)?, material.validation(job)?);
    let keep = |bytes: &[u8]| -> Result<Thing, CourseError> {
        Ok(Thing { hash: depot.put(Kind::Always, bytes)?, bytes: bytes.len() as u64 })
    };
    let tokenizer = keep(material.tokenizer.to_json()?.as_bytes())?;
    let tokens = keep(&write_tokens(&material.tokens, vocab))?;
    let job_file = without_places(file.clone());
    let recipe = Recipe { version: VERSION, job: job_file, steps, vocab, tokenizer, tokens };
    let recipe = keep(&serde_json::to_vec(&recipe).expect("plain fields"))?;
    let weights = Parameters::new(&job.model(vocab)).initial_weights(job.seed);
    let base = depot.put(Kind::State(0), &Shared::new(weights).write())?;
    Ok(Terms {
        founder,
        base: WeightsHash(base),
        rounds: plan.rounds(steps),
        seats_min: plan.members_min,
        quota: u64::from(plan.steps_per_round) * u64::from(job.batch),
        window_ms: plan.window_ms,
        grace_ms: plan.grace_ms,
        late: plan.late,
        recipe: recipe.hash,
    })
}

/// Where its owner keeps data is nobody else's business.
fn without_places(mut file: JobFile) -> JobFile {
    let files = file.data_requirements.files.iter_mut().flatten();
    for path in files.chain(&mut file.tokenizer.file) {
        *path = path.file_name().map_or_else(|| "data".into(), PathBuf::from);
    }
    file
}

/// Tokens as bytes: how many bytes one takes (2 where the vocabulary allows, else 4), how many are to learn from (u64), then
/// these and those to judge by; little-endian.
fn write_tokens(tokens: &TokenSplit, vocab: u32) -> Vec<u8> {
    let width = if vocab <= 1 << 16 { 2 } else { 4 };
    let mut bytes = vec![width];
    bytes.extend((tokens.train.len() as u64).to_le_bytes());
    for token in tokens.train.iter().chain(&tokens.validation) {
        bytes.extend(&token.to_le_bytes()[..usize::from(width)]);
    }
    bytes
}

fn read_tokens(bytes: &[u8], vocab: u32) -> Result<TokenSplit, RecipeError> {
    let wrong = |reason: &str| RecipeError::Format(format!("its tokens: {reason}"));
    let (&width, rest) = bytes.split_first().ok_or_else(|| wrong("nothing is there"))?;
    let (train, rest) = rest.split_first_chunk().ok_or_else(|| wrong("they are cut off"))?;
    let mut tokens: Vec<u32> = match width {
        2 => rest.as_chunks().0.iter().map(|chunk| u16::from_le_bytes(*chunk).into()).collect(),
        4 => rest.as_chunks().0.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect(),
        _ => return Err(wrong("they are neither of 2 nor of 4 bytes")),
    };
    if tokens.iter().any(|token| *token >= vocab) {
        return Err(wrong("some are not in the vocabulary"));
    }
    let train = usize::try_from(u64::from_le_bytes(*train)).unwrap_or(usize::MAX);
    if train > tokens.len() || !rest.len().is_multiple_of(width.into()) {
        return Err(wrong("they are cut off"));
    }
    let validation = tokens.split_off(train);
    Ok(TokenSplit { train: tokens, validation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_their_places() {
        for vocab in [65, 65_536, 65_537, 128_256] {
            let (train, validation) = (vec![0, vocab - 1, 3], vec![vocab / 2]);
            let tokens = TokenSplit { train, validation };
            let bytes = write_tokens(&tokens, vocab);
            assert_eq!(read_tokens(&bytes, vocab).expect("tokens"), tokens);
            for wrong in [&bytes[..bytes.len() - 1], &bytes[..5], &[], &[3; 20]] {
                read_tokens(wrong, vocab).expect_err("no tokens");
            }
            read_tokens(&bytes, vocab - 1).expect_err("a token beyond the vocabulary");
        }
    }
}
