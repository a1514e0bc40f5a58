//! `insforge-cloud doctor`: the effective configuration with secrets masked, and a check of each
//! thing that a process needs, with how to mend it. Changes nothing, but for an object that it puts
//! into each bucket and removes again: S3 has no dry run.

use std::process::ExitCode;
use std::time::Duration;

use cp_billing::SoldPrice;
use cp_domain::ControlPlane;
use cp_pg::Binaries;
use cp_provider::AwsAccess;
use cp_provider::ec2::Ec2Compute;
use cp_provider::ec2::permissions::Verdict as Answer;
use cp_tokens::sealing::SealingKey;
use serde::Serialize;
use serde_json::json;

use super::output::{columns, show};
use crate::cli::DoctorOptions;
use crate::config::{Config, Origins, Provider};
use crate::{local_machines, plane};

/// What was looked at, and what came of it.
#[derive(Serialize)]
struct Check {
    name: String,
    verdict: Verdict,
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Works, but look at it.
    Warning,
    Failed,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        }
    }
}

impl Check {
    fn of(name: impl Into<String>, outcome: Result<String, String>) -> Self {
        let (verdict, detail) = match outcome {
            Ok(detail) => (Verdict::Ok, detail),
            Err(detail) => (Verdict::Failed, detail),
        };
        Self {
            name: name.into(),
            verdict,
            detail,
        }
    }

    fn warning(name: impl Into<String>, detail: &str) -> Self {
        Self {
            name: name.into(),
            verdict: Verdict::Warning,
            detail: detail.to_owned(),
        }
    }
}

