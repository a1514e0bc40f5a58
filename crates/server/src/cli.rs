//! The command line, as clap sees it. What the commands do is in [`crate::commands`],
//! [`crate::dev`] and [`crate::production`].

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cp_merge::Choice;
use cp_merge::command::{Address, parse_resolution};
use cp_model::oauth::check_redirect_uri;
use cp_model::{
    ClientId, LimitPeriod, Metric, OAuthClient, OperationId, OperationState, OrganizationId,
    PartnerId, Plan, ProjectId, Scope, Scopes, UsageLimitId, UserId, WebhookEventId, WebhookState,
};

use crate::config::{Period, Sources};
use crate::telemetry::LogStyle;

#[derive(Parser)]
#[command(
    name = "insforge-cloud",
    version,
    about = "The InsForge control plane: partners, projects, machines.",
    after_help = "Configuration comes from a TOML file and from INSFORGE_<SECTION>_<KEY> variables, which win; \
                  `insforge-cloud doctor` shows every key with its effective value.\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Configuration file (TOML).
    #[arg(long, global = true, env = "INSFORGE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Folder of an `insforge-cloud dev`: for `dev` where to keep everything [default: .insforge],
    /// for other commands the dev to talk to.
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Runs everything on this computer: database, API, worker, machines, demo data.
    Dev(DevOptions),
    /// Runs the API. Any number may run on one database.
    Serve(StartOptions),
    /// Runs the worker. Any number may run on one database.
    Work(StartOptions),
    /// Brings the database's schema up to date.
    Migrate,
    /// Partner platforms.
    #[command(subcommand)]
    Partner(PartnerCommand),
    /// Projects.
    #[command(subcommand)]
    Project(ProjectCommand),
    /// People's accounts.
    #[command(subcommand)]
    User(UserCommand),
    /// What people share their projects in, and what they pay for.
    #[command(subcommand)]
    Organization(OrganizationCommand),
    /// Where people are signed in.
    #[command(subcommand)]
    Session(SessionCommand),
    /// Applications that people sign in to with InsForge.
    #[command(subcommand, name = "oauth-client")]
    OAuthClient(OAuthClientCommand),
    /// Keys that sign project authorizations.
    #[command(subcommand)]
    SigningKey(SigningKeyCommand),
    /// Long work on projects: creating, pausing, restoring, deleting.
    #[command(subcommand)]
    Operation(OperationCommand),
    /// What projects used.
    #[command(subcommand)]
    Usage(UsageCommand),
    /// Tokens of services that post usage events.
    #[command(subcommand)]
    UsageToken(UsageTokenCommand),
    /// Three-way merges of any two Postgres databases that came from one. Needs no control plane.
    #[command(subcommand)]
    Merge(MergeCommand),
    /// Checks configuration, database, keys and machines; says how to mend what is broken.
    Doctor(DoctorOptions),
}

#[derive(Subcommand)]
pub enum MergeCommand {
    /// Writes down what a database looks like: take one of the parent when the branch is made (T0).
    Snapshot(Box<SnapshotOptions>),
    /// Shows what a merge would do: SQL, conflicts, what needs a migration. Changes nothing. Exits with 2
    /// when something stands in the way.
    Diff(Box<MergeOptions>),
    /// Merges, in one transaction, if nothing stands in the way; else exits with 2 and changes nothing.
    Apply(Box<MergeApplyOptions>),
}

#[derive(Args)]
pub struct SnapshotOptions {
    /// The database's URL: postgres://user:password@host:5432/database
    #[arg(value_name = "ADDRESS")]
    pub address: Address,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Args)]
