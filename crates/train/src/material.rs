//! What a job learns from, read and cut into tokens: once by whoever submits it, and told to other members as bytes.

use crate::{
    Batch, CourseError, Job, ModelConfig, TextTokenizer, WeightWidth,
    data::{DataError, TextSource, TokenSplit, Windows, tokenize, validation_batches},
    files,
    job::TokenizerPlan,
    write_model,
};
use std::path::Path;

/// Of the validation data at most so many tokens are looked at: their mean is known to a hundredth by then, and a look costs no
/// more than some steps.
const VALIDATION_TOKENS_MAX: usize = 1 << 17;

const TOKENIZER: &str = "tokenizer.json";

/// Tokens, and how they were made.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) tokens: TokenSplit,
    /// What the order of samples follows from: the job's seed and all of its tokens, so that other data are noticed.
    pub(crate) data_seed: u64,
    /// What versions are written in.
    width: WeightWidth,
}

impl Material {
    /// Reads the job's data; the tokenizer that was made before is in `folder`, else a new one is kept there.
    pub(crate) fn read(job: &Job, folder: &Path) -> Result<Self, CourseError> {
        let documents = documents(&job.data.sources)?;
        let tokenizer = tokenizer(job, folder, &documents)?;
        let tokens = tokenize(&documents, &tokenizer, job.data.validation_split)?;
        Ok(Self::new(job, tokenizer, tokens))
    }

    /// Of tokens that were made elsewhere.
    pub(crate) fn new(job: &Job, tokenizer: TextTokenizer, tokens: TokenSplit) -> Self {
        Self { data_seed: data_seed(job.seed, &tokens), tokenizer, tokens, width: job.width }
    }

    /// Windows of `length + 1` tokens, in the order in which they are trained on.
    pub(crate) fn windows(&self, length: usize) -> Result<Windows<'_>, DataError> {
        Windows::new(&self.tokens.train, length, self.data_seed)
    }

    /// Steps of the job, of one batch each.
    pub(crate) fn steps(&self, job: &Job) -> Result<u64, DataError> {
        let windows = self.windows(job.length as usize)?.per_epoch();
        Ok(job.amount.steps(job.batch, job.tokens_per_step(), windows))
    }

    /// What the model is judged by; nothing if the job keeps nothing back.
    pub(crate) fn validation(&self, job: &Job) -> Result<Vec<Batch>, DataError> {
        if job.data.validation_split == 0.0 {
            return Ok(Vec::new());
        }
        let all = &self.tokens.validation;
        let looked_at = &all[..all.len().min(VALIDATION_TOKENS_MAX)];
        let rows = job.rows_at_once.unwrap_or(job.batch as usize);
        validation_batches(looked_at, job.length as usize, rows)
    }

    /// Writes a model of this material into `folder`, which is there, in the layout that is served.
    pub(crate) fn publish(
        &self,
        model: &ModelConfig,
        weights: &[f32],
        folder: &Path,
    ) -> Result<(), CourseError> {
        write_model(folder, model, weights, self.width, self.tokenizer.end())?;
        Ok(files::write(&folder.join(TOKENIZER), self.tokenizer.to_json()?.as_bytes())?)
    }
}

/// The BLAKE3 digest of weights, in hexadecimal.
pub(crate) fn hash_of(weights: &[f32]) -> String {
    let mut hasher = blake3::Hasher::new();
    for weight in weights {
        hasher.update(&weight.to_le_bytes());
    }
    hasher.finalize().to_string()
}

pub(crate) fn documents(sources: &[TextSource]) -> Result<Vec<String>, DataError> {
    let mut all = Vec::new();
    for source in sources {
        all.extend(source.documents()?);
    }
    Ok(all)
}

pub(crate) fn texts(documents: &[String]) -> impl Iterator<Item = &str> {
    documents.iter().map(String::as_str)
}

/// The job's tokenizer: the one that was made before, else a new one, which is kept.
fn tokenizer(job: &Job, folder: &Path, documents: &[String]) -> Result<TextTokenizer, CourseError> {
    let size = match &job.tokenizer {
        TokenizerPlan::Characters => return Ok(TextTokenizer::characters(texts(documents))),
        TokenizerPlan::File(path) => return read_tokenizer(path),
        TokenizerPlan::Bpe { size } => *size,
    };
    let kept = folder.join(TOKENIZER);
    if kept.exists() {
        return read_tokenizer(&kept);
    }
    let texts: Vec<&str> = texts(documents).collect();
    let tokenizer = TextTokenizer::bpe(&texts, size)?;
    files::write(&kept, tokenizer.to_json()?.as_bytes())?;
    Ok(tokenizer)
}

pub(crate) fn read_tokenizer(path: &Path) -> Result<TextTokenizer, CourseError> {
    let bytes = files::read(path)?;
    let text = str::from_utf8(&bytes)
        .map_err(|error| DataError::NotUtf8 { path: path.to_owned(), at: error.valid_up_to() })?;
    Ok(TextTokenizer::from_json(text)?)
}

/// What the order of samples follows from: the job's seed and all of its tokens, so that other data are noticed.
fn data_seed(seed: u64, tokens: &TokenSplit) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    for part in [&tokens.train, &tokens.validation] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        for token in part {
            hasher.update(&token.to_le_bytes());
        }
    }
    let digest = *hasher.finalize().as_bytes();
    digest.as_chunks().0.first().map_or(seed, |first| u64::from_le_bytes(*first))
}