/// Exit code 1 when a check failed.
pub async fn run(
    config: &Config,
    origins: &Origins,
    options: &DoctorOptions,
) -> anyhow::Result<ExitCode> {
    let mut checks = vec![check_sealing_key(config)];
    check_database(config, &mut checks).await;
    check_addresses(config, &mut checks).await;
    check_machines(config, &mut checks).await;
    if options.aws || config.worker.provider == Provider::Ec2 {
        check_aws(config, options.aws, &mut checks).await;
    }
    check_objects(config, &mut checks).await;
    checks.push(check_mail(config).await);
    checks.extend(check_payments(config).await);
    check_ai(config, &mut checks);
    let failed = checks.iter().any(|c| c.verdict == Verdict::Failed);

    let entries = config.entries(origins);
    let report = json!({ "ok": !failed, "configuration": entries, "checks": checks });
    show(options.output, &report, || {
        let rows: Vec<_> = entries
            .into_iter()
            .map(|e| [e.key, e.value, e.origin])
            .collect();
        let verdicts: Vec<_> = checks
            .iter()
            .map(|c| {
                [
                    c.verdict.as_str().to_owned(),
                    c.name.clone(),
                    c.detail.clone(),
                ]
            })
            .collect();
        format!(
            "{}\n\n{}",
            columns(["KEY", "VALUE", "FROM"], &rows),
            columns(["", "CHECK", ""], &verdicts)
        )
    })?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn check_sealing_key(config: &Config) -> Check {
    let outcome = match config.sealer() {
        Ok(sealer) => Ok(format!(
            "values are sealed with {}",
            sealer.primary_key_id()
        )),
        Err(error) if config.names_sealing_key() => Err(error.to_string()),
        Err(error) => Err(format!(
            "{error}. Make one with: echo \"{}:$(openssl rand -base64 32)\"",
            // An id of its own, so that a later key has another.
            SealingKey::generate().id()
        )),
    };
    Check::of("sealing key", outcome)
}

async fn check_database(config: &Config, checks: &mut Vec<Check>) {
    let database = match plane::database(config, "doctor") {
        Ok(database) => database,
        Err(error) => {
            checks.push(Check::of("database", Err(error.to_string())));
            return;
        }
    };
    let answers = super::ping(&database).await;
    let is_there = answers.is_ok();
    checks.push(Check::of(
        "database",
        answers
            .map(|()| "answers".to_owned())
            .map_err(|e| format!("{e:#}; check database.url, and that Postgres runs")),
    ));
    if !is_there {
        return;
    }
    let migrated = match database.pending_migrations().await {
        Ok(0) => Ok("the schema is up to date".to_owned()),
        Ok(n) => Err(format!(
            "{n} migrations are missing; run `insforge-cloud migrate`"
        )),
        Err(error) => Err(error.to_string()),
    };
    let is_migrated = migrated.is_ok();
    checks.push(Check::of("schema", migrated));
    if is_migrated && config.sealer().is_ok() {
        match plane::control_plane(config, database, "http://127.0.0.1") {
            Ok(control_plane) => checks.push(check_signing_key(&control_plane).await),
            Err(error) => checks.push(Check::of("signing key", Err(error.to_string()))),
        }
    }
}

async fn check_signing_key(control_plane: &ControlPlane) -> Check {
    let name = "signing key";
    match control_plane.load_keys().await {
        Ok(true) => Check::of(name, Ok("opens with the sealing key".to_owned())),
        Ok(false) => Check::warning(
            name,
            "there is none yet; the first worker makes one, or `insforge-cloud signing-key rotate`",
        ),
        Err(error) => Check::of(
            name,
            Err(format!(
                "{error}; is this the sealing key that the database was used with?"
            )),
        ),
    }
}

async fn check_addresses(config: &Config, checks: &mut Vec<Check>) {
    let name = "base URL";
    match config.base_url() {
        Err(error) => checks.push(Check::warning(
            name,
            &format!("{error}; `serve` and `work` need it"),
        )),
        Ok(url) => checks.push(check_base_url(name, &url).await),
    }
    if !config.admin.listen.ip().is_loopback() {
        checks.push(Check::warning(
            "admin listener",
            "has no authentication and is not on loopback; make sure that only operators reach it",
        ));
    }
}

/// Backends fetch our keys there.
async fn check_base_url(name: &'static str, url: &str) -> Check {
    let keys = format!("{url}/.well-known/jwks.json");
    let answer = match reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .build()
    {
        Ok(client) => client.get(&keys).send().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) if answer.status().is_success() => {
            Check::of(name, Ok(format!("{keys} answers")))
        }
        Ok(answer) => Check::warning(
            name,
            &format!(
                "{keys} answers {}; is another service there?",
                answer.status()
            ),
        ),
        Err(_) => Check::warning(
            name,
            &format!("{keys} cannot be reached from here; it must be once `serve` runs"),
        ),
    }
}

/// Sends nothing.
async fn check_mail(config: &Config) -> Check {
    let name = "mail";
    match config.mailer(None) {
        Ok(Some(mailer)) => Check::of(
            name,
            mailer
                .check()
                .await
                .map_err(|e| format!("{e}; mails wait until that is mended")),
        ),
        Ok(None) => Check::warning(
            name,
            "nothing brings mails to people: codes and links wait in the queue; set mail.smtp_url",
        ),
        Err(error) => Check::of(name, Err(error.to_string())),
    }
}

/// Asks nobody: a question costs money.
fn check_ai(config: &Config, checks: &mut Vec<Check>) {
    let told = |is_set: bool, what: &str| {
        if is_set {
            format!("{what} is configured")
        } else {
            format!("{what} is not configured, and answers 501")
        }
    };
    let gateway = config
        .openrouter()
        .map(|made| told(made.is_some(), "the AI gateway of backends"));
    checks.push(Check::of(
        "openrouter",
        gateway.map_err(|error| error.to_string()),
    ));
    let analysis = config
        .analyst()
        .map(|made| told(made.is_some(), "asking an AI about a project"));
    checks.push(Check::of(
        "analysis",
        analysis.map_err(|error| error.to_string()),
    ));
}

