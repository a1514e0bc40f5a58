//! What docker compose reads.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use super::Call;

pub(super) struct Files {
    pub(super) machine: BTreeMap<String, String>,
    pub(super) server: BTreeMap<String, String>,
    pub(super) postgres: BTreeMap<String, String>,
}

impl Files {
    pub(super) fn read(call: &Call) -> Self {
        let machine = fs::read_to_string(call.option("--env-file")[0]).unwrap();
        let machine = machine
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let [compose, environment] = call.option("--file")[..] else {
            panic!("{call:?}");
        };
        assert!(fs::read_to_string(compose).unwrap().contains("services:"));
        let environment: Value =
            serde_json::from_str(&fs::read_to_string(environment).unwrap()).unwrap();
        let of = |service: &str| -> BTreeMap<String, String> {
            let env = environment["services"][service]["environment"].clone();
            let env: BTreeMap<String, String> = serde_json::from_value(env).unwrap();
            env.into_iter()
                .map(|(name, value)| (name, value.replace("$$", "$")))
                .collect()
        };
        Self {
            machine,
            server: of("insforge"),
            postgres: of("postgres"),
        }
    }
}
