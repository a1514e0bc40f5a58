//! The project's own migrations.

use serde_json::json;

use super::harness::with_world;

const PATH: &str = "/api/database/migrations";

#[tokio::test]
async fn migrations_are_recorded_statement_by_statement_or_leave_nothing() {
    with_world(async |world| {
        let backend = world.start().await;
        let apply = async |version: &str, name: &str, sql: &str| {
            backend
                .post(PATH, json!({"version": version, "name": name, "sql": sql}))
                .await
        };
        let made = apply(
            "0001",
            "create-todos",
            "-- the list\nCREATE TABLE todos (id int); CREATE INDEX todos_id ON todos (id);",
        )
        .await;
        assert_eq!(made.status, 201, "{}", made.body);
        assert_eq!(
            made.body["statements"],
            json!([
                "CREATE TABLE todos (id int)",
                "CREATE INDEX todos_id ON todos (id)"
            ])
        );
        let tables = backend.get("/api/database/tables").await;
        assert_eq!(tables.body, json!(["todos"]));

        let failing = apply("2", "half", "CREATE TABLE half (id int); SELECT 1 / 0").await;
        assert_eq!(failing.status, 500);
        assert_eq!(
            backend.get("/api/database/tables").await.body,
            json!(["todos"])
        );

        for (version, name, sql, expected) in [
            (
                "1",
                "again",
                "SELECT 1",
                (409, "DATABASE_MIGRATION_ALREADY_EXISTS"),
            ),
            (
                "0",
                "older",
                "SELECT 1",
                (409, "DATABASE_MIGRATION_ALREADY_EXISTS"),
            ),
            ("x", "name", "SELECT 1", (400, "INVALID_INPUT")),
            ("2", "Name!", "SELECT 1", (400, "INVALID_INPUT")),
            ("2", "name", " -- nothing", (400, "INVALID_INPUT")),
            ("2", "name", "COMMIT; SELECT 1", (403, "FORBIDDEN")),
            ("2", "name", "CREATE TABEL x ()", (403, "FORBIDDEN")),
            (
                "2",
                "name",
                "DELETE FROM system.secrets",
                (403, "FORBIDDEN"),
            ),
        ] {
            let answer = apply(version, name, sql).await;
            assert_eq!(answer.error(), expected, "{sql}: {}", answer.body);
        }

        assert_eq!(apply("10", "second", "SELECT 1").await.status, 201);
        let list = backend.get(PATH).await;
        let versions: Vec<_> = list.body["migrations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|migration| migration["version"].clone())
            .collect();
        assert_eq!(versions, [json!("10"), json!("0001")]);
    })
    .await;
}
