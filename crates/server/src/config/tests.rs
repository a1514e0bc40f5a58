use std::path::PathBuf;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::environment::{Meaning, meaning};
use super::*;

struct File {
    _dir: TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    File { _dir: dir, path }
}

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let file = file(text);
    Config::load(
        Some(&file.path),
        environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
    )
}

fn refusal(text: &str, environment: &[(&str, &str)]) -> String {
    load(text, environment).err().unwrap().to_string()
}

const KEY: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn nothing_configured_is_the_defaults() {
    let config = Config::load(None, []).ok().unwrap().config;
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert!(config.admin.listen.ip().is_loopback());
    let error = config.database_url().err().unwrap().to_string();
    assert!(error.contains("INSFORGE_DATABASE_URL"), "{error}");
}

#[test]
fn unknown_keys_are_refused_by_name_with_the_ones_there_are() {
    let error = refusal("[http]\nlisten_on = \"127.0.0.1:1\"\n", &[]);
    assert!(error.contains("unknown key http.listen_on"), "{error}");
    assert!(error.contains("base_url, listen"), "{error}");

    let error = refusal("[htpp]\nlisten = \"127.0.0.1:1\"\n", &[]);
    assert!(error.contains("unknown section [htpp]"), "{error}");
    assert!(refusal("listen = 1\n", &[]).contains("unknown section [listen]"));

    let error = refusal("", &[("INSFORGE_HTTP_LISTEN_ON", "x")]);
    assert!(
        error.contains("http.listen_on in INSFORGE_HTTP_LISTEN_ON"),
        "{error}"
    );

    let target = "[[pool.targets]]\nregion=\"us-east\"\ninstance_type=\"nano\"\nfloor=1\nceiling=2\nflor=1\n";
    assert!(refusal(target, &[]).contains("flor"));
}

#[test]
fn variables_win_over_the_file_and_other_programs_variables_are_left_alone() {
    let loaded = load(
        "[worker]\nconcurrency = 8\nlease = \"20s\"\n",
        &[
            ("INSFORGE_WORKER_CONCURRENCY", "12"),
            ("INSFORGE_LOG", "debug"),
            ("INSFORGE_HTTP_BASE_URL", ""),
            ("INSFORGE_API_TOKEN", "of another program"),
            ("PATH", "/bin"),
        ],
    )
    .ok()
    .unwrap();
    let config = &loaded.config;
    assert_eq!(config.worker.concurrency, 12);
    assert_eq!(config.worker.lease.to_string(), "20s");
    assert_eq!(config.telemetry.log.as_deref(), Some("debug"));
    assert_eq!(config.http.base_url, None);

    let entries = config.entries(&loaded.origins);
    let origin = |key: &str| {
        entries
            .iter()
            .find(|e| e.key == key)
            .unwrap()
            .origin
            .clone()
    };
    assert_eq!(origin("worker.concurrency"), "INSFORGE_WORKER_CONCURRENCY");
    assert!(origin("worker.lease").ends_with("config.toml"));
    assert_eq!(origin("http.listen"), "default");
}

#[test]
fn a_bad_value_names_its_key_and_its_place() {
    let error = refusal("[http]\nlisten = \"localhost\"\n", &[]);
    assert!(error.contains("http.listen in "), "{error}");
    let error = refusal("", &[("INSFORGE_WORKER_LEASE", "soon")]);
    assert!(
        error.contains("worker.lease in INSFORGE_WORKER_LEASE"),
        "{error}"
    );
    assert!(error.contains("10s"), "{error}");
    let error = refusal("", &[("INSFORGE_WORKER_PROVIDER", "cloud")]);
    assert!(error.contains("valid values: local, ec2"), "{error}");
}

