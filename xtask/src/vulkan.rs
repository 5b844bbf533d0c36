//! The driver that kernels for GPUs are tried on.

use crate::apt;
use anyhow::{Result, bail};
use std::{fs, path::Path};

/// Where systems list drivers for Vulkan, one file each.
const LISTS: [&str; 3] =
    ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
/// What looks for drivers, and Mesa's, one of which computes on processors.
const PACKAGES: [&str; 2] = ["libvulkan1", "mesa-vulkan-drivers"];

/// Sees to it that there is one; other systems than Linux have their own.
///
/// # Errors
/// If there is none and none may be installed.
pub fn driver() -> Result<()> {
    let is_there = || !cfg!(target_os = "linux") || LISTS.iter().any(has_driver);
    if is_there() || (apt::install(&PACKAGES) && is_there()) {
        return Ok(());
    }
    bail!("no driver for Vulkan: install {}", PACKAGES.join(" and "))
}

fn has_driver(list: impl AsRef<Path>) -> bool {
    let files = fs::read_dir(list).into_iter().flatten().flatten();
    files.map(|file| file.path()).any(|path| path.extension().is_some_and(|end| end == "json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_a_file_in_a_list() {
        let list = tempfile::tempdir().expect("a folder");
        assert!(!has_driver(list.path()) && !has_driver(list.path().join("missing")));
        fs::write(list.path().join("lvp_icd.x86_64.json"), "{}").expect("written");
        assert!(has_driver(list.path()));
    }
}
