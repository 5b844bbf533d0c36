//! A node as a service, with a service manager that only writes down what it is told.

use crate::harness::{Said, finish, folder, talka};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// What stands for `systemctl`: notes its arguments, answers as `answers` says, and fails where that is told to.
fn manager(place: &Path, answers: &str) {
    let bin = place.join("bin");
    fs::create_dir_all(&bin).expect("a folder");
    let script = bin.join("systemctl");
    let log = place.join("asked");
    fs::write(&script, format!("#!/bin/sh\necho \"$@\" >> '{}'\n{answers}\n", log.display()))
        .expect("written");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("executable");
}

/// `talka service` with that manager, or with none.
fn service(place: &Path, args: &[&str], with_manager: bool) -> Said {
    let mut command = talka(&[&["service"], args].concat());
    let path = if with_manager {
        format!("{}/bin:/bin:/usr/bin", place.display())
    } else {
        "/nonexistent".into()
    };
    command.env("PATH", path).env("XDG_CONFIG_HOME", place.join("config")).current_dir(place);
    finish(&mut command, "")
}

fn asked(place: &Path) -> Vec<String> {
    let log = place.join("asked");
    let lines = fs::read_to_string(&log).unwrap_or_default();
    // It is there only if something was asked.
    let _ = fs::remove_file(log);
    lines.lines().map(String::from).collect()
}

#[test]
fn a_service_is_installed_asked_and_removed() {
    let folder = folder();
    let place = folder.path();
    manager(place, "case \"$2\" in is-enabled) echo enabled;; is-active) echo active;; esac");
    let unit = place.join("config/systemd/user/talka.service");
    let flags = ["install", "--", "--model", "bard", "--data-dir", "kept here"];
    let told = service(place, &flags, true).done();
    assert!(told.contains("enable-linger") && told.contains("journalctl"), "{told}");
    let text = fs::read_to_string(&unit).expect("a unit");
    let command = format!(
        "ExecStart=\"{}\" up \"--model\" \"bard\" \"--data-dir\" \"kept here\"\n",
        env!("CARGO_BIN_EXE_talka")
    );
    assert!(text.contains(&command), "{text}");
    let orders = ["daemon-reload", "enable talka.service", "restart talka.service"];
    assert_eq!(asked(place), orders.map(|order| format!("--user {order}")));

    let status = service(place, &["status", "--json"], true).json();
    let path = unit.to_str().expect("text");
    let expected =
        json!({ "path": path, "installed": true, "enabled": "enabled", "active": "active" });
    assert_eq!(status, expected);
    assert!(service(place, &["status"], true).done().contains("active"));

    asked(place);
    assert!(service(place, &["uninstall"], true).done().contains("is removed"));
    assert!(!unit.exists());
    let orders = ["disable --now talka.service", "daemon-reload"];
    assert_eq!(asked(place), orders.map(|order| format!("--user {order}")));
    service(place, &["uninstall"], true).refused(2, &["no service is installed", path]);
    let absent = service(place, &["status"], true);
    assert!(absent.code == 1 && absent.stdout.contains("not installed"), "{absent:#?}");
}

#[test]
fn what_cannot_be_started_is_said_and_nothing_is_half_done_unsaid() {
    let folder = folder();
    let place = folder.path();
    let unit = place.join("config/systemd/user/talka.service");
    // Shown only: nothing is written or asked.
    let shown = service(place, &["install", "--print", "--", "--threads", "2"], false).done();
    assert!(shown.contains("up \"--threads\" \"2\"\n") && !unit.exists(), "{shown}");
    service(place, &["install", "--", "--thread", "2"], false)
        .refused(2, &["talka up", "--thread"]);
    service(place, &["install", "--no-start"], false).done();
    assert_eq!(fs::read_to_string(&unit).expect("a unit").matches("ExecStart=").count(), 1);
    service(place, &["install"], false).refused(1, &["is written", "systemctl", "talka up"]);

    manager(place, "echo 'Failed to connect to bus: No medium found' >&2; exit 1");
    service(place, &["install"], true).refused(1, &["is written", "connect to bus"]);
    service(place, &["status"], true).refused(1, &["is-enabled", "connect to bus"]);
    // It goes all the same, and what went wrong is said.
    let removed = service(place, &["uninstall"], true);
    assert!(removed.code == 0 && removed.stderr.contains("connect to bus"), "{removed:#?}");
    assert!(!unit.exists());
}