pub struct MergeOptions {
    /// The parent's snapshot of when the branch was made.
    #[arg(long, value_name = "SNAPSHOT")]
    pub base: PathBuf,
    /// The branch's own snapshot, right after it was made; without it the parent's serves for both.
    #[arg(long, value_name = "SNAPSHOT")]
    pub branch_base: Option<PathBuf>,
    /// The parent's URL: what is merged into.
    #[arg(long, value_name = "ADDRESS")]
    pub parent: Address,
    /// The branch's URL.
    #[arg(long, value_name = "ADDRESS")]
    pub branch: Address,
    /// Settles a conflict by its name for one side: public.users.email=branch. Any number of times.
    #[arg(long, value_name = "NAME=branch|parent", value_parser = parse_resolution)]
    pub resolve: Vec<(String, Choice)>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args)]
pub struct MergeApplyOptions {
    #[command(flatten)]
    pub merge: MergeOptions,
    /// For big tables: builds new indexes and proves new foreign keys and checks after the commit, while others go on
    /// writing. Exits with 1 when something of that could not be done; the merge stands, and the same command
    /// does what is left.
    #[arg(long)]
    pub online: bool,
}

#[derive(Args)]
pub struct DoctorOptions {
    /// Also asks AWS, by dry runs that change nothing, whether it lets us do what machines need.
    /// (Buckets are always tried.)
    #[arg(long)]
    pub aws: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args)]
pub struct DevOptions {
    /// Where the API listens.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where health, metrics and the queue board are served.
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    pub admin_listen: SocketAddr,
}

#[derive(Args)]
pub struct StartOptions {
    /// Bring the database's schema up to date first.
    #[arg(long)]
    pub migrate: bool,
}

/// How results are written.
#[derive(Args, Clone, Copy, Default)]
pub struct Output {
    /// Write JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// For commands that end something.
#[derive(Args, Clone, Copy)]
pub struct Confirm {
    /// Do not ask for confirmation.
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Subcommand)]
pub enum PartnerCommand {
    /// Makes a partner and shows its secret, once.
    Create(NewPartner),
    /// Shows all partners.
    List(Output),
    /// Gives a partner a new secret and shows it, once. The old one goes on for a while.
    RotateSecret {
        partner: PartnerId,
        /// How long the old secret goes on; 0s ends it at once (for one that has leaked).
        #[arg(long, default_value = "24h")]
        overlap: Period,
        #[command(flatten)]
        output: Output,
    },
    /// Refuses everything that the partner asks for. Its projects go on running.
    Suspend {
        partner: PartnerId,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        output: Output,
    },
    /// Ends a suspension.
    Resume {
        partner: PartnerId,
        #[command(flatten)]
        output: Output,
    },
    /// Months, closed for bills.
    #[command(subcommand)]
    Statement(StatementCommand),
    /// Where a partner is told of events.
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// Amounts of usage that a partner is told of.
    #[command(subcommand)]
    Limit(LimitCommand),
}

