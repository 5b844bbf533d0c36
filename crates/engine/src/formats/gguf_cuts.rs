//! How text is cut before byte-level BPE, by the names that GGUF files have for it.
//!
//! A file holds only a name (`tokenizer.ggml.pre`); the regular expressions are those that each family
//! publishes in its `tokenizer.json`. A wrong cut gives other tokens than the model learnt from, and no error
//! tells, so a name that is not known here is refused. Differs from llama.cpp where that approximates: letters
//! beyond ASCII have their case (`tekken`, `gpt-4o`), and Qwen's text is brought to NFC first, as published.

use super::gguf::GgufError;
use serde_json::{Value as Json, json};

/// Which expressions cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// GPT-2's.
    Gpt2,
    /// Every digit alone, then GPT-2's.
    Digits,
    /// What llama.cpp takes where a converter knew nothing better.
    Default,
    /// Words with a sign before them, numbers of up to three digits, line ends.
    Thousands,
    /// The same with every digit alone.
    Qwen,
    /// Words by their case, every digit alone.
    Tekken,
    /// Words by their case with their endings, numbers of up to three digits.
    Gpt4o,
    DeepseekCoder,
    SeedCoder,
}

/// How a tokenizer of one name differs from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PreTokenizer {
    cut: Cut,
    /// Words that are tokens are taken whole, whatever merges would make of them.
    pub whole_words: bool,
    /// A token of beginning is put first unless the file says otherwise.
    pub begins: bool,
    /// Text is brought to NFC first.
    pub composes: bool,
}

const fn plain(cut: Cut) -> PreTokenizer {
    PreTokenizer { cut, whole_words: false, begins: false, composes: false }
}

/// As the models that began with Llama 3 have it.
const fn whole(cut: Cut) -> PreTokenizer {
    PreTokenizer { cut, whole_words: true, begins: true, composes: false }
}

const QWEN: PreTokenizer = PreTokenizer { composes: true, ..plain(Cut::Qwen) };

/// By name, as llama.cpp's converter writes them.
const KNOWN: [(&str, PreTokenizer); 38] = [
    ("default", plain(Cut::Default)),
    ("gpt-2", plain(Cut::Gpt2)),
    ("phi-2", plain(Cut::Gpt2)),
    ("olmo", plain(Cut::Gpt2)),
    ("mpt", plain(Cut::Gpt2)),
    ("jais", plain(Cut::Gpt2)),
    ("exaone4", plain(Cut::Gpt2)),
    ("gigachat", plain(Cut::Gpt2)),
    ("mellum", plain(Cut::Gpt2)),
    ("trillion", plain(Cut::Gpt2)),
    ("granite-docling", plain(Cut::Gpt2)),
    ("smollm", plain(Cut::Digits)),
    ("starcoder", plain(Cut::Digits)),
    ("refact", plain(Cut::Digits)),
    ("command-r", plain(Cut::Digits)),
    ("codeshell", plain(Cut::Digits)),
    ("exaone", plain(Cut::Digits)),
    ("minerva-7b", plain(Cut::Digits)),
    ("llama-bpe", whole(Cut::Thousands)),
    ("llama-v3", whole(Cut::Thousands)),
    ("llama3", whole(Cut::Thousands)),
    ("falcon3", whole(Cut::Thousands)),
    ("falcon-h1", whole(Cut::Thousands)),
    ("pixtral", whole(Cut::Thousands)),
    ("midm-2.0", whole(Cut::Thousands)),
    ("lfm2", whole(Cut::Thousands)),
    ("dbrx", plain(Cut::Thousands)),
    ("smaug-bpe", plain(Cut::Thousands)),
    ("chatglm-bpe", plain(Cut::Thousands)),
    ("qwen2", QWEN),
    ("deepseek-r1-qwen", QWEN),
    ("megrez", QWEN),
    ("stablelm2", plain(Cut::Qwen)),
    ("tekken", whole(Cut::Tekken)),
    ("gpt-4o", plain(Cut::Gpt4o)),
    ("llama4", plain(Cut::Gpt4o)),
    ("deepseek-coder", plain(Cut::DeepseekCoder)),
    ("seed-coder", plain(Cut::SeedCoder)),
];

