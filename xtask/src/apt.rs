//! Programs of Debian that a check needs and this machine lacks: asked for once, and only where nobody need type anything.

use crate::cargo::{succeeds, with};

/// Installs `packages` if this is a system with apt and we may: as root, or by `sudo` without a password. Says
/// whether they are there.
pub fn install(packages: &[&str]) -> bool {
    if !succeeds(with("apt-get", &["--version"])) {
        return false;
    }
    let privilege: &[&str] = if succeeds(with("test", &["-w", "/var/lib/dpkg"])) {
        &["env"]
    } else if succeeds(with("sudo", &["--non-interactive", "true"])) {
        &["sudo", "--non-interactive", "env"]
    } else {
        return false;
    };
    println!("asking apt for {}", packages.join(", "));
    let apt = |arguments: &[&str]| {
        let silent = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--yes"];
        let words = [privilege, &silent, arguments].concat();
        with(words[0], &words[1..]).status().is_ok_and(|status| status.success())
    };
    let wanted = [&["install", "--no-install-recommends"], packages].concat();
    // Lists may be missing or old: they are asked for when it does not work without.
    apt(&wanted) || (apt(&["update"]) && apt(&wanted))
}
