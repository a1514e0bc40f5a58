//! moto, an emulator of AWS's interface (PyPI), as a process of its own; and what scenarios look at
//! and arrange there without our own client, so that they do not believe it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use reqwest::{Method, Response};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

const EC2: &str = "2016-11-15";
const IAM: &str = "2010-05-08";

pub struct Moto {
    pub url: String,
    http: reqwest::Client,
    _process: Child,
}

/// What DescribeInstances tells, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub id: String,
    pub state: String,
    pub instance_type: String,
    /// The tag `insforge:machine`.
    pub machine: Option<String>,
    /// All of it, for what else a scenario asks.
    pub xml: String,
}

impl Moto {
    /// # Panics
    /// When it is not installed, or does not come up within 30 seconds.
    pub async fn start() -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/moto_server");
        assert!(
            program.exists(),
            "moto is missing; run:  scripts/setup --test"
        );
        let mut process = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
            .env("MOTO_ENABLE_AMI_VALIDATION", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("moto can be started");
        let mut lines = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        let url = tokio::time::timeout(Duration::from_secs(30), async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, address)) = line.split_once("Running on http://") {
                    let address = address.split_whitespace().next().unwrap_or_default();
                    return format!("http://{address}");
                }
            }
            panic!("moto ended before it was ready")
        })
        .await
        .expect("moto is up within 30 seconds");
        // It logs every request, and would stop at a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let http = reqwest::Client::builder().no_proxy().build();
        Self {
            url,
            http: http.expect("a client can be built"),
            _process: process,
        }
    }

    /// One call of the query protocol; no signature is looked at.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn call(
        &self,
        service: &str,
        region: &str,
        action: &str,
        more: &[(&str, &str)],
    ) -> String {
        let version = if service == "iam" { IAM } else { EC2 };
        let mut form = vec![("Action", action), ("Version", version)];
        form.extend(more);
        let body: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let answer = self
            .http
            .post(&self.url)
            .header("authorization", scope(region, service))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .expect("moto answers");
        let status = answer.status();
        let text = answer.text().await.expect("moto answers in text");
        assert!(status.is_success(), "{action}: {status}: {text}");
        text
    }

    /// One request of S3's protocol, by its path: `/bucket/key?uploads`.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn s3(&self, method: Method, path: &str, body: &'static str) -> Response {
        let request = self.http.request(method, format!("{}{path}", self.url));
        let request = request.header("authorization", scope("us-east-1", "s3"));
        let answer = request.body(body).send().await.expect("moto answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer
    }

    /// The keys of multipart uploads that nobody ended.
    pub async fn uploads(&self, bucket: &str) -> Vec<String> {
        let answer = self
            .s3(Method::GET, &format!("/{bucket}?uploads"), "")
            .await;
        let text = answer.text().await.expect("moto answers in text");
        all(&text, "Key")
    }

    /// The keys of objects, up to 1,000.
    pub async fn keys(&self, bucket: &str) -> Vec<String> {
        let path = format!("/{bucket}?list-type=2");
        let answer = self.s3(Method::GET, &path, "").await;
        let text = answer.text().await.expect("moto answers in text");
        all(&text, "Key")
    }

    async fn ec2(&self, region: &str, action: &str, more: &[(&str, &str)]) -> String {
        self.call("ec2", region, action, more).await
    }

    pub(super) async fn create_instance_profile(&self, name: &str) {
        let more = [("InstanceProfileName", name)];
        self.call("iam", "us-east-1", "CreateInstanceProfile", &more)
            .await;
    }

    pub(super) async fn register_image(&self, region: &str, name: &str) -> String {
        let more = [
            ("Name", name),
            ("Architecture", "x86_64"),
            ("RootDeviceName", "/dev/sda1"),
        ];
        let made = self.ec2(region, "RegisterImage", &more).await;
        all(&made, "imageId").remove(0)
    }

    pub(super) async fn subnets(&self, region: &str) -> Vec<String> {
        let mut subnets = all(&self.ec2(region, "DescribeSubnets", &[]).await, "subnetId");
        subnets.truncate(3);
        subnets
    }

    pub(super) async fn security_groups(&self, region: &str) -> Vec<String> {
        let mut groups = all(
            &self.ec2(region, "DescribeSecurityGroups", &[]).await,
            "groupId",
        );
        groups.truncate(1);
        groups
    }

    /// Terminated ones, too.
    pub async fn instances(&self, region: &str) -> Vec<Instance> {
        let more = [("MaxResults", "1000")];
        let text = self.ec2(region, "DescribeInstances", &more).await;
        all(&text, "instancesSet")
            .iter()
            .flat_map(|set| items(set))
            .map(|xml| Instance {
                id: all(&xml, "instanceId").remove(0),
                state: all(&all(&xml, "instanceState").remove(0), "name").remove(0),
                instance_type: all(&xml, "instanceType").remove(0),
                machine: tag(&xml, "insforge:machine"),
                xml,
            })
            .collect()
    }

    pub async fn count_volumes(&self, region: &str) -> usize {
        let text = self.ec2(region, "DescribeVolumes", &[]).await;
        all(&text, "volumeSet")
            .iter()
            .flat_map(|set| items(set))
            .count()
    }

    /// What an operator does in AWS's console.
    pub async fn by_hand(&self, region: &str, action: &str, instance: &str) {
        self.ec2(region, action, &[("InstanceId.1", instance)])
            .await;
    }
}

/// Who asks, of what. The signature is not looked at.
fn scope(region: &str, service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

/// The value of a tag of an instance.
fn tag(xml: &str, key: &str) -> Option<String> {
    all(xml, "tagSet")
        .iter()
        .flat_map(|set| items(set))
        .find(|item| all(item, "key") == [key])
        .map(|item| all(&item, "value").remove(0))
}

/// The contents of all elements of that name that do not lie in another one of it.
pub(super) fn all(xml: &str, name: &str) -> Vec<String> {
    let (begin, end) = (format!("<{name}>"), format!("</{name}>"));
    let mut found = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.find(&begin) {
        let inside = &rest[at + begin.len()..];
        let mut depth = 1;
        let mut from = 0;
        let length = loop {
            let Some(close) = inside[from..].find(&end).map(|at| at + from) else {
                return found;
            };
            depth += inside[from..close].matches(&begin).count();
            depth -= 1;
            if depth == 0 {
                break close;
            }
            from = close + end.len();
        };
        found.push(inside[..length].to_owned());
        rest = &inside[length + end.len()..];
    }
    found
}

/// The items of a set.
fn items(set: &str) -> Vec<String> {
    all(set, "item")
}
