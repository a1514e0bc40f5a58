//! What a new machine is told by cloud-init: where its control plane is and the single-use token to
//! register with. Nothing in it is worth stealing later: the token dies with its first use or
//! after a short while, and the agent makes its own.

use cp_model::MachineId;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::{LaunchSpec, ProviderError};

/// Where the agent of the image looks, and starts when it is there.
const AGENT_JSON: &str = "/etc/insforge/agent.json";
/// AWS's own limit, before base64.
const MOST_BYTES: usize = 16 * 1024;
/// Where a backend listens on its machine.
pub(super) const BACKEND_PORT: u16 = 7130;

/// A cloud-config (cloud-init, "Cloud config data"). Written as JSON, which is YAML: nothing in it
/// needs escaping rules of its own.
pub(super) fn user_data(spec: &LaunchSpec) -> Result<SecretString, ProviderError> {
    let agent = agent_json(spec.machine_id, &spec.control_url, &spec.bootstrap_token);
    let config = json!({
        "write_files": [{
            "path": AGENT_JSON,
            "owner": "root:root",
            "permissions": "0600",
            "content": agent.expose_secret(),
        }],
        "runcmd": [["systemctl", "start", "--no-block", "insforge-agent.service"]],
    });
    let text = format!("#cloud-config\n{config}\n");
    if text.len() > MOST_BYTES {
        let length = text.len();
        return Err(ProviderError::Permanent(format!(
            "user-data would be {length} bytes; AWS takes {MOST_BYTES}"
        )));
    }
    Ok(text.into())
}

fn agent_json(machine: MachineId, control_url: &str, token: &SecretString) -> SecretString {
    json!({
        "machine_id": machine,
        "control_url": control_url,
        "bootstrap_token": token.expose_secret(),
        "port": BACKEND_PORT,
        // The disk is the machine's own: its agent grows what is on it.
        "runtime": { "kind": "compose", "grow_file_systems": true },
    })
    .to_string()
    .into()
}

#[cfg(test)]
mod tests {
    use cp_model::{InstanceType, Region};

    use super::*;

    fn spec(control_url: String) -> LaunchSpec {
        LaunchSpec {
            machine_id: MachineId::generate(),
            region: Region::DEFAULT,
            instance_type: InstanceType::DEFAULT,
            volume_gib: 8,
            bootstrap_token: "ibt_\"quoted\": {and} 'odd'".into(),
            control_url,
        }
    }

    #[test]
    fn it_is_a_cloud_config_that_writes_the_agents_file() {
        let spec = spec("https://api.example.com".into());
        let text = user_data(&spec).unwrap();
        let yaml = text
            .expose_secret()
            .strip_prefix("#cloud-config\n")
            .unwrap();
        let config: serde_json::Value = serde_json::from_str(yaml).unwrap();
        let file = &config["write_files"][0];
        assert_eq!(file["permissions"], "0600");
        let agent: serde_json::Value =
            serde_json::from_str(file["content"].as_str().unwrap()).unwrap();
        assert_eq!(agent["machine_id"], spec.machine_id.to_string());
        assert_eq!(agent["control_url"], "https://api.example.com");
        assert_eq!(
            agent["bootstrap_token"],
            spec.bootstrap_token.expose_secret()
        );
    }

    #[test]
    fn more_than_aws_takes_is_refused() {
        let error = user_data(&spec("x".repeat(20_000))).err().unwrap();
        assert!(matches!(error, ProviderError::Permanent(_)), "{error}");
    }
}
