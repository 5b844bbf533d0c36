//! Fetching from a place that gives ranges of files, such as a hub: what a model is by its headers and samples,
//! then the tensors of a stage. [`core::runs`](crate::core::runs) says what is read together.
//!
//! Nobody tells hashes there. What vouches for a tensor is the place itself, that it goes with the samples which the
//! model's id covers, and on the disk the hash of each piece as it came.

use super::{FetchError, Mebibytes, find::keep, pieces::Pieces};
use crate::{
    config::Ranges,
    core::{
        fetch::PieceId,
        runs::{Cutter, Part, Run, runs},
    },
    shell::settings::Bandwidth,
};
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use talka_base::hex;
use talka_engine::{
    HEADER_START_BYTES, ModelSource, PartialModel, Survey, Surveyed, header_bytes, weight_files,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep},
};

/// Ranges that are read at once: one connection alone is often held to a tenth of a fast line.
const READS_MAX: usize = 8;
/// What came of one range and waits to be cut into parts.
const CHUNKS_MAX: usize = 4;
/// Parts that wait to be checked and written.
const PARTS_MAX: usize = 16;

/// Read of each file at first: all of most headers.
const HEADER_GUESS_BYTES: u64 = 64 << 10;

/// Between two tries, where whoever reads has lost patience already.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often is told how far a fetch is.
const TELL: Duration = Duration::from_secs(1);

const SURVEY_FILE: &str = "survey";

/// Where a model's tensors come from.
#[derive(Debug)]
pub(crate) struct Remote {
    ranges: Arc<dyn Ranges>,
    surveyed: Surveyed,
}

/// The model called `name` whose weights are at `ranges`: from the disk if it was surveyed before.
///
/// # Errors
/// [`FetchError`] if it cannot be read there, or is no model.
pub(crate) async fn survey(
    ranges: Arc<dyn Ranges>,
    data_dir: &Path,
    name: &str,
) -> Result<(ModelSource, Remote), FetchError> {
    let folder = data_dir
        .join("fetched")
        .join(hex::show(blake3::hash(ranges.content().as_bytes()).as_bytes()));
    let known = fs::read(folder.join(SURVEY_FILE)).ok();
    let surveyed = match known.and_then(|bytes| Surveyed::from_bytes(&bytes).ok()) {
        Some(surveyed) => surveyed,
        None => {
            tracing::info!(model = name, "reading what it is from {}", ranges.place());
            let surveyed = read_survey(&ranges).await?;
            let disk = |source| FetchError::Disk { path: folder.clone(), source };
            keep(&folder, SURVEY_FILE, &surveyed.to_bytes()?).map_err(disk)?;
            surveyed
        }
    };
    let partial = PartialModel::new(name.into(), folder, surveyed.outline().clone());
    Ok((ModelSource::Partial(Arc::new(partial)), Remote { ranges, surveyed }))
}

async fn read_survey(ranges: &Arc<dyn Ranges>) -> Result<Surveyed, FetchError> {
    let lengths = ranges.files();
    let mut files = Vec::new();
    for name in weight_files(ranges.folder())? {
        let known = lengths.iter().find(|(known, _)| *known == name);
        let (_, bytes) = known.ok_or_else(|| FetchError::NoFile { file: name.clone() })?;
        files.push((name, *bytes));
    }
    let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
    let starts = files.iter().map(|(_, bytes)| 0..HEADER_GUESS_BYTES.min(*bytes));
    let mut headers = read_whole(ranges, &names, (0..).zip(starts)).await?;
    let mut rests = Vec::new();
    for (((name, bytes), header), file) in files.iter().zip(&mut headers).zip(0..) {
        let start = &header[..header.len().min(HEADER_START_BYTES as usize)];
        let length = header_bytes(name, *bytes, start)?;
        header.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        rests.push((file, header.len() as u64..length));
    }
    let rests = read_whole(ranges, &names, rests).await?;
    headers.iter_mut().zip(rests).for_each(|(header, rest)| header.extend(rest));
    let files = files.into_iter().zip(headers).map(|((name, bytes), header)| (name, bytes, header));
    let survey = Survey::new(&files.collect::<Vec<_>>())?;
    let samples = survey.samples().into_iter().map(|sample| (sample.file, sample.range));
    let samples = read_whole(ranges, &names, samples).await?;
    Ok(survey.finish(ranges.folder(), samples)?)
}

