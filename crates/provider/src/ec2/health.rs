//! What AWS says about the health of instances (EC2 User Guide, "Status checks" and "Scheduled
//! events"). Asked for what is wrong only: three calls a region, however many instances run.

use std::collections::BTreeMap;

use aws_sdk_ec2::types as t;

use super::client::{Client, filter};
use super::trouble::Trouble;
use crate::{Ailing, Ailment};

/// Events after which the instance is not where it was; before them a stop and a start move it.
const LEAVING: [&str; 2] = ["instance-retirement", "instance-stop"];

pub(super) async fn ailing(client: &Client) -> Result<Vec<Ailing>, Trouble> {
    let mut ailing = BTreeMap::new();
    for matching in [
        filter("instance-status.status", ["impaired"]),
        filter("system-status.status", ["impaired"]),
        filter("event.code", LEAVING),
    ] {
        for status in client.statuses(matching).await? {
            // An emulator may not know the filters.
            if let (Some(ailment), Some(id)) = (ailment(&status), status.instance_id) {
                ailing.insert(id, ailment);
            }
        }
    }
    let ailing = ailing.into_iter().map(|(provider_ref, ailment)| Ailing {
        provider_ref,
        ailment,
    });
    Ok(ailing.collect())
}

fn ailment(status: &t::InstanceStatus) -> Option<Ailment> {
    let is_impaired = |summary: Option<&t::InstanceStatusSummary>| {
        summary.and_then(|summary| summary.status()) == Some(&t::SummaryStatus::Impaired)
    };
    if status.events().iter().any(is_ahead) {
        Some(Ailment::Retiring)
    } else if is_impaired(status.instance_status()) || is_impaired(status.system_status()) {
        Some(Ailment::Impaired)
    } else {
        None
    }
}

/// For a week after it an event is still told of, with a word before its description.
fn is_ahead(event: &t::InstanceStatusEvent) -> bool {
    let code = event.code().map(t::EventCode::as_str);
    let text = event.description().unwrap_or_default();
    let is_over = ["[Completed]", "[Canceled]"]
        .iter()
        .any(|word| text.starts_with(word));
    code.is_some_and(|code| LEAVING.contains(&code)) && !is_over
}