#[derive(Subcommand)]
pub enum WebhookCommand {
    /// Sets the URL; the first time, shows the secret that signs, once.
    Set {
        partner: PartnerId,
        /// https, at a public address.
        url: String,
        /// Make a new secret and show it, once. The old one signs, too, for another 24 hours.
        #[arg(long)]
        rotate: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Shows the URL.
    Show {
        partner: PartnerId,
        #[command(flatten)]
        output: Output,
    },
    /// Tells the partner nothing any more, nor what is queued.
    Remove {
        partner: PartnerId,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        output: Output,
    },
    /// Sends a test event and says what became of it, within 15 seconds. Fails if it was not taken.
    Test {
        partner: PartnerId,
        #[command(flatten)]
        output: Output,
    },
    /// Shows events, newest first. Done ones go after 30 days.
    List {
        partner: PartnerId,
        /// queued, delivered or failed.
        #[arg(long)]
        state: Option<WebhookState>,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Sends an event again, whatever became of it before.
    Redeliver {
        partner: PartnerId,
        event: WebhookEventId,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum LimitCommand {
    /// Tells the partner's webhook when usage reaches an amount, once a day or month. Several amounts
    /// may be set for one metric.
    Set {
        partner: PartnerId,
        /// As in usage events; or ec2_compute, in seconds.
        metric: Metric,
        /// In the metric's unit: bytes, seconds, calls, credits.
        amount: String,
        /// One project of the partner, in place of all together.
        #[arg(long)]
        project: Option<ProjectId>,
        /// What is added up: a day or a month, UTC. Of sizes, the greatest day counts.
        #[arg(long, default_value = "month")]
        period: LimitPeriod,
        #[command(flatten)]
        output: Output,
    },
    /// Shows all limits.
    List {
        partner: PartnerId,
        #[command(flatten)]
        output: Output,
    },
    /// Removes a limit.
    Remove {
        partner: PartnerId,
        limit: UsageLimitId,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum StatementCommand {
    /// Freezes a month that is over, for ever. What becomes known of it later goes to the next
    /// statement as an adjustment; events may come 35 days late.
    Close {
        partner: PartnerId,
        #[arg(value_name = "YYYY-MM")]
        month: String,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        output: Output,
    },
    /// Shows a closed month, the same each time.
    Show {
        partner: PartnerId,
        #[arg(value_name = "YYYY-MM")]
        month: String,
        #[command(flatten)]
        output: Output,
    },
    /// Shows which months are closed.
    List {
        partner: PartnerId,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args)]
pub struct NewPartner {
    /// Its name, as people know it.
    #[arg(required_unless_present = "name")]
    pub partner_name: Option<String>,
    /// The same, as an option.
    #[arg(long, conflicts_with = "partner_name")]
    pub name: Option<String>,
    /// Which partnership it has.
    #[arg(long, value_enum, default_value_t = Model::Both)]
    pub model: Model,
    /// Requests per minute, over all endpoints.
    #[arg(long, default_value_t = cp_model::Partner::DEFAULT_RATE_LIMIT)]
    pub rate_limit: u32,
    /// Let it read the keys of all projects of its connected users, not only of those made
    /// through it.
    #[arg(long)]
    pub trusted: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Model {
    /// Its users are InsForge users.
    #[value(alias = "co-branded")]
    CoBranded,
    /// Nobody sees InsForge.
    #[value(alias = "white-label")]
    WhiteLabel,
    Both,
}

#[derive(Subcommand)]
pub enum ProjectCommand {
    /// Lets a partner read the keys of a project that was not made through it, for its owner.
    Share {
        project: ProjectId,
        #[arg(long)]
        partner: PartnerId,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum UserCommand {
    /// Makes an account with a password and a verified address; one that exists gets the password,
    /// and whoever was signed in to it is out.
    Create {
        #[arg(long)]
        email: String,
        #[arg(long)]
        name: String,
        /// Read the password from this file; otherwise one is made and shown, once.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Shows accounts, newest first.
    List {
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Marks an account's address as verified, for a person who cannot get our mail.
    Verify {
        #[arg(long)]
        email: String,
        #[command(flatten)]
        output: Output,
    },
    /// Locks a person out: no sign-in, no token and no key of theirs works any more.
    Disable {
        #[arg(long)]
        email: String,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        output: Output,
    },
    /// Lets a person in again. Where they were signed in they are not any more; API keys work again.
    Enable {
        #[arg(long)]
        email: String,
        #[command(flatten)]
        output: Output,
    },
    /// Gives a plan to a person's own organization, as `organization grant-plan` does.
    SetPlan {
        user: UserId,
        plan: Plan,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum OrganizationCommand {
    /// Shows people's organizations, newest first, with what each is given and pays for.
    List {
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Gives an organization a plan, whatever it pays for; it has the better one of both. `free` takes it back.
    GrantPlan {
        organization: OrganizationId,
        plan: Plan,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum UsageCommand {
    /// Draws what a partner, or one of its projects, used per day.
    Show {
        #[arg(long)]
        partner: PartnerId,
        /// One project of the partner, in place of all.
        #[arg(long)]
        project: Option<ProjectId>,
        /// First day, UTC [default: six days before the last].
        #[arg(long, value_name = "YYYY-MM-DD")]
        start: Option<String>,
        /// Last day, UTC, included [default: today].
        #[arg(long, value_name = "YYYY-MM-DD")]
        end: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Makes a link to a page that shows what a partner used, as charts. Whoever has it sees them,
    /// for ten minutes.
    ReportLink {
        partner: PartnerId,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum UsageTokenCommand {
    /// Makes a token that lets a service post usage events, and shows it, once.
    Create {
        /// Which service it is for.
        name: String,
        /// What the service may call itself in its events; may be given several times.
        #[arg(long = "source", required = true)]
        sources: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Shows all tokens.
    List(Output),
    /// Ends a token at once.
    Revoke {
        /// The name that it was made with.
        name: String,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum SessionCommand {
    /// Signs a person out everywhere: browsers, applications, command lines. API keys go on.
    Revoke {
        #[arg(long)]
        email: String,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum OAuthClientCommand {
    /// Registers an application; shows the secret of a confidential one, once.
    Create(NewOAuthClient),
    /// Shows all applications.
    List(Output),
    /// Gives a confidential application a new secret and shows it, once. The old one goes on for a
    /// while.
    RotateSecret {
        client: ClientId,
        /// How long the old secret goes on; 0s ends it at once (for one that has leaked).
        #[arg(long, default_value = "24h")]
        overlap: Period,
        #[command(flatten)]
        output: Output,
    },
    /// Refuses everything that the application asks for, for all people.
    Disable {
        client: ClientId,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        output: Output,
    },
    /// Ends a disablement.
    Enable {
        client: ClientId,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args)]
pub struct NewOAuthClient {
    /// Its name, as the page that asks people for consent shows it.
    #[arg(long)]
    pub name: String,
    /// Where people may be sent back to, exactly; once for each. On 127.0.0.1 and [::1] any port is
    /// meant.
    #[arg(long = "redirect-uri", required_unless_present = "device", value_name = "URI", value_parser = redirect_uri)]
    pub redirect_uris: Vec<String>,
    /// The most that it may ask for: once for each, or several between blanks. All unless given.
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scopes)]
    pub scopes: Vec<Scopes>,
    #[command(flatten)]
    pub kind: Kind,
    /// Let it use the device flow, for programs without a browser.
    #[arg(long)]
    pub device: bool,
    /// It is ours: everything that a person may do is open to it, not only what scopes name.
    #[arg(long)]
    pub first_party: bool,
    /// Token requests per minute.
    #[arg(long, default_value_t = OAuthClient::DEFAULT_RATE_LIMIT, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate_limit: u32,
    /// Shown on the page that asks people for consent (https).
    #[arg(long, value_name = "URL", value_parser = https_url)]
    pub logo_url: Option<String>,
    /// Its colour there: #rrggbb.
    #[arg(long, value_name = "COLOR", value_parser = color)]
    pub color: Option<String>,
    /// Its own page, linked there (https).
    #[arg(long, value_name = "URL", value_parser = https_url)]
    pub homepage_url: Option<String>,
    #[command(flatten)]
    pub output: Output,
}

/// Whether it can keep a secret (RFC 6749 section 2.1).
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Kind {
    /// It runs where people could read a secret: in browsers, on phones, on laptops.
    #[arg(long)]
    pub public: bool,
    /// It runs on a server, and keeps a secret.
    #[arg(long)]
    pub confidential: bool,
}

fn redirect_uri(text: &str) -> Result<String, String> {
    check_redirect_uri("redirect_uri", text).map_err(|e| e.to_string())?;
    Ok(text.to_owned())
}

/// One or several, as clap must not take a list for several values.
fn scopes(text: &str) -> Result<Scopes, String> {
    text.parse().map_err(|_| {
        let known: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        format!("the scopes are: {}", known.join(", "))
    })
}

/// All that were named; all there are when none was.
pub fn wanted_scopes(given: &[Scopes]) -> Scopes {
    if given.is_empty() {
        return Scopes::all();
    }
    given.iter().flat_map(Scopes::iter).collect()
}

fn https_url(text: &str) -> Result<String, String> {
    match reqwest::Url::parse(text) {
        Ok(url) if url.scheme() == "https" && url.has_host() => Ok(url.into()),
        _ => Err("must be an https:// URL".to_owned()),
    }
}

fn color(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix('#').unwrap_or_default();
    if digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("must be like #1a73e8".to_owned())
    }
}

#[derive(Subcommand)]
pub enum SigningKeyCommand {
    /// Shows all keys, retired ones too.
    List(Output),
    /// Begins a rotation now: the next key is published, and signs once every cache has it.
    Rotate {
        /// For a key that has leaked: the next key signs at once, not only after every backend has
        /// had time to fetch it. Then retire the leaked one.
        #[arg(long)]
        immediately: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Takes a retiring key out of the published set at once: every token it signed is refused.
    Retire {
        kid: String,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum OperationCommand {
    /// Shows operations, newest first.
    List {
        #[arg(long)]
        project: Option<ProjectId>,
        /// queued, running, waiting, succeeded, failed or cancelled.
        #[arg(long)]
        state: Option<OperationState>,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Shows everything about one operation.
    Show {
        operation: OperationId,
        #[command(flatten)]
        output: Output,
    },
    /// Takes a failed operation up again.
    Retry {
        operation: OperationId,
        /// When the project's machine is gone with its disk: give it a new, empty one.
        #[arg(long)]
        accept_data_loss: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Stops an operation in flight; its project is `failed` until a retry or its deletion.
    Cancel {
        operation: OperationId,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        output: Output,
    },
}

impl Cli {
    /// Where to look for the configuration.
    pub fn sources(&self) -> Sources {
        let is_dev = matches!(self.command, Command::Dev(_));
        let is_process = matches!(self.command, Command::Serve(_) | Command::Work(_));
        Sources {
            file: self.config.clone(),
            // `dev` writes that file and reads none of its own.
            data_dir: self.data_dir.clone().filter(|_| !is_dev),
            fall_back_to_dev: !is_dev && !is_process,
        }
    }

    pub fn log_style(&self) -> LogStyle {
        match self.command {
            Command::Dev(_) => LogStyle::Dev,
            Command::Serve(_) | Command::Work(_) => LogStyle::Production,
            _ => LogStyle::Command,
        }
    }

    /// Whether errors are written as JSON, too.
    pub fn json(&self) -> bool {
        use {
            OAuthClientCommand as C, OperationCommand as O, PartnerCommand as P,
            SigningKeyCommand as S, UserCommand as U,
        };
        let output = match &self.command {
            Command::Dev(_)
            | Command::Serve(_)
            | Command::Work(_)
            | Command::Migrate
            | Command::Merge(MergeCommand::Snapshot(_)) => return false,
            Command::Merge(MergeCommand::Diff(merge)) => &merge.output,
            Command::Merge(MergeCommand::Apply(apply)) => &apply.merge.output,
            Command::Doctor(DoctorOptions { output, .. })
            | Command::Partner(
                P::List(output)
                | P::RotateSecret { output, .. }
                | P::Suspend { output, .. }
                | P::Resume { output, .. }
                | P::Statement(
                    StatementCommand::Close { output, .. }
                    | StatementCommand::Show { output, .. }
                    | StatementCommand::List { output, .. },
                )
                | P::Webhook(
                    WebhookCommand::Set { output, .. }
                    | WebhookCommand::Show { output, .. }
                    | WebhookCommand::Remove { output, .. }
                    | WebhookCommand::Test { output, .. }
                    | WebhookCommand::List { output, .. }
                    | WebhookCommand::Redeliver { output, .. },
                )
                | P::Limit(
                    LimitCommand::Set { output, .. }
                    | LimitCommand::List { output, .. }
                    | LimitCommand::Remove { output, .. },
                ),
            )
            | Command::Project(ProjectCommand::Share { output, .. })
            | Command::Organization(
                OrganizationCommand::List { output, .. }
                | OrganizationCommand::GrantPlan { output, .. },
            )
            | Command::User(
                U::Create { output, .. }
                | U::List { output, .. }
                | U::Verify { output, .. }
                | U::Disable { output, .. }
                | U::Enable { output, .. }
                | U::SetPlan { output, .. },
            )
            | Command::Session(SessionCommand::Revoke { output, .. })
            | Command::Usage(
                UsageCommand::Show { output, .. } | UsageCommand::ReportLink { output, .. },
            )
            | Command::UsageToken(
                UsageTokenCommand::Create { output, .. }
                | UsageTokenCommand::List(output)
                | UsageTokenCommand::Revoke { output, .. },
            )
            | Command::OAuthClient(
                C::List(output)
                | C::RotateSecret { output, .. }
                | C::Disable { output, .. }
                | C::Enable { output, .. },
            )
            | Command::SigningKey(
                S::List(output) | S::Rotate { output, .. } | S::Retire { output, .. },
            )
            | Command::Operation(
                O::List { output, .. }
                | O::Show { output, .. }
                | O::Retry { output, .. }
                | O::Cancel { output, .. },
            ) => output,
            Command::Partner(P::Create(new)) => &new.output,
            Command::OAuthClient(C::Create(new)) => &new.output,
        };
        output.json
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn dev_listens_where_the_documents_say() {
        let cli = parse("insforge-cloud dev --data-dir /tmp/x").unwrap();
        assert!(cli.sources().data_dir.is_none());
        let Command::Dev(options) = cli.command else {
            panic!("not dev")
        };
        assert_eq!(options.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(options.admin_listen.to_string(), "127.0.0.1:8081");
    }

    #[test]
    fn operators_find_the_dev_by_its_folder_before_or_after_the_command() {
        for line in [
            "insforge-cloud --data-dir .insforge partner list --json",
            "insforge-cloud partner list --json --data-dir .insforge",
        ] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.sources().data_dir, Some(".insforge".into()));
            assert!(cli.json());
        }
    }

    #[test]
    fn a_partner_is_named_either_way_but_named_it_must_be() {
        for line in ["partner create Acme", "partner create --name Acme"] {
            assert!(parse(&format!("insforge-cloud {line}")).is_ok(), "{line}");
        }
        for line in ["partner create", "partner create Acme --name Acme"] {
            let error = parse(&format!("insforge-cloud {line}")).err().unwrap();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    fn new_client(options: &[&str]) -> Result<NewOAuthClient, clap::Error> {
        let fixed = [
            "insforge-cloud",
            "oauth-client",
            "create",
            "--name",
            "Acme App",
        ];
        let cli = Cli::try_parse_from(fixed.iter().chain(options))?;
        match cli.command {
            Command::OAuthClient(OAuthClientCommand::Create(new)) => Ok(new),
            _ => panic!("not oauth-client create"),
        }
    }

    #[test]
    fn scopes_are_given_one_by_one_or_together() {
        let uri = ["--public", "--redirect-uri", "https://a.b/c"];
        let of = |options: &[&str]| {
            let new = new_client(&[&uri[..], options].concat()).ok().unwrap();
            wanted_scopes(&new.scopes).to_string()
        };
        assert_eq!(
            of(&["--scope", "user:read projects:read"]),
            "user:read projects:read"
        );
        assert_eq!(
            of(&["--scope", "projects:read", "--scope", "user:read"]),
            "user:read projects:read"
        );
        assert_eq!(of(&[]), Scopes::all().to_string());
        let error = new_client(&[&uri[..], &["--scope", "admin"]].concat())
            .err()
            .unwrap();
        assert!(
            error.to_string().contains("user:read, organizations:read"),
            "{error}"
        );
    }

    #[test]
    fn a_client_says_what_it_is_and_where_people_are_sent_back_to() {
        let uri = [
            "--redirect-uri",
            "https://a.b/c",
            "--redirect-uri",
            "http://127.0.0.1/c",
        ];
        let full = [
            &uri[..],
            &[
                "--confidential",
                "--logo-url",
                "https://a.b/logo.svg",
                "--color",
                "#1A73E8",
                "--rate-limit",
                "500",
            ],
        ];
        let new = new_client(&full.concat()).ok().unwrap();
        assert!(new.kind.confidential && !new.device && !new.first_party);
        assert_eq!(new.redirect_uris, ["https://a.b/c", "http://127.0.0.1/c"]);
        assert_eq!(new.color.as_deref(), Some("#1a73e8"));
        assert!(
            new_client(&["--public", "--device"]).is_ok(),
            "a device needs no way back"
        );

        for bad in [
            &uri[..],
            &["--public"],
            &[
                "--public",
                "--confidential",
                "--redirect-uri",
                "https://a.b/c",
            ],
            &["--public", "--redirect-uri", "http://a.b/c"],
            &["--public", "--redirect-uri", "https://*.a.b/c"],
            &[
                "--public",
                "--redirect-uri",
                "https://a.b/c",
                "--color",
                "red",
            ],
            &[
                "--public",
                "--redirect-uri",
                "https://a.b/c",
                "--logo-url",
                "http://a.b/x",
            ],
            &[
                "--public",
                "--redirect-uri",
                "https://a.b/c",
                "--logo-url",
                "javascript:alert(1)",
            ],
            &[
                "--public",
                "--redirect-uri",
                "https://a.b/c",
                "--rate-limit",
                "0",
            ],
        ] {
            let error = new_client(bad).err();
            assert_eq!(error.map(|e| e.exit_code()), Some(2), "{bad:?}");
        }
    }

    #[test]
    fn whoever_is_meant_is_named_by_email() {
        for line in [
            "user verify --email a@b.c --json",
            "user disable --email a@b.c --yes --json",
            "user enable --email a@b.c --json",
            "session revoke --email a@b.c -y --json",
        ] {
            assert!(
                parse(&format!("insforge-cloud {line}")).unwrap().json(),
                "{line}"
            );
        }
        for line in ["user verify", "user disable", "session revoke --yes"] {
            assert!(parse(&format!("insforge-cloud {line}")).is_err(), "{line}");
        }
    }

    #[test]
    fn webhooks_and_limits_are_a_partners() {
        for line in [
            "webhook set ps_acme https://example.com/x --rotate --json",
            "webhook show ps_acme --json",
            "webhook remove ps_acme --yes --json",
            "webhook test ps_acme --json",
            "webhook list ps_acme --state failed --json",
            "webhook redeliver ps_acme 01890a5d-ac96-774b-bcce-b302099a8057 --json",
            "limit set ps_acme ec2_compute 3600 --period day --json",
            "limit set ps_acme ai_credits 0.5 --project 01890a5d-ac96-774b-bcce-b302099a8057 --json",
            "limit list ps_acme --json",
            "limit remove ps_acme 01890a5d-ac96-774b-bcce-b302099a8057 -y --json",
        ] {
            let cli = parse(&format!("insforge-cloud partner {line}"));
            assert!(cli.is_ok_and(|cli| cli.json()), "{line}");
        }
        for line in [
            "webhook set ps_acme",
            "webhook list ps_acme --state lost",
            "limit set ps_acme tokens 5",
            "limit set ps_acme ai_tokens 5 --period week",
            "limit remove ps_acme 42",
        ] {
            let error = parse(&format!("insforge-cloud partner {line}")).err();
            assert_eq!(error.map(|e| e.exit_code()), Some(2), "{line}");
        }
    }

    #[test]
    fn malformed_ids_are_wrong_usage() {
        for line in [
            "operation show 42",
            "partner suspend nobody",
            "operation list --state done",
            "user set-plan 01890a5d-ac96-774b-bcce-b302099a8057 gold",
            "oauth-client disable Acme",
        ] {
            let error = parse(&format!("insforge-cloud {line}")).err().unwrap();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
