//! The daemon's port: how it is opened, told of, shut, and used by this very command line.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Fake, finish, pando, shown};

/// A home whose daemon is ended with it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = pando(self.path());
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        finish(self.command(arguments).spawn().unwrap())
    }

    fn run_at(&self, url: &str, token: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        // Nothing but the URL may lead to the daemon.
        command.env("PANDO_HOME", self.path().join("elsewhere"));
        finish(command.env("PANDO_URL", url).env("PANDO_TOKEN", token).spawn().unwrap())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let envelope: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", shown(&output)));
        envelope["result"].clone()
    }

    fn token(&self) -> String {
        shown(&self.run(&["token", "show"])).trim().to_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("home/daemon.log")).unwrap_or_default()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.run(&["daemon", "stop"]);
    }
}

/// A daemon in a terminal, and what it says of where it is.
fn serve(home: &Home, arguments: &[&str]) -> (Child, String) {
    let mut child = home.command(&[&["serve"], arguments].concat()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().to_owned())
}

fn end(child: Child) {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = finish(child);
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn the_port_of_a_daemon_in_a_terminal_is_told_and_opened_by_the_token() {
    let home = Home::new();
    let (child, url) = serve(&home, &["--http", "127.0.0.1:0"]);
    assert!(url.starts_with("http://127.0.0.1:") && !url.ends_with(":0"), "{url}");
    let token = home.token();
    assert_eq!(token.len(), "pando_".len() + 64);

    let output = home.run_at(&url, &token, &["ps"]);
    assert!(output.status.success(), "{}", shown(&output));
    let output =
        finish(home.command(&["ps", "--url", &url]).env("PANDO_TOKEN", &token).spawn().unwrap());
    assert!(output.status.success(), "{}", shown(&output));
    let output = home.run_at(&url, "", &["ps"]);
    assert_eq!(output.status.code(), Some(5), "{}", shown(&output));
    assert!(shown(&output).contains("pando token show"), "{}", shown(&output));

    let rotated = shown(&home.run(&["token", "rotate", "-q"])).trim().to_owned();
    assert_ne!(rotated, token);
    assert_eq!(home.run_at(&url, &token, &["ps"]).status.code(), Some(5));
    assert!(home.run_at(&url, &rotated, &["ps"]).status.success());
    assert_eq!(home.token(), rotated);

    assert_eq!(home.json(&["daemon", "status"])["url"], url.as_str());
    assert_eq!(home.json(&["status"])["url"], url.as_str());
    assert!(shown(&home.run(&["status"])).contains(&url));

    // A second one says what to do in its place.
    let second = home.run(&["serve", "--http"]);
    assert_eq!(second.status.code(), Some(4), "{}", shown(&second));
    assert!(shown(&second).contains(&url), "{}", shown(&second));
    end(child);
}

#[test]
fn a_daemon_that_is_started_on_demand_listens_where_the_setting_says() {
    let home = Home::new();
    assert!(home.run(&["ps"]).status.success());
    assert!(home.json(&["daemon", "status"])["url"].is_null());
    let refused = shown(&home.run(&["serve", "--http", "127.0.0.1:0"]));
    assert!(refused.contains("pando config set http.listen 127.0.0.1:0"), "{refused}");
    assert!(refused.contains("pando daemon restart"), "{refused}");

    assert!(home.run(&["config", "set", "http.listen", "127.0.0.1:0"]).status.success());
    assert!(home.run(&["daemon", "restart"]).status.success());
    let url = home.json(&["daemon", "status"])["url"].as_str().unwrap().to_owned();
    assert!(home.run_at(&url, &home.token(), &["ps"]).status.success());
    assert_eq!(home.run_at(&url, "guess", &["ps"]).status.code(), Some(5));
    let log = home.log();
    assert!(log.contains("turned away") && log.contains("unauthenticated"), "{log}");
    assert!(!log.contains("guess") && !log.contains(&home.token()), "{log}");

    let shown_settings = shown(&home.run(&["config", "show", "--origin"]));
    let line = shown_settings.lines().find(|line| line.contains("http.listen")).unwrap();
    assert!(line.contains("127.0.0.1:0") && line.contains("file"), "{line}");
    for wrong in ["0.0.0.0:80", "example.com:80", "x"] {
        let output = home.run(&["config", "set", "http.listen", wrong]);
        assert_eq!(output.status.code(), Some(9), "{}", shown(&output));
    }
    assert_eq!(home.run(&["serve", "--http", "0.0.0.0:80"]).status.code(), Some(2));
}

#[test]
fn a_port_that_is_taken_is_an_error_before_anything_else() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let home = Home::new();
    for arguments in [&["serve", "--http", &address][..], &["ps"]] {
        let mut command = home.command(arguments);
        let output = finish(command.env("PANDO_HTTP_LISTEN", &address).spawn().unwrap());
        assert_eq!(output.status.code(), Some(9), "{}", shown(&output));
        assert!(shown(&output).contains(&address), "{}", shown(&output));
        assert!(shown(&output).contains("http.listen"), "{}", shown(&output));
    }
    assert!(!home.path().join("home/pando.db").exists(), "nothing was begun");
    drop(taken);
    assert!(home.run(&["ps"]).status.success());
}