#[test]
fn machines_on_ec2_have_an_owner_and_each_region_its_own_place() {
    let ec2 = ("INSFORGE_WORKER_PROVIDER", "ec2");
    let named = ("INSFORGE_EC2_DEPLOYMENT", "production");
    let error = refusal("", &[ec2]);
    assert!(error.contains("ec2.deployment must be a name"), "{error}");
    let error = refusal("", &[ec2, named]);
    assert!(error.contains("ec2.regions must name"), "{error}");
    let region = |region: &str, more: &str| {
        format!(r#"{{region="{region}",subnets=["subnet-1"],security_groups=["sg-1"],{more}}}"#)
    };
    let regions = |list: &[String]| format!("[{}]", list.join(","));
    let refused = |list: &[String]| {
        let regions = regions(list);
        refusal("", &[ec2, named, ("INSFORGE_EC2_REGIONS", &regions)])
    };
    let error = refused(&[region("us-east", r#"image_owner="self""#)]);
    assert!(error.contains("either image, or image_owner"), "{error}");
    let image = r#"image="ami-1""#;
    let error = refused(&[region("us-east", image), region("us-east", image)]);
    assert!(error.contains("us-east is there twice"), "{error}");
    let same = format!(r#"aws_region="us-east-1",{image}"#);
    let error = refused(&[region("us-east", image), region("us-west", &same)]);
    assert!(error.contains("two of them are in us-east-1"), "{error}");
}

#[test]
fn each_region_has_a_bucket_of_its_own_with_a_name_and_a_key_that_s3_takes() {
    let list = r#"[{region="us-east",bucket="acme-objects"},{region="eu-central",aws_region="eu-west-1",bucket="acme.eu",kms_key="arn:aws:kms:eu-west-1:123456789012:key/1"}]"#;
    let from_environment = load("", &[("INSFORGE_OBJECTS_BUCKETS", list)]);
    let file = "[objects]\npatience = \"5s\"\n\
        [[objects.buckets]]\nregion = \"us-east\"\nbucket = \"acme-objects\"\n\
        [[objects.buckets]]\nregion = \"eu-central\"\naws_region = \"eu-west-1\"\nbucket = \"acme.eu\"\n\
        kms_key = \"arn:aws:kms:eu-west-1:123456789012:key/1\"\n";
    let (a, b) = (
        from_environment.ok().unwrap().config.objects,
        load(file, &[]).ok().unwrap().config.objects,
    );
    assert_eq!(a.buckets, b.buckets);
    assert_eq!(b.patience.to_string(), "5s");

    let refused = |list: &str| refusal("", &[("INSFORGE_OBJECTS_BUCKETS", list)]);
    for (list, rule) in [
        (
            r#"[{region="us-east",bucket="a-b"},{region="us-east",bucket="a-c"}]"#,
            "objects.buckets us-east is there twice",
        ),
        (
            r#"[{region="us-east",bucket="a-b"},{region="us-west",bucket="a-b"}]"#,
            r#"objects.buckets two regions have the bucket "a-b""#,
        ),
        (
            r#"[{region="us-east",bucket="Acme"}]"#,
            "objects.buckets us-east: bucket must be a bucket's name",
        ),
        (
            r#"[{region="us-east",bucket="acme-"}]"#,
            "bucket must be a bucket's name",
        ),
        (
            r#"[{region="us-east",bucket="acme",aws_region=""}]"#,
            "aws_region may not be empty",
        ),
        (
            r#"[{region="us-east",bucket="acme",kms_key="arn:aws:kms:eu-west-1:1:key/1"}]"#,
            "kms_key must be the ARN of a key in the bucket's region: arn:aws:kms:us-east-1",
        ),
        (
            r#"[{region="us-east",bucket="acme",endpoint="http://minio:9000/store"}]"#,
            "objects.buckets us-east: endpoint must be http:// or https:// and a host",
        ),
        (r#"[{region="us-east"}]"#, "objects.buckets in INSFORGE"),
        (
            r#"[{region="us-east",bucket="acme",secret="hidden"}]"#,
            "unknown field `secret`",
        ),
    ] {
        let error = refused(list);
        assert!(error.contains(rule), "{error}");
    }
    let error =
        refused(r#"[{region="us-east",bucket="acme",endpoint="http://key:hunter2@minio:9000"}]"#);
    assert!(error.contains("without path, query, user"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    let error = refusal("[objects]\npatience = \"0s\"\n", &[]);
    assert!(
        error.contains("objects.patience must lie between"),
        "{error}"
    );
    // One bucket's name on two stores is two buckets, and a store may name keys as it likes.
    let two = r#"[{region="us-east",bucket="acme",endpoint="http://a:9000",kms_key="mine"},{region="us-west",bucket="acme",endpoint="http://b:9000"}]"#;
    assert!(load("", &[("INSFORGE_OBJECTS_BUCKETS", two)]).is_ok());
}

#[test]
fn the_example_of_infra_is_a_configuration() {
    let example = include_str!("../../../../infra/docker/insforge.toml.example");
    let config = load(example, &[]).ok().unwrap().config;
    assert!(config.objects.names_buckets());
    assert_eq!(
        config.objects.buckets[0].region,
        config.ec2.regions[0].region
    );
}

#[test]
fn lists_can_come_from_the_environment() {
    let targets = r#"[{region="us-east",instance_type="nano",floor=1,ceiling=2}]"#;
    let config = load("", &[("INSFORGE_POOL_TARGETS", targets)])
        .ok()
        .unwrap()
        .config;
    assert_eq!(config.pool.targets[0].ceiling, 2);
    let error = refusal("", &[("INSFORGE_POOL_TARGETS", "two")]);
    assert!(error.contains("must be a list"), "{error}");
}

#[test]
fn rules_across_values_hold() {
    let both = "region=\"us-east\"\ninstance_type=\"nano\"\n";
    let upside_down = format!("[[pool.targets]]\n{both}floor=3\nceiling=2\n");
    assert!(refusal(&upside_down, &[]).contains("floor"));
    let one = format!("[[pool.targets]]\n{both}floor=1\nceiling=2\n");
    assert!(refusal(&format!("{one}{one}"), &[]).contains("twice"));
    assert!(refusal("[signing]\npublish_ahead = \"1m\"\n", &[]).contains("publish_ahead"));
    for url in [
        "example.com",
        "ftp://example.com",
        "https://a.b/c",
        "https://u:p@a.b",
    ] {
        let error = refusal("", &[("INSFORGE_HTTP_BASE_URL", url)]);
        assert!(error.contains("http.base_url must be"), "{url}: {error}");
    }
    let slash = load("[http]\nbase_url = \"https://a.b/\"\n", &[])
        .ok()
        .unwrap();
    assert_eq!(slash.config.base_url().unwrap(), "https://a.b");
}

#[test]
fn a_secret_comes_from_a_value_or_a_file_but_not_both() {
    let secret = file(&format!("{KEY}\n"));
    let path = secret.path.display();
    let config = load(&format!("[secrets]\nsealing_key_file = \"{path}\"\n"), &[])
        .ok()
        .unwrap()
        .config;
    assert_eq!(config.sealer().ok().unwrap().primary_key_id(), "k1");

    let both = [("INSFORGE_SECRETS_SEALING_KEY", KEY)];
    let config = load(
        &format!("[secrets]\nsealing_key_file = \"{path}\"\n"),
        &both,
    )
    .ok()
    .unwrap()
    .config;
    let error = config.sealer().err().unwrap().to_string();
    assert!(error.contains("both set"), "{error}");

    let nowhere = load("[database]\nurl_file = \"/nowhere/url\"\n", &[])
        .ok()
        .unwrap();
    let error = nowhere.config.database_url().err().unwrap().to_string();
    assert!(
        error.contains("/nowhere/url") && error.contains("database.url_file"),
        "{error}"
    );
}

#[test]
fn mail_goes_one_way_or_waits() {
    let mailer = |text: &str| load(text, &[]).and_then(|loaded| loaded.config.mailer(None));
    let refusal = |text: &str| mailer(text).err().unwrap().to_string();
    assert!(mailer("").ok().unwrap().is_none());
    assert!(
        mailer("[mail]\nfolder = \"mail\"\n")
            .ok()
            .unwrap()
            .is_some()
    );
    let server = "[mail]\nsmtp_url = \"smtps://me:hunter2@mail.example\"\n";
    assert!(mailer(server).ok().unwrap().is_some());

    let error = refusal(&format!("{server}folder = \"mail\"\n"));
    assert!(error.contains("mail.folder may not"), "{error}");
    let error = refusal(&format!("{server}smtp_url_file = \"x\"\n"));
    assert!(error.contains("both set"), "{error}");
    let error = refusal("[mail]\nsmtp_url = \"https://me:hunter2@mail.example\"\n");
    assert!(
        error.contains("mail.smtp_url must be like smtps://"),
        "{error}"
    );
    assert!(!error.contains("hunter2"), "{error}");
    let error = refusal("[mail]\nfrom = \"nobody\"\n");
    assert!(error.contains("mail.from in "), "{error}");
}

#[test]
fn a_password_of_digits_stays_text() {
    let config = load("", &[("INSFORGE_DATABASE_URL", "12345")])
        .ok()
        .unwrap()
        .config;
    assert_eq!(config.database_url().unwrap().expose_secret(), "12345");
}

#[test]
fn what_is_shown_holds_no_secret() {
    let older = KEY.replace("k1:AA", "k0:AB");
    let text = format!(
        "[database]\nurl = \"postgres://me:hunter2@db.example/cloud?sslpassword=hunter3\"\n\
         [mail]\nsmtp_url = \"smtps://me:hunter4@mail.example\"\n\
         [secrets]\nsealing_key = \"{KEY}\"\nolder_sealing_keys = [\"{older}\"]\n"
    );
    let loaded = load(&text, &[]).ok().unwrap();
    let shown = serde_json::to_string(&loaded.config.entries(&loaded.origins)).unwrap();
    assert!(
        shown.contains("postgres://me:****@db.example/cloud"),
        "{shown}"
    );
    for secret in ["hunter2", "hunter3", "hunter4", "AAECAw", "ABECAw"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn errors_repeat_no_secret() {
    let unterminated = "[database]\nurl = \"postgres://me:hunter2@db\nmax_connections = 3\n";
    let error = refusal(unterminated, &[]);
    assert!(
        error.contains("line 2") && !error.contains("hunter2"),
        "{error}"
    );
    let error = refusal("[secrets]\nolder_sealing_keys = \"hunter2\"\n", &[]);
    assert!(!error.contains("hunter2"), "{error}");
    let config = load("[secrets]\nsealing_key = \"hunter2\"\n", &[])
        .ok()
        .unwrap()
        .config;
    let error = config.sealer().err().unwrap().to_string();
    assert!(
        error.contains("id:base64") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn every_key_has_a_variable_that_leads_back_to_it() {
    for (section, keys) in super::shown::known_keys() {
        assert!(!section.contains('_'), "{section} would be cut in two");
        for key in keys {
            let variable = super::environment::variable(&format!("{section}.{key}"));
            let expected = Meaning::Key {
                section: section.clone(),
                key: key.clone(),
            };
            assert_eq!(meaning(&variable), expected);
        }
    }
}

#[test]
fn sites_are_below_a_host_name() {
    let domain = |name: &str| load(&format!("[sites]\ndomain = {name:?}\n"), &[]);
    assert!(domain("sites.example.com").is_ok());
    let long = format!("{}example.com", "abcdefgh.".repeat(22));
    for bad in [
        "https://example.com",
        "example",
        "*.example.com",
        "Example.com",
        "a.com/x",
        &long,
    ] {
        let error = domain(bad).err().map(|error| error.to_string());
        assert!(error.is_some_and(|e| e.contains("sites.domain")), "{bad}");
    }
}

#[test]
fn ai_providers_are_there_once_they_are_named() {
    let config = |text: &str| load(text, &[]).map(|loaded| loaded.config);
    let none = config("").ok().unwrap();
    assert!(none.openrouter().ok().unwrap().is_none());
    assert!(none.analyst().ok().unwrap().is_none());
    let both = r#"
        [openrouter]
        provisioning_key = "sk-or-v1-provisioning"
        monthly_limit_free = 2
        [analysis]
        url = "https://api.example.com/v1/chat/completions"
        model = "some/model"
        time_limit = "1m"
    "#;
    let both = config(both).ok().unwrap();
    assert!(both.openrouter().ok().unwrap().is_some());
    assert!(both.analyst().ok().unwrap().is_some());
    assert_eq!(both.openrouter.limits().free, 2);
    let shown = serde_json::to_string(&both).unwrap();
    assert!(!shown.contains("provisioning\""), "{shown}");
    let by_variable = [(
        "INSFORGE_OPENROUTER_PROVISIONING_KEY",
        "sk-or-v1-provisioning",
    )];
    let loaded = load("", &by_variable).ok().unwrap().config;
    assert!(loaded.openrouter().ok().unwrap().is_some());

    for (text, named) in [
        (
            "[openrouter]\nmonthly_limit_pro = 0",
            "openrouter.monthly_limit_pro",
        ),
        (
            "[analysis]\nurl = \"https://a.example/x\"",
            "analysis.model",
        ),
        ("[analysis]\nper_hour = 0", "analysis.per_hour"),
        ("[analysis]\nurl = \"nowhere\"", "analysis.url"),
    ] {
        let error = refusal(text, &[]);
        assert!(error.contains(named), "{error}");
    }
    let refused = |text: &str| {
        let config = config(text).ok().unwrap();
        let openrouter = config.openrouter().err().map(|error| error.to_string());
        openrouter.or(config.analyst().err().map(|error| error.to_string()))
    };
    let key = "[openrouter]\nprovisioning_key = \"sk-or-v1-provisioning\"\n";
    let error = refused(&format!("{key}api_base = \"http://a.example/\"")).unwrap();
    assert!(error.starts_with("openrouter.api_base"), "{error}");
    let error = refused("[openrouter]\nprovisioning_key = \"a b\"").unwrap();
    assert!(error.starts_with("openrouter.provisioning_key"), "{error}");
    let error = refused(&format!("{key}provisioning_key_file = \"/nowhere\"")).unwrap();
    assert!(error.contains("both set"), "{error}");
}