/// The bytes of each of `wanted`, a file's number and a range, in their order.
async fn read_whole(
    ranges: &Arc<dyn Ranges>,
    files: &[String],
    wanted: impl IntoIterator<Item = (u32, std::ops::Range<u64>)>,
) -> Result<Vec<Vec<u8>>, FetchError> {
    let parts = (0..).zip(wanted).map(|(tag, (file, range))| Part { tag, file, range });
    let parts: Vec<Part<usize>> = parts.collect();
    let mut read = vec![Vec::new(); parts.len()];
    let mut reading = Reading::start(ranges, files, runs(parts));
    while let Some((tag, bytes)) = reading.next().await {
        read[tag] = bytes;
    }
    reading.end(ranges)?;
    Ok(read)
}

impl Remote {
    /// Brings what `pieces` lack of the model called `name`, however often the place cannot be read.
    ///
    /// # Errors
    /// [`FetchError::Changed`] or [`FetchError::Disk`].
    pub(super) async fn bring(
        &self,
        name: &str,
        pieces: Pieces,
        bandwidth: &Bandwidth,
    ) -> Result<(), FetchError> {
        let pieces = Arc::new(Mutex::new(pieces));
        let mut pause = PAUSE_MIN;
        loop {
            let missing = lock(&pieces).left();
            let count = missing.len();
            let error = match self.try_bring(name, missing, &pieces, bandwidth).await {
                Err(error @ FetchError::Place { .. }) => error,
                ended => return ended,
            };
            if lock(&pieces).left().len() < count {
                pause = PAUSE_MIN;
            }
            tracing::warn!(model = name, %error, "trying again in {} s", pause.as_secs());
            sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    async fn try_bring(
        &self,
        name: &str,
        missing: Vec<PieceId>,
        pieces: &Arc<Mutex<Pieces>>,
        bandwidth: &Bandwidth,
    ) -> Result<(), FetchError> {
        let parts = missing.into_iter().filter_map(|id| self.part(id));
        let mut reading = Reading::start(&self.ranges, self.surveyed.files(), runs(parts));
        let mut told = Instant::now();
        while let Some((id, bytes)) = reading.next().await {
            let tensor = &self.surveyed.outline().tensors()[id.tensor as usize];
            if !tensor.accepts(id.piece as usize, &bytes) {
                let (tensor, place) = (tensor.name().to_owned(), self.ranges.place());
                return Err(FetchError::Changed { tensor, place });
            }
            // What comes meanwhile waits in channels that are soon full, and then at the place.
            let pause = bandwidth.fetched(bytes.len() as u64);
            let keeping = Arc::clone(pieces);
            let kept = spawn_blocking(move || lock(&keeping).keep(id, &bytes)).await;
            kept.expect("writing does not panic").map_err(|source| FetchError::Disk {
                path: lock(pieces).folder().to_owned(),
                source,
            })?;
            sleep(pause).await;
            if told.elapsed() >= TELL {
                told = Instant::now();
                let (here, all) = lock(pieces).progress();
                let (here, all) = (Mebibytes(here), Mebibytes(all));
                tracing::info!(model = name, "{here} of {all} are here");
            }
        }
        reading.end(&self.ranges)
    }

    /// Where a piece lies.
    fn part(&self, id: PieceId) -> Option<Part<PieceId>> {
        let number = id.tensor as usize;
        let place = self.surveyed.place(number)?;
        let within =
            self.surveyed.outline().tensors().get(number)?.piece_range(id.piece as usize)?;
        let range = place.start + within.start..place.start + within.end;
        Some(Part { tag: id, file: place.file, range })
    }
}

fn lock(pieces: &Mutex<Pieces>) -> std::sync::MutexGuard<'_, Pieces> {
    pieces.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs that are being read, several at once.
struct Reading<T> {
    tasks: JoinSet<Result<(), String>>,
    parts: mpsc::Receiver<(T, Vec<u8>)>,
    failure: Option<String>,
}

impl<T: Send + 'static> Reading<T> {
    fn start(ranges: &Arc<dyn Ranges>, files: &[String], runs: Vec<Run<T>>) -> Self {
        let (sink, parts) = mpsc::channel(PARTS_MAX);
        let turns = Arc::new(Semaphore::new(READS_MAX));
        let mut tasks = JoinSet::new();
        for run in runs {
            let (ranges, sink, turns) = (Arc::clone(ranges), sink.clone(), Arc::clone(&turns));
            let file = files[run.file as usize].clone();
            tasks.spawn(async move {
                let _turn = turns.acquire().await.expect("the semaphore is never closed");
                read(&*ranges, &file, run, &sink).await
            });
        }
        Self { tasks, parts, failure: None }
    }

    /// The next part that came whole; `None` when all have come, or one could not.
    async fn next(&mut self) -> Option<(T, Vec<u8>)> {
        loop {
            tokio::select! {
                // What came before a failure is kept.
                biased;
                Some(part) = self.parts.recv() => return Some(part),
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => {
                        self.failure.get_or_insert(reason);
                        self.tasks.abort_all();
                    }
                    Err(stopped) if stopped.is_cancelled() => {}
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
                else => return None,
            }
        }
    }

    /// Why not all came.
    fn end(self, ranges: &Arc<dyn Ranges>) -> Result<(), FetchError> {
        match self.failure {
            None => Ok(()),
            Some(reason) => Err(FetchError::Place { place: ranges.place(), reason }),
        }
    }
}

/// Reads one run and tells its parts as they become whole.
async fn read<T>(
    ranges: &dyn Ranges,
    file: &str,
    run: Run<T>,
    sink: &mpsc::Sender<(T, Vec<u8>)>,
) -> Result<(), String> {
    let (chunks, mut came) = mpsc::channel(CHUNKS_MAX);
    let reading = ranges.read(file, run.range.clone(), chunks);
    let mut cutter = Cutter::new(run);
    let cutting = async {
        while let Some(chunk) = came.recv().await {
            for part in cutter.take(&chunk) {
                // Whoever listens no more drops this future next.
                let _ = sink.send(part).await;
            }
        }
    };
    let (read, ()) = tokio::join!(reading, cutting);
    read.map_err(|error| error.to_string())?;
    if cutter.is_done() { Ok(()) } else { Err("it gave less than was asked for".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RangeRead;
    use std::{
        ops::Range,
        path::PathBuf,
        sync::atomic::{AtomicBool, AtomicU64, Ordering},
    };
    use talka_base::LayerSpan;
    use talka_engine::Model;

    const WEIGHTS: &str = "model.safetensors";

    /// The bundled model, as a place that gives ranges of it and sometimes does not.
    #[derive(Debug)]
    struct Place {
        folder: PathBuf,
        weights: Vec<u8>,
        /// Bytes after which the next read fails.
        fails: Mutex<Option<usize>>,
        is_another: AtomicBool,
        given: AtomicU64,
    }

    impl Place {
        fn new() -> Arc<Self> {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models/bard");
            let weights = fs::read(folder.join(WEIGHTS)).expect("weights");
            let (fails, is_another, given) = Default::default();
            Arc::new(Self { folder, weights, fails, is_another, given })
        }
    }

    impl Ranges for Place {
        fn place(&self) -> String {
            "a place".into()
        }

        fn content(&self) -> String {
            "bard".into()
        }

        fn folder(&self) -> &Path {
            &self.folder
        }

        fn files(&self) -> Vec<(String, u64)> {
            vec![(WEIGHTS.into(), self.weights.len() as u64)]
        }

        fn read<'a>(
            &'a self,
            _file: &'a str,
            range: Range<u64>,
            sink: mpsc::Sender<Vec<u8>>,
        ) -> RangeRead<'a> {
            Box::pin(async move {
                let mut bytes = self.weights[range.start as usize..range.end as usize].to_vec();
                if self.is_another.load(Ordering::Relaxed) {
                    bytes.iter_mut().for_each(|byte| *byte ^= 1);
                }
                let fails = self.fails.lock().expect("no panic").take();
                bytes.truncate(fails.unwrap_or(bytes.len()));
                for chunk in bytes.chunks(100_000) {
                    self.given.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                    sink.send(chunk.to_vec()).await?;
                }
                if fails.is_some() { Err("it broke".into()) } else { Ok(()) }
            })
        }
    }

    async fn open(place: &Arc<Place>, dir: &Path) -> (Model, Arc<PartialModel>, Remote) {
        let ranges: Arc<dyn Ranges> = Arc::clone(place) as _;
        let (source, remote) = survey(ranges, dir, "bard").await.expect("a survey");
        let ModelSource::Partial(partial) = source.clone() else { panic!("it is partial") };
        (Model::open(source).expect("it opens"), partial, remote)
    }

    fn pieces(model: &Model, partial: &Arc<PartialModel>, span: [u32; 2]) -> Pieces {
        let span = LayerSpan::new(span[0], span[1]).expect("a span");
        let names = model.tensors_of(span);
        let numbers = names.iter().filter_map(|name| partial.outline().number(name));
        Pieces::open(Arc::clone(partial), numbers).expect("readable")
    }

    /// Goal: what is needed comes, and nothing twice, although the place fails in the middle.
    #[tokio::test]
    async fn a_stage_comes_from_a_place_that_fails_now_and_then() {
        let (dir, place) = (tempfile::tempdir().expect("temporary folder"), Place::new());
        let (model, partial, remote) = open(&place, dir.path()).await;
        let whole = Model::open(ModelSource::Folder(place.folder.clone())).expect("it opens");
        assert_eq!(model.id(), whole.id());
        let all = place.weights.len() as u64;
        assert!(place.given.swap(0, Ordering::Relaxed) < all, "a survey is not all of it");

        let free = Bandwidth::default();
        *place.fails.lock().expect("no panic") = Some(1_200_000);
        remote.bring("bard", pieces(&model, &partial, [0, 3]), &free).await.expect("it comes");
        let (here, wanted) = pieces(&model, &partial, [0, 3]).progress();
        assert_eq!(here, wanted);
        let given = place.given.swap(0, Ordering::Relaxed);
        let lost = given.saturating_sub(wanted);
        assert!(wanted < all * 3 / 4 && lost <= 256 << 10, "{given} for {wanted} of {all}");
        for tensor in partial.outline().tensors() {
            let piece = model.piece(tensor.name(), 0);
            assert!(piece.is_none() || piece == whole.piece(tensor.name(), 0), "{}", tensor.name());
        }

        // The next start asks for nothing, and a longer span for what it adds.
        let (model, partial, remote) = open(&place, dir.path()).await;
        remote.bring("bard", pieces(&model, &partial, [0, 3]), &free).await.expect("it is here");
        assert_eq!(place.given.load(Ordering::Relaxed), 0);
        remote.bring("bard", pieces(&model, &partial, [2, 4]), &free).await.expect("it comes");
        assert!(place.given.load(Ordering::Relaxed) < wanted / 2);
    }

    #[tokio::test]
    async fn tensors_of_another_model_are_not_taken() {
        let (dir, place) = (tempfile::tempdir().expect("temporary folder"), Place::new());
        let (model, partial, remote) = open(&place, dir.path()).await;
        place.is_another.store(true, Ordering::Relaxed);
        let free = Bandwidth::default();
        let error = remote
            .bring("bard", pieces(&model, &partial, [0, 6]), &free)
            .await
            .expect_err("refused");
        assert!(matches!(error, FetchError::Changed { .. }), "{error}");
        assert_eq!(pieces(&model, &partial, [0, 6]).progress().0, 0);
    }
}