impl PreTokenizer {
    /// The one that a file names. Files from before names were written need one of `architecture` that
    /// leaves no doubt.
    ///
    /// # Errors
    /// [`GgufError::PreTokenizer`] for a name that is not known, or none.
    pub fn find(name: Option<&str>, architecture: Option<&str>) -> Result<Self, GgufError> {
        let name = name.or(match architecture {
            Some("gpt2") => Some("gpt-2"),
            Some("qwen2" | "qwen3" | "qwen3moe") => Some("qwen2"),
            _ => None,
        });
        let found = KNOWN.iter().find(|(known, _)| Some(*known) == name);
        found.map(|(_, pre)| *pre).ok_or_else(|| GgufError::PreTokenizer {
            found: name.unwrap_or("").chars().take(100).collect(),
            supported: KNOWN.map(|(known, _)| known).join(", "),
        })
    }

    /// The pre-tokenizer of a `tokenizer.json`.
    pub fn json(self) -> Json {
        json!({ "type": "Sequence", "pretokenizers": self.cut.steps() })
    }
}

/// A step of the byte-level kind; it cuts as GPT-2 does if `cuts`.
pub(super) fn byte_level_step(cuts: bool) -> Json {
    json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": cuts,
    })
}

/// Endings of English words, in any case.
macro_rules! endings {
    () => {
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    };
}

/// Endings, words with one sign before them, numbers, signs and space.
macro_rules! words {
    ($number:literal) => {
        concat!(endings!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|", $number, signs!(r"[\r\n]*"))
    };
}

/// Signs with what follows them, then line ends, then space that leaves its last to the next word.
macro_rules! signs {
    ($follow:literal) => {
        concat!(r"| ?[^\s\p{L}\p{N}]+", $follow, r"|\s*[\r\n]+|\s+(?!\S)|\s+")
    };
}

/// Words that change from capitals to small letters once, then numbers, signs and space.
macro_rules! cased {
    ($ending:expr, $number:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            $ending,
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            $ending,
            "|",
            $number,
            signs!(r"[\r\n/]*")
        )
    };
}

impl Cut {
    /// What cuts, one after the other: each in the pieces that those before left.
    fn steps(self) -> Vec<Json> {
        let expressions: &[&str] = match self {
            Self::Gpt2 => &[],
            Self::Digits => &[r"\p{N}"],
            Self::Default => &[r"[\p{P}\$\+<=>\^~\|]+"],
            Self::Thousands => &[words!(r"\p{N}{1,3}")],
            Self::Qwen => &[words!(r"\p{N}")],
            Self::Tekken => &[cased!("", r"\p{N}")],
            Self::Gpt4o => &[cased!(concat!(endings!(), "?"), r"\p{N}{1,3}")],
            Self::DeepseekCoder => {
                &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"]
            }
            Self::SeedCoder => &[concat!(
                endings!(),
                r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
            )],
        };
        let mut steps: Vec<Json> = expressions.iter().map(|expression| split(expression)).collect();
        match self {
            Self::Gpt2 | Self::Digits => steps.push(byte_level_step(true)),
            // GPT-2's cut stands in the middle here, and bytes may be spelt only at the end.
            Self::Default => {
                steps.push(split(GPT2));
                steps.extend([r"\p{N}+", "[0-9][0-9][0-9]"].map(split));
                steps.push(byte_level_step(false));
            }
            _ => steps.push(byte_level_step(false)),
        }
        steps
    }
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Pieces that match stand alone, and so does what lies between them.
fn split(expression: &str) -> Json {
    json!({
        "type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated",
        "invert": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_their_cuts_are_pre_tokenizers() {
        let names: BTreeSet<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), KNOWN.len());
        for (name, pre) in KNOWN {
            assert_eq!(PreTokenizer::find(Some(name), None), Ok(pre));
            let built = serde_json::from_value::<tokenizers::PreTokenizerWrapper>(pre.json());
            assert!(built.is_ok(), "{name}: {built:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let message = |name, architecture| {
            PreTokenizer::find(name, architecture).expect_err("not known").to_string()
        };
        let unknown = message(Some("klingon"), Some("llama"));
        assert!(unknown.contains("\"klingon\""), "{unknown}");
        assert!(unknown.contains("default, gpt-2, ") && unknown.contains("tekken"), "{unknown}");
        assert!(message(None, Some("llama")).contains("\"\""));
        assert_eq!(PreTokenizer::find(None, Some("qwen3")), Ok(QWEN));
    }
}
