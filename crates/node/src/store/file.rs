//! The directory, its lock and the database file: creating, opening, checking, committing.

use super::{
    Damage, ENTRIES, LAYOUT, LAYOUT_VERSION, RECORDS, StoreError,
    error::Failure,
    log::{CHECKPOINTS, TREE},
    snapshot::SNAPSHOTS,
};
use redb::{Database, Durability, ReadableDatabase, WriteTransaction};
use std::{
    any::Any,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// Creates the directory if need be and takes it for this process, as long as the file returned
/// is open. The system releases it if the process dies.
pub fn lock(dir: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::DataDir { dir: dir.into(), source };
    create_private_dir(dir).map_err(failed)?;
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false);
    let lock = options.open(dir.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::DataDirInUse { dir: dir.into() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Keys and invites lie here: nobody else may look.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Opens the database, making it first if there is none, and checks it from end to end.
pub fn open(file: &Path) -> Result<Database, StoreError> {
    guarded(file, || {
        if !file.try_exists().map_err(redb::StorageError::Io)? {
            create(file)?;
        }
        let mut database = Database::open(file)?;
        database.check_integrity()?;
        check_layout(file, &database)?;
        Ok(database)
    })
}

/// Makes the file under another name and moves it into place when it is whole: an empty or
/// half-written file under the real name is damage, never a new beginning.
fn create(file: &Path) -> Result<(), Failure> {
    let io = redb::StorageError::Io;
    let unfinished = file.with_extension("redb.new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error).into()),
        _ => {}
    }
    let database = Database::create(&unfinished)?;
    commit(&database, |transaction| {
        transaction.open_table(ENTRIES)?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(TREE)?;
        transaction.open_table(CHECKPOINTS)?;
        transaction.open_table(SNAPSHOTS)?;
        transaction.open_table(LAYOUT)?.insert("version", LAYOUT_VERSION)?;
        Ok(())
    })?;
    drop(database);
    fs::rename(&unfinished, file).map_err(io)?;
    sync_dir(file).map_err(io)?;
    Ok(())
}

/// Makes the new name last.
fn sync_dir(file: &Path) -> io::Result<()> {
    // Windows cannot sync a directory, and needs not.
    if cfg!(unix)
        && let Some(dir) = file.parent()
    {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn check_layout(file: &Path, database: &Database) -> Result<(), Failure> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(LAYOUT)?;
    let found = table.get("version")?.ok_or(Damage::NoLayout)?.value();
    if found != LAYOUT_VERSION {
        let (file, expected) = (file.into(), LAYOUT_VERSION);
        return Err(StoreError::Layout { file, expected, found }.into());
    }
    Ok(())
}

/// Does `work` in one transaction that is on disk when this returns, or not done at all.
pub fn commit(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    match work(&transaction) {
        Ok(()) => Ok(transaction.commit()?),
        Err(failure) => {
            transaction.abort()?;
            Err(failure)
        }
    }
}

/// Does `work` on `file`, turning a panic of the database into an error: it asserts what it
/// believes of its file, and a damaged file may say otherwise.
pub fn guarded<T>(file: &Path, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|failure| failure.at(file.into())),
        Err(panic) => {
            let source = Damage::Panicked { message: panic_message(&*panic) };
            Err(StoreError::Corrupt { file: file.into(), source })
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}
