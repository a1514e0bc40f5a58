//! What is read from a database does not depend on how the database came to be.

use std::{fs, path::PathBuf};

use cp_merge::catalog::{self, Catalog};

use crate::database::Database;

async fn read(database: &Database) -> Catalog {
    catalog::read(&mut database.connect().await).await.unwrap()
}

/// No base has a text that changes when it is parsed again.
#[tokio::test]
async fn copies_of_all_cases_read_equal() {
    let mut cases: Vec<PathBuf> =
        fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
    cases.sort();
    for case in cases {
        let database = Database::empty().await;
        for file in ["base.sql", "branch.sql"] {
            database
                .psql(&fs::read_to_string(case.join(file)).unwrap())
                .await;
        }
        let original = read(&database).await;
        let restored = read(&database.dump_copy().await).await;
        assert_eq!(original.diff(&restored), Vec::new(), "{}", case.display());
        assert_eq!(original.hash(), restored.hash());
        assert_eq!(original.hash(), read(&database).await.hash());
        assert_eq!(original.unmodelled, Vec::<String>::new());
        let bytes = original.to_bytes();
        assert_eq!(Catalog::from_bytes(&bytes).unwrap(), original);
        for (id, fact) in &original.facts {
            let there = restored.facts.get(id).unwrap();
            assert_eq!(there.needs, fact.needs, "{id}");
        }
    }
}