async fn check_machines(config: &Config, checks: &mut Vec<Check>) {
    match config.worker.provider {
        Provider::Local => {
            let agent = local_machines::agent_binary(&config.local);
            checks.push(Check::of(
                "agent",
                agent
                    .map(|path| path.display().to_string())
                    .map_err(|e| format!("{e:#}")),
            ));
            let binaries = Binaries::find().await;
            checks.push(Check::of(
                "Postgres of machines",
                binaries
                    .map(|b| format!("version {} in {}", b.version(), b.dir().display()))
                    .map_err(|e| e.to_string()),
            ));
        }
        // See `check_aws`.
        Provider::Ec2 => {}
    }
}

async fn check_aws(config: &Config, is_asked: bool, checks: &mut Vec<Check>) {
    if config.ec2.regions.is_empty() {
        if config.objects.names_buckets() {
            return;
        }
        let rule = "neither ec2.regions names a region nor objects.buckets a bucket, so there is nothing to ask AWS about";
        checks.push(Check::of("AWS", Err(rule.into())));
        return;
    }
    if !is_asked {
        let detail = "not asked; `insforge-cloud doctor --aws` does, by dry runs";
        checks.push(Check::warning("AWS", detail));
        return;
    }
    let access = AwsAccess::from_environment().await;
    let compute = Ec2Compute::new(&access, config.ec2.compute());
    for permission in compute.check_permissions().await {
        let name = format!("{} in {}", permission.action, permission.region);
        checks.push(match permission.verdict {
            Answer::Allowed => Check::of(name, Ok("allowed".into())),
            Answer::Denied(text) => Check::of(
                name,
                Err(format!(
                    "denied; let the role of this process do it: {text}"
                )),
            ),
            Answer::Unknown(text) => Check::warning(name, &text),
        });
    }
}

/// Machines on AWS need buckets beside them; those of `dev` have its folder.
async fn check_objects(config: &Config, checks: &mut Vec<Check>) {
    let machines = config.ec2.regions.iter().map(|machines| machines.region);
    for region in machines {
        let mut buckets = config.objects.buckets.iter();
        if !buckets.any(|bucket| bucket.region == region) {
            checks.push(Check::warning(
                format!("bucket in {region}"),
                "objects.buckets names none, so no snapshot of a project there can be stored",
            ));
        }
    }
    if !config.objects.names_buckets() {
        return;
    }
    let access = AwsAccess::from_environment().await;
    for permission in config.objects.open(&access).check_permissions().await {
        let region = permission.region;
        let mut buckets = config.objects.buckets.iter();
        let bucket = buckets.find(|bucket| bucket.region == region);
        let bucket = bucket.map_or("", |bucket| &bucket.bucket);
        let name = format!("{} on {bucket} in {region}", permission.action);
        checks.push(match permission.verdict {
            Answer::Allowed => Check::of(name, Ok("allowed".into())),
            Answer::Denied(text) => Check::of(
                name,
                Err(format!(
                    "refused; the bucket must exist, and the role of this process must be allowed it: {text}"
                )),
            ),
            Answer::Unknown(text) => {
                Check::warning(name, &format!("could not be found out: {text}"))
            }
        });
    }
}

/// Nothing where no payments are taken.
async fn check_payments(config: &Config) -> Option<Check> {
    let base_url = config.base_url().ok();
    let opened = config.payments(base_url.as_deref().unwrap_or("http://127.0.0.1"));
    let outcome = match opened.transpose()? {
        Err(error) => Err(error.to_string()),
        Ok(stripe) => match stripe.sold_prices().await {
            Err(error) => Err(format!(
                "{error}; check stripe.secret_key and stripe.pro_prices"
            )),
            Ok(sold) => match sold.iter().find(|price| !price.is_for_sale) {
                Some(price) => Err(format!(
                    "the price {} of the {} plan is archived or no subscription; choose another one in stripe.pro_prices",
                    price.id, price.plan
                )),
                None => Ok(sold.iter().map(shown_price).collect::<Vec<_>>().join(", ")),
            },
        },
    };
    Some(Check::of("payments", outcome))
}

fn shown_price(price: &SoldPrice) -> String {
    let amount = price.amount.as_deref().unwrap_or("a price of its own");
    format!("{} is sold for {amount} ({})", price.plan, price.id)
}
