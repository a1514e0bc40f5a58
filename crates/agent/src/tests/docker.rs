//! A docker that is not there: the test itself is the daemon, and the program `docker` is the test
//! binary once more, which carries each call here and may be made to fail, to hang, or to see the
//! agent killed. Its containers are one small server behind the backend's port.

mod files;
mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};

use self::{
    files::Files,
    server::{bind, listen, server},
};
use crate::process;

const ADDRESS: &str = "FAKE_DOCKER";
const ARGS: &str = "FAKE_DOCKER_ARGS";

/// Not a test of its own: the test binary as `docker`.
#[test]
#[ignore = "started by the other tests as a child process"]
fn as_docker() {
    let (Ok(address), Ok(args)) = (std::env::var(ADDRESS), std::env::var(ARGS)) else {
        return;
    };
    let args: Vec<String> = args.lines().map(str::to_owned).collect();
    let mut input = String::new();
    if args.iter().any(|arg| arg == "exec") {
        std::io::stdin().read_to_string(&mut input).unwrap();
    }
    let mut daemon = TcpStream::connect(address).unwrap();
    let call = serde_json::to_string(&Call { args, input }).unwrap();
    writeln!(daemon, "{call}").unwrap();
    let mut answer = String::new();
    BufReader::new(daemon).read_line(&mut answer).unwrap();
    // Nothing when the daemon hung up on us.
    let answer: Answer = serde_json::from_str(&answer).unwrap_or_else(|_| Answer::fails("EOF"));
    // Standard output is the test runner's; the script below keeps the real one here.
    fs::write("/dev/fd/3", answer.stdout).unwrap();
    eprint!("{}", answer.stderr);
    std::process::exit(answer.code);
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Call {
    pub args: Vec<String>,
    pub input: String,
}

impl Call {
    /// Its words, without what says where the files are.
    pub(super) fn name(&self) -> String {
        let mut words = Vec::new();
        let mut args = self.args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--ansi"
                | "--project-name"
                | "--project-directory"
                | "--env-file"
                | "--file"
                | "--profile"
                | "--format"
                | "--filter" => drop(args.next()),
                option if option.starts_with('-') => {}
                word => words.push(word),
            }
        }
        words.join(" ")
    }

    fn option(&self, name: &str) -> Vec<&str> {
        let pairs = self.args.windows(2).filter(|pair| pair[0] == name);
        pairs.map(|pair| pair[1].as_str()).collect()
    }
}

