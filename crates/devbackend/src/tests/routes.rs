//! Everything else that the control plane and the client call.

use std::time::Instant;

use serde_json::json;

use super::harness::{API_KEY, Answer, with_world};

#[tokio::test]
async fn every_route_of_the_contract_answers() {
    with_world(async |world| {
        let backend = world.start().await;
        let health = backend.send("GET", "/api/health", &[], None).await;
        assert_eq!(health.body["version"], crate::VERSION);
        assert!(health.body["service"].as_str().unwrap().contains("stand-in"));

        backend
            .sql("CREATE TABLE notes (id int PRIMARY KEY, text text DEFAULT 'it''s'); INSERT INTO notes VALUES (1)")
            .await;
        backend
            .sql("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE POLICY p ON notes USING (true)")
            .await;
        let found = |answer: &Answer, list: &str, field: &str, value: &str| {
            answer.body[list]
                .as_array()
                .is_some_and(|items| items.iter().any(|item| item[field] == value))
        };
        for (path, list, field, value) in [
            ("functions", "functions", "functionName", "one"),
            ("indexes", "indexes", "indexName", "notes_pkey"),
            ("policies", "policies", "policyName", "p"),
        ] {
            let answer = backend.get(&format!("/api/database/{path}")).await;
            assert!(found(&answer, list, field, value), "{path}: {}", answer.body);
        }
        assert_eq!(
            backend.get("/api/database/triggers").await.body,
            json!({"triggers": []})
        );
        let metadata = backend.get("/api/metadata").await;
        assert_eq!(metadata.status, 200);
        assert_eq!(
            metadata.body["database"]["tables"],
            json!([{"tableName": "notes", "recordCount": 1}])
        );
        assert_eq!(metadata.body["auth"]["smtpConfig"]["port"], 465);
        let table = backend.get("/api/metadata/notes").await;
        assert_eq!(table.body["columns"][0]["name"], "id");

        let export = backend
            .post("/api/database/advance/export", json!({"format": "sql"}))
            .await;
        let data = export.body["data"].as_str().unwrap();
        backend.sql("DROP TABLE notes").await;
        let restored = backend.sql(data).await;
        assert_eq!(restored.status, 200, "{data}");
        let notes = backend.sql("SELECT * FROM notes").await;
        assert_eq!(notes.body["rows"], json!([{"id": 1, "text": "it's"}]));

        backend
            .superuser_sql(
                "INSERT INTO schedules.jobs (id, name, cron_schedule, function_url, is_active) VALUES
                 ('00000000-0000-4000-8000-000000000001', 'nightly', '0 0 * * *', 'http://x', false)",
            )
            .await;
        let patch = async |id: u8| {
            let path = format!("/api/schedules/00000000-0000-4000-8000-00000000000{id}");
            let body = json!({"cronSchedule": "5 0 * * *"});
            backend
                .send("PATCH", &path, &[("x-api-key", API_KEY)], Some(body))
                .await
        };
        assert_eq!(patch(1).await.status, 200);
        assert_eq!(patch(2).await.error(), (404, "SCHEDULE_NOT_FOUND"));
        let job = &backend.get("/api/schedules").await.body[0];
        assert_eq!(
            (&job["cronSchedule"], &job["isActive"]),
            (&json!("5 0 * * *"), &json!(true))
        );

        let bucket = json!({"bucketName": "avatars", "isPublic": true});
        assert_eq!(backend.post("/api/storage/buckets", bucket.clone()).await.status, 201);
        assert_eq!(backend.post("/api/storage/buckets", bucket).await.status, 409);
        assert_eq!(
            backend.get("/api/storage/buckets").await.body[0]["name"],
            "avatars"
        );
        for path in [
            "/api/metadata/auth",
            "/api/metadata/storage",
            "/api/metadata/functions",
            "/api/metadata/realtime",
            "/api/functions",
            "/api/schedules",
            "/api/storage/config",
            "/api/realtime/config",
            "/api/schedules/config",
            "/api/compute/services",
            "/api/deployments",
            "/api/logs/sources",
            "/api/logs/insforge.logs?limit=5",
            "/api/advisor/latest",
            "/api/advisor/issues",
        ] {
            assert_eq!(backend.get(path).await.status, 200, "{path}");
            let stranger = backend.send("GET", path, &[], None).await;
            assert_eq!(stranger.status, 401, "{path}");
        }
        for path in ["/api/memory", "/"] {
            assert_eq!(backend.get(path).await.error(), (404, "NOT_FOUND"));
        }
        assert_eq!(
            backend.post("/api/schedules", json!({})).await.error(),
            (404, "NOT_FOUND")
        );
    })
    .await;
}