#[test]
fn a_token_that_others_can_read_is_refused_with_the_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    home.token();
    let file = home.path().join("home/http.token");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    for arguments in [&["token", "show"][..], &["serve", "--http", "127.0.0.1:0"]] {
        let output = home.run(arguments);
        assert_eq!(output.status.code(), Some(9), "{}", shown(&output));
        assert!(shown(&output).contains("pando token rotate"), "{}", shown(&output));
    }
    assert!(home.run(&["token", "rotate"]).status.success());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    home.token();
}

#[test]
fn streams_go_over_the_port_as_over_the_socket() {
    let fake = Fake::on_port();
    let output = fake.run(&["exec", "shop", "--", "echo", "a", "b"]);
    assert_eq!(shown(&output), "a b\n--- stderr\nwarned\n");
    assert_eq!(fake.run(&["exec", "shop", "--", "exit", "3"]).status.code(), Some(3));
    let input: Vec<u8> = (0..1_000_000u32).map(|index| (index % 253) as u8).collect();
    let output = fake.run_with(&["exec", "shop", "--", "cat"], &input);
    assert!(output.stdout == input, "{} bytes came back", output.stdout.len());

    let file = fake.directory.path().join("in.bin");
    std::fs::write(&file, &input).unwrap();
    let local = file.display().to_string();
    let output = fake.run(&["cp", &local, "shop:/srv/in.bin"]);
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(fake.control.file("/srv/in.bin").unwrap().1, input);
    let back = fake.directory.path().join("out.bin");
    let output = fake.run(&["cp", "shop:/srv/in.bin", &back.display().to_string()]);
    assert!(output.status.success(), "{}", shown(&output));
    assert!(std::fs::read(&back).unwrap() == input);
}

#[test]
fn what_is_no_url_of_this_host_is_refused_before_a_token_is_sent() {
    let home = Home::new();
    for url in ["http://192.0.2.1:7717", "https://127.0.0.1:7717", "127.0.0.1:7717", "x"] {
        let output = home.run_at(url, "pando_secret", &["ps"]);
        assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
        assert!(!shown(&output).contains("secret"));
    }
}

/// Sends one request and returns its status and its body.
fn ask(url: &str, token: &str, path: &str) -> (u16, Value) {
    use std::io::{Read, Write};
    let authority = url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(authority).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close");
    write!(stream, "{head}\r\nAuthorization: Bearer {token}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// Returns a schema of the document that can be looked at alone.
fn alone(document: &Value, schema: &Value) -> Value {
    let text = schema.to_string().replace("#/components/schemas/", "#/$defs/");
    let defs = document["components"]["schemas"].to_string();
    let defs = defs.replace("#/components/schemas/", "#/$defs/");
    let mut schema: Value = serde_json::from_str(&text).unwrap();
    schema["$defs"] = serde_json::from_str(&defs).unwrap();
    schema
}

#[test]
fn what_the_port_answers_is_what_the_document_says() {
    let home = Home::new();
    let (child, url) = serve(&home, &["--http", "127.0.0.1:0"]);
    let token = home.token();
    let (status, document) = ask(&url, &token, "/v1/openapi.json");
    assert_eq!(status, 200);
    let mut compared = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let get = &item["get"];
        let is_required = |one: &Value| one["required"] == true;
        let needs = get["parameters"].as_array().is_some_and(|all| all.iter().any(is_required));
        if get.is_null() || needs || path.contains('{') || path == "/v1/openapi.json" {
            continue;
        }
        let (status, answer) = ask(&url, &token, path);
        let responses = &get["responses"];
        let described = responses.get(status.to_string()).unwrap_or(&responses["default"]);
        let described = match described["$ref"].as_str() {
            Some(reference) => document.pointer(&reference[1..]).unwrap(),
            None => described,
        };
        let schema = &described["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path} answered {status}, which is not described");
        let schema = alone(&document, schema);
        let mut schemas = boon::Schemas::new();
        let mut compiler = boon::Compiler::new();
        compiler.set_default_draft(boon::Draft::V2020_12);
        compiler.add_resource("http://x/schema.json", schema).unwrap();
        let index = compiler.compile("http://x/schema.json", &mut schemas).unwrap();
        if let Err(error) = schemas.validate(&answer, index) {
            panic!("{path} answered {status} {answer:#}, but {error}");
        }
        compared += 1;
    }
    assert!(compared >= 10, "{compared} routes were compared");
    end(child);
}