#[derive(Serialize, Deserialize)]
struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Answer {
    fn says(stdout: impl Into<String>) -> Self {
        Self {
            code: 0,
            stdout: stdout.into(),
            stderr: String::new(),
        }
    }

    fn fails(stderr: impl Into<String>) -> Self {
        Self {
            code: 1,
            stdout: String::new(),
            stderr: stderr.into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing happens, and it says so.
    Fails,
    /// It happens, and it says that it did not.
    FailsAfter,
    /// Nothing happens, and it never ends.
    Hangs,
    /// It happens, and the agent is killed before it hears of it.
    AgentKilled,
}

pub(super) struct Daemon {
    port: u16,
    /// Bound and never listening: keeps the port from being given to somebody else while no
    /// server runs.
    _reserved: TcpSocket,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub calls: Vec<Call>,
    pub images: BTreeSet<String>,
    /// Volume → project.
    pub volumes: BTreeMap<String, String>,
    /// The password that the database in its volume has.
    pub database_password: Option<String>,
    /// The releases of servers that were started, in order.
    pub started: Vec<String>,
    /// How often Postgres was started.
    pub postgres_starts: usize,
    /// It takes no connections, and its container is unhealthy.
    pub postgres_hangs: bool,
    /// What the container of Postgres was made from; none: there is none.
    postgres: Option<BTreeMap<String, String>>,
    /// The other containers.
    stack: Option<Stack>,
    /// What happens at which call of a name, counted from 0.
    pub faults: BTreeMap<(String, usize), Fault>,
    /// What happens at every call whose name begins so.
    pub always: Vec<(&'static str, Fault)>,
    /// Each call that met its fault.
    pub met: Vec<(String, Fault)>,
    /// Releases that never answer.
    pub unhealthy: BTreeSet<String>,
    /// Releases that accept no key until their container is restarted.
    pub seedless: BTreeSet<String>,
    pub unpullable: BTreeSet<String>,
    pub agent: Option<u32>,
}

impl State {
    /// How often it was called so.
    pub(super) fn count(&self, name: &str) -> usize {
        self.calls.iter().filter(|call| call.name() == name).count()
    }
}

/// All containers but Postgres's.
struct Stack {
    machine: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    server: Option<JoinHandle<()>>,
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

impl Stack {
    fn release(&self) -> &str {
        self.machine["INSFORGE_IMAGE"].rsplit(':').next().unwrap()
    }
}

impl Daemon {
    /// The daemon, and the program to call it with.
    pub(super) async fn serve(dir: &Path) -> (Arc<Self>, PathBuf) {
        let reserved = bind(0).unwrap();
        let daemon = Arc::new(Self {
            port: reserved.local_addr().unwrap().port(),
            _reserved: reserved,
            state: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = daemon.clone();
        tokio::spawn(async move {
            loop {
                let (caller, _) = listener.accept().await.unwrap();
                let daemon = serving.clone();
                tokio::spawn(async move { daemon.answer(caller).await });
            }
        });
        let program = dir.join("docker");
        let script = format!(
            "#!/bin/sh\nexec 3>&1 1>/dev/null\n\
             {ARGS}=\"$(printf '%s\\n' \"$@\")\" {ADDRESS}={address} \
             exec '{}' --exact tests::docker::as_docker --ignored --nocapture\n",
            std::env::current_exe().unwrap().display()
        );
        fs::write(&program, script).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, executable).unwrap();
        (daemon, program)
    }

    /// Where the backend's port is published.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The release of the server that runs, whether it answers or not.
    pub(super) fn release(&self) -> Option<String> {
        let state = self.state();
        Some(state.stack.as_ref()?.release().to_owned())
    }

    /// A variable of the server that runs.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.state().stack.as_ref()?.env.get(name).cloned()
    }

    /// The machine goes down and comes up: docker starts its containers as they were.
    pub(super) async fn reboot(&self) {
        let was = {
            let mut state = self.state();
            state.postgres_starts += usize::from(state.postgres.is_some());
            state.stack.take()
        };
        let Some(mut was) = was else { return };
        if let Some(server) = was.server.take() {
            server.abort();
            let _ = server.await;
        }
        let (machine, env) = (was.machine.clone(), was.env.clone());
        self.start(machine, env, true).await;
    }

    /// Its container runs, and answers nobody any more.
    pub(super) fn hang_server(&self) {
        if let Some(stack) = &mut self.state().stack
            && let Some(server) = &stack.server
        {
            server.abort();
        }
    }

    pub(super) async fn until_called(&self, times: usize, name: &str) {
        for _ in 0..3000 {
            let named = |call: &&Call| call.name().starts_with(name);
            if self.state().calls.iter().filter(named).count() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("docker was not called with {name}");
    }

    async fn answer(&self, mut caller: tokio::net::TcpStream) {
        let (read, mut write) = caller.split();
        let mut read = tokio::io::BufReader::new(read);
        let mut line = String::new();
        read.read_line(&mut line).await.unwrap();
        let call: Call = serde_json::from_str(&line).unwrap();
        let fault = self.note(&call);
        match fault {
            Some(Fault::Fails) => {
                // As docker does, it quotes what it read.
                let quoted = fs::read_to_string(call.option("--file").last().unwrap_or(&""));
                let said = format!("no: {}", quoted.unwrap_or_default());
                send(&mut write, &Answer::fails(said)).await;
            }
            Some(Fault::Hangs) => {
                // Until the caller is killed.
                let _ = read.read_to_string(&mut line).await;
            }
            Some(Fault::FailsAfter) => {
                self.obey(&call).await;
                send(&mut write, &Answer::fails("the connection was lost")).await;
            }
            Some(Fault::AgentKilled) => {
                self.obey(&call).await;
                if let Some(agent) = self.state().agent.take() {
                    process::signal(agent, Signal::KILL);
                }
            }
            None => {
                let answer = self.obey(&call).await;
                send(&mut write, &answer).await;
            }
        }
    }

    fn note(&self, call: &Call) -> Option<Fault> {
        let mut state = self.state();
        let name = call.name();
        let number = state.count(&name);
        let always = state
            .always
            .iter()
            .find(|(start, _)| name.starts_with(start));
        let always = always.map(|(_, fault)| *fault);
        state.calls.push(call.clone());
        let fault = state.faults.remove(&(name.clone(), number)).or(always)?;
        state.met.push((name, fault));
        Some(fault)
    }

    async fn obey(&self, call: &Call) -> Answer {
        let name = call.name();
        let words: Vec<&str> = name.split(' ').collect();
        match words[..] {
            ["version"] => Answer::says("28.0.0\n"),
            ["compose", "version"] => Answer::says("2.30.0\n"),
            ["image", "inspect", image] => {
                if self.state().images.contains(image) {
                    Answer::says("sha256:0\n")
                } else {
                    Answer::fails(format!(
                        "Error response from daemon: No such image: {image}"
                    ))
                }
            }
            ["image", "ls", image] => {
                let state = self.state();
                let tags = state.images.iter().filter_map(|known| {
                    let (name, tag) = known.rsplit_once(':')?;
                    (name == image).then(|| format!("{tag}\n"))
                });
                Answer::says(tags.collect::<String>())
            }
            ["image", "rm", image] => {
                self.state().images.remove(image);
                Answer::says("")
            }
            ["pull", image] => self.pull(image),
            ["volume", "ls"] => {
                let state = self.state();
                let owners = state.volumes.values().map(|owner| format!("{owner}\n"));
                Answer::says(owners.collect::<String>())
            }
            ["ps"] if self.state().postgres.is_some() && self.state().stack.is_none() => {
                Answer::says("insforge-postgres-1: Up 2 seconds\n")
            }
            ["ps"] => match self.state().stack.as_ref().map(|stack| &stack.server) {
                None => Answer::says(""),
                Some(None) => Answer::says("insforge-insforge-1: Restarting (1) 2 seconds ago\n"),
                Some(_) => Answer::says("insforge-insforge-1: Up 2 seconds\n"),
            },
            ["compose", "up"] => self.up(call).await,
            ["compose", "up", "postgres"] => self.up_postgres(call),
            ["compose", "exec", "postgres", "psql", ..] => self.psql(&call.input),
            ["compose", "exec", "postgres", "pg_isready"] => {
                let state = self.state();
                match state.postgres {
                    Some(_) if !state.postgres_hangs => Answer::says("accepting connections\n"),
                    _ => Answer::fails("127.0.0.1:5432 - no response"),
                }
            }
            ["compose", "restart", "insforge"] => self.restart().await,
            ["compose", "restart", "postgres"] => self.restart_postgres(),
            ["compose", "rm", "insforge", "postgrest", "deno"] => {
                self.state().stack = None;
                Answer::says("")
            }
            ["compose", "down"] => {
                let mut state = self.state();
                state.stack = None;
                state.postgres = None;
                Answer::says("")
            }
            _ => panic!("the stand-in for docker does not know {call:?}"),
        }
    }

    fn pull(&self, image: &str) -> Answer {
        let mut state = self.state();
        if state.unpullable.contains(image) {
            return Answer::fails("manifest unknown");
        }
        state.images.insert(image.to_owned());
        Answer::says("")
    }

    async fn up(&self, call: &Call) -> Answer {
        let files = Files::read(call);
        assert_eq!(files.machine["PORT"], self.port.to_string());
        if !self
            .state()
            .images
            .contains(&files.machine["INSFORGE_IMAGE"])
        {
            return Answer::fails("No such image");
        }
        let postgres = self.up_postgres(call);
        if postgres.code != 0 {
            return postgres;
        }
        let Files {
            machine, server, ..
        } = files;
        {
            let mut state = self.state();
            let same = state.stack.as_ref().is_some_and(|stack| {
                stack.env == server
                    && ["INSFORGE_IMAGE", "RESTARTS"]
                        .iter()
                        .all(|name| stack.machine[*name] == machine[*name])
            });
            if same {
                return Answer::says("");
            }
            state.stack = None;
        }
        self.start(machine, server, false).await;
        Answer::says("")
    }

    /// Its container is made anew when what it is made from has changed. Its volume stays.
    fn up_postgres(&self, call: &Call) -> Answer {
        let Files {
            machine, postgres, ..
        } = Files::read(call);
        let mut state = self.state();
        if !state.images.contains(&machine["POSTGRES_IMAGE"]) {
            return Answer::fails("No such image");
        }
        let volume = format!("{}-{}-postgres", machine["STACK"], machine["PROJECT_ID"]);
        state.volumes.insert(volume, machine["PROJECT_ID"].clone());
        let password = postgres["POSTGRES_PASSWORD"].clone();
        state.database_password.get_or_insert(password);
        let made_from: BTreeMap<_, _> = ["POSTGRES_IMAGE", "PROJECT_ID", "MEMORY_MIB"]
            .map(|name| (name.to_owned(), machine[name].clone()))
            .into_iter()
            .chain(postgres)
            .collect();
        if state.postgres.as_ref() != Some(&made_from) {
            state.postgres = Some(made_from);
            state.postgres_starts += 1;
        }
        if state.postgres_hangs {
            return Answer::fails("container insforge-postgres-1 is unhealthy");
        }
        Answer::says("")
    }

    fn restart_postgres(&self) -> Answer {
        let mut state = self.state();
        if state.postgres.is_none() {
            return Answer::fails("no container to restart");
        }
        state.postgres_starts += 1;
        Answer::says("")
    }

    fn psql(&self, sql: &str) -> Answer {
        let Some((_, password)) = sql.split_once("ALTER ROLE \"postgres\" PASSWORD '") else {
            return Answer::fails("syntax error");
        };
        let password = password.strip_suffix('\'').unwrap().replace("''", "'");
        self.state().database_password = Some(password);
        Answer::says("")
    }

    async fn restart(&self) -> Answer {
        let Some(stack) = self.state().stack.take() else {
            return Answer::fails("no such service");
        };
        let (machine, env) = (stack.machine.clone(), stack.env.clone());
        drop(stack);
        self.start(machine, env, true).await;
        Answer::says("")
    }

    /// A container of the server, made anew or the same again.
    async fn start(
        &self,
        machine: BTreeMap<String, String>,
        env: BTreeMap<String, String>,
        again: bool,
    ) {
        let mut stack = Stack {
            machine,
            env,
            server: None,
        };
        let release = stack.release().to_owned();
        let (healthy, seeded) = {
            let mut state = self.state();
            state.started.push(release.clone());
            let password = state.database_password.as_ref();
            (
                !state.unhealthy.contains(&release)
                    && password == stack.env.get("POSTGRES_PASSWORD"),
                again || !state.seedless.contains(&release),
            )
        };
        if healthy {
            let listener = listen(self.port).await;
            let server = server(&release, &stack.env, seeded);
            stack.server = Some(tokio::spawn(async move {
                axum::serve(listener, server).await.unwrap();
            }));
        }
        self.state().stack = Some(stack);
    }
}

async fn send(caller: &mut (impl AsyncWriteExt + Unpin), answer: &Answer) {
    let answer = format!("{}\n", serde_json::to_string(answer).unwrap());
    // It may have been killed meanwhile.
    let _ = caller.write_all(answer.as_bytes()).await;
}
