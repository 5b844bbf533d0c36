//! How much the disk has left.

use std::path::Path;
use sysinfo::Disks;

/// Bytes free for this user where `path` is or would be; `None` if the system does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
    let existing = existing.canonicalize().ok()?;
    let disks = Disks::new_with_refreshed_list().ok()?;
    let holding = disks.iter().filter(|disk| existing.starts_with(disk.mount_point()));
    let nearest = holding.max_by_key(|disk| disk.mount_point().as_os_str().len())?;
    Some(nearest.available_space())
}

/// A size for people: one decimal in the largest unit that leaves at least 1.
pub(crate) fn show(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    let whole = 1_u128 << (10 * power);
    let tenths = u128::from(bytes) * 10 / whole;
    match power {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power as usize]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        let shown = [0, 1023, 1536, 5 << 30, u64::MAX].map(show);
        assert_eq!(shown, ["0 B", "1023 B", "1.5 KiB", "5.0 GiB", "16777215.9 TiB"]);
    }
}
