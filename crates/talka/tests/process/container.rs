//! `Dockerfile` and `compose.yaml` without containers: the commands in them are run as they stand, only with the places
//! and addresses of this computer.

use crate::harness::{
    Node, Said, cannot_start, finish, folder, join, started, talka, up, wait_for,
};
use serde_json::Value;
use std::{fs, path::Path};
use yaml_rust2::{Yaml, YamlLoader};

const KEY: &str = "sk-for-containers";

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    fs::read_to_string(path).expect("a file of the repository")
}

/// A field of a service, its own or that of what it is merged with.
fn field<'a>(service: &'a Yaml, name: &str) -> &'a Yaml {
    match &service[name] {
        Yaml::BadValue => &service["<<"][name],
        own => own,
    }
}

fn names(yaml: &Yaml) -> Vec<&str> {
    let fields = yaml.as_hash().into_iter().flatten();
    fields.map(|(name, _)| name.as_str().expect("a name")).collect()
}

fn texts(yaml: &Yaml) -> Vec<&str> {
    yaml.as_vec().into_iter().flatten().map(|text| text.as_str().expect("text")).collect()
}

/// What compose is told, and where its containers' places are here.
struct Compose<'a> {
    document: Yaml,
    place: &'a Path,
    /// Where the founder answers.
    founder: String,
}

impl Compose<'_> {
    /// The command of a service as it is run here.
    fn command(&self, service: &str) -> Vec<String> {
        let invite = self.place.join("invite");
        let here = |word: &str| {
            let word = word.replace("/invite/text", invite.to_str().expect("text"));
            let word = word.replace("founder:4242", &self.founder);
            // Any free port of this computer only.
            word.replace("0.0.0.0:4242", "127.0.0.1:0").replace("0.0.0.0:4243", "127.0.0.1:0")
        };
        let service = &self.document["services"][service];
        texts(field(service, "command")).into_iter().map(here).collect()
    }

    fn start(&self, service: &str) -> Node {
        let command = self.command(service);
        let args: Vec<_> = command.iter().map(String::as_str).collect();
        started(&args, &self.place.join(service), KEY)
    }

    fn finish(&self, args: &[String]) -> Said {
        let mut command = talka(&[]);
        command.args(args).env("TALKA_API_KEY", KEY);
        finish(&mut command, "")
    }
}

/// The list after `word` on its line of the Dockerfile, or on the one after it.
fn listed(dockerfile: &str, word: &str) -> Vec<String> {
    let joined = dockerfile.replace("\\\n", "");
    let line = joined.lines().find(|line| line.starts_with(word)).expect(word);
    let list = &line[line.find('[').expect("a list")..];
    serde_json::from_str(list).expect("a list of words")
}

/// Goal: three nodes that join, by the commands of the compose file, checked as the image checks its health.
#[test]
fn the_commands_of_the_compose_file_make_a_network_of_three() {
    let place = folder();
    let document = YamlLoader::load_from_str(&read("compose.yaml")).expect("YAML").remove(0);
    let dockerfile = read("Dockerfile");
    let mut compose = Compose { document, place: place.path(), founder: String::new() };
    let founder = compose.start("founder");
    compose.founder = founder.http.trim_start_matches("http://").into();

    let mut health = listed(&dockerfile, "HEALTHCHECK");
    assert_eq!(health.remove(0), "/usr/local/bin/talka");
    let place_of = health.iter().position(|word| word == "127.0.0.1:4242").expect("an address");
    health[place_of].clone_from(&compose.founder);
    compose.finish(&health).done();

    assert_eq!(compose.finish(&compose.command("invite")).done(), "", "it is in the file");
    let nodes = [compose.start("second"), compose.start("third")];
    wait_for("three nodes that hear each other", || {
        let peers = founder.get("/api/peers").done();
        let alive = |peer: &&Value| peer["alive"] == true;
        let count = peers.as_array().expect("nodes").iter().filter(alive).count();
        (count == 3).then_some(())
    });
    assert!(nodes.iter().all(|node| node.network == founder.network));
    // Once more, as when the containers are started again.
    compose.finish(&compose.command("invite")).done();
    assert!(dockerfile.contains("ENV TALKA_DATA_DIR=/data"));
}

/// The image by itself, with the command it has unless told another.
#[test]
fn the_command_of_the_image_starts_a_node() {
    let place = folder();
    let command = listed(&read("Dockerfile"), "CMD");
    let here = |word: &String| {
        word.replace("0.0.0.0:4242", "127.0.0.1:0").replace("0.0.0.0:4243", "127.0.0.1:0")
    };
    let command: Vec<_> = command.iter().map(here).collect();
    let args: Vec<_> = command.iter().map(String::as_str).collect();
    let node = started(&args, &place.path().join("data"), KEY);
    node.cli(&["status"]).done();
}

#[test]
fn whatever_the_compose_file_names_is_there() {
    let documents = YamlLoader::load_from_str(&read("compose.yaml")).expect("YAML");
    let document = &documents[0];
    let (services, volumes) = (names(&document["services"]), names(&document["volumes"]));
    assert_eq!(services, ["founder", "invite", "second", "third"]);
    let mut addresses = Vec::new();
    for name in &services {
        let service = &document["services"][*name];
        for volume in texts(field(service, "volumes")) {
            let (volume, _) = volume.split_once(':').expect("a volume and a place");
            assert!(volumes.contains(&volume), "{name}: {volume}");
        }
        for other in names(field(service, "depends_on")) {
            assert!(services.contains(&other), "{name}: {other}");
        }
        assert_eq!(names(field(service, "networks")), names(&document["networks"]), "{name}");
        addresses.push(field(service, "networks")["nodes"]["ipv4_address"].as_str().expect("one"));
        for port in texts(field(service, "ports")) {
            assert!(port.starts_with("127.0.0.1:"), "{name} is open to others: {port}");
        }
        let key = field(service, "environment")["TALKA_API_KEY"].as_str().expect("a key");
        assert!(key.starts_with("${TALKA_API_KEY:?"), "no key is made up: {key}");
    }
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), services.len(), "each has an address of its own");
}

/// Goal: an invitation passes through a file that nobody else reads. Method: one that was open to all is replaced.
#[test]
fn an_invitation_in_a_file_is_for_its_owner_alone() {
    let place = folder();
    let node = up(&place.path().join("a"), &[]);
    let file = place.path().join("invite");
    fs::write(&file, "what was there before, and longer than what comes").expect("written");
    let path = file.to_str().expect("text");
    assert_eq!(node.cli(&["invite", "--out", path]).done(), "");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let text = fs::read_to_string(&file).expect("an invitation");
    assert!(text.starts_with("talka1") && text.lines().count() == 1, "{text:?}");
    let dir = place.path().join("b");
    let second = join(&format!("@{path}"), &dir, &[]);
    assert_eq!(second.network, node.network);
    let absent = format!("@{path}-not-here");
    cannot_start(&["join", &absent], &place.path().join("c"), &[])
        .refused(1, &["cannot read the invitation", "not-here"]);
}