#[tokio::test]
async fn secrets_are_stored_sealed_and_read_back() {
    with_world(async |world| {
        let backend = world.start().await;
        let secret = json!({"key": "STRIPE", "value": "sk_live"});
        assert_eq!(
            backend.post("/api/secrets", secret.clone()).await.status,
            201
        );
        assert_eq!(
            backend.post("/api/secrets", secret).await.error(),
            (409, "SECRET_ALREADY_EXISTS")
        );
        assert_eq!(
            backend.get("/api/secrets/STRIPE").await.body,
            json!({"key": "STRIPE", "value": "sk_live"})
        );
        assert_eq!(
            backend.get("/api/secrets/MISSING").await.error(),
            (404, "SECRET_NOT_FOUND")
        );
        let list = backend.get("/api/secrets").await;
        let reserved: Vec<_> = list.body["secrets"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|secret| secret["isReserved"] == false)
            .map(|secret| secret["key"].clone())
            .collect();
        assert_eq!(reserved, [json!("STRIPE")]);
        let stored = backend
            .superuser_sql("SELECT value_ciphertext FROM system.secrets WHERE key = 'STRIPE'")
            .await;
        let stored = stored.body["rows"][0]["value_ciphertext"].as_str().unwrap();
        assert!(!stored.contains("sk_live"));
    })
    .await;
}

#[tokio::test]
async fn a_migrated_machine_starts_at_once() {
    with_world(async |world| {
        let url = world.database_url("insforge");
        crate::migrate(&url).await.unwrap();
        crate::migrate(&url).await.unwrap();
        let begun = Instant::now();
        let backend = world.start().await;
        let answer = backend.get("/api/metadata/project-id").await;
        assert_eq!(answer.status, 200);
        // Generous: the machine may be busy. It takes some 30 ms on an idle one.
        assert!(begun.elapsed().as_millis() < 2_000, "{:?}", begun.elapsed());
        let ledger = backend
            .superuser_sql("SELECT count(*) FROM system.migrations")
            .await;
        assert_eq!(ledger.body["rows"][0]["count"], "1");
        let exposed = backend
            .superuser_sql(
                "SELECT system.is_exposed_schema('public') AS yes,
                    system.is_exposed_schema('auth') AS no",
            )
            .await;
        assert_eq!(exposed.body["rows"][0], json!({"yes": true, "no": false}));
        let synced = backend
            .superuser_sql(
                "CREATE SCHEMA mine; SELECT system.sync_postgrest_exposed_schemas();
                 SELECT system.reassign_public_objects_to_project_admin()",
            )
            .await;
        assert_eq!(synced.status, 200, "{}", synced.body);
    })
    .await;
}

#[tokio::test]
async fn a_restart_of_postgres_is_survived() {
    with_world(async |world| {
        let backend = world.start().await;
        assert_eq!(backend.get("/api/metadata/project-id").await.status, 200);
        world.restart_postgres().await;
        assert_eq!(backend.get("/api/metadata/project-id").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_dump_of_one_backend_is_the_start_of_another() {
    with_world(async |mut world| {
        let parent = world.start().await;
        parent
            .sql("CREATE TABLE todos (id int); INSERT INTO todos VALUES (1)")
            .await;
        parent
            .post("/api/secrets", json!({"key": "STRIPE", "value": "sk"}))
            .await;
        world.copy_database("insforge", "branch").await;
        // The fix-ups of a branch, and its own environment.
        world
            .set("POSTGRES_DB", "branch")
            .set("ACCESS_API_KEY", "ik_branch");
        let copy = world.start().await;
        copy.superuser_sql("DELETE FROM system.secrets WHERE key IN ('API_KEY', 'ANON_KEY')")
            .await;
        let branch = world.start().await;
        let secret = branch
            .get_with_token("/api/secrets/STRIPE", "ik_branch")
            .await;
        assert_eq!(secret.body["value"], "sk");
        let tables = branch
            .get_with_token("/api/database/tables", "ik_branch")
            .await;
        assert_eq!(tables.body, json!(["todos"]));
        assert_eq!(branch.get("/api/metadata").await.status, 401);
    })
    .await;
}
