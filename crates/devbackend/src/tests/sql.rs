//! Raw SQL.

use serde_json::{Value, json};

use super::harness::with_world;

#[tokio::test]
async fn results_have_the_forms_that_callers_know() {
    with_world(async |world| {
        let backend = world.start().await;
        let ddl = backend
            .sql("CREATE TABLE todos (id int PRIMARY KEY, title text NOT NULL)")
            .await;
        assert_eq!(
            ddl.body,
            json!({"rows": [], "rowCount": null, "fields": []})
        );
        let insert = backend
            .post(
                "/api/database/advance/rawsql",
                json!({"query": "INSERT INTO todos VALUES ($1, $2), (2, 'b') RETURNING title;",
                    "params": [1, "it's"]}),
            )
            .await;
        assert_eq!(
            insert.body,
            json!({"rows": [{"title": "it's"}, {"title": "b"}], "rowCount": 2,
                "fields": [{"name": "title", "dataTypeID": 25}]})
        );
        let types = backend
            .sql(
                "SELECT 1 AS i, 9007199254740993::bigint AS big, 1.50 AS num, NULL AS nothing,
                 timestamptz '2026-03-01 12:00+02' AS at, date '2026-03-01' AS day,
                 '{\"a\":[1]}'::jsonb AS doc, ARRAY[1,NULL] AS list, true AS yes",
            )
            .await;
        assert_eq!(
            types.body["rows"][0],
            json!({"i": 1, "big": "9007199254740993", "num": "1.50", "nothing": null,
                "at": "2026-03-01T10:00:00.000Z", "day": "2026-03-01T00:00:00.000Z",
                "doc": {"a": [1]}, "list": [1, null], "yes": true})
        );
        let none = backend.sql("SELECT id FROM todos WHERE false").await;
        assert_eq!(
            none.body,
            json!({"rows": [], "rowCount": 0, "fields": [{"name": "id", "dataTypeID": 23}]})
        );
        let several = backend.sql("SELECT 1; SELECT 2").await;
        assert_eq!(several.body, json!({"rows": []}));
        let plan = backend
            .post(
                "/api/database/advance/rawsql",
                json!({"query": "SELECT 1", "explain": true}),
            )
            .await;
        assert!(
            plan.body["rows"][0]["QUERY PLAN"].is_string(),
            "{}",
            plan.body
        );
    })
    .await;
}

#[tokio::test]
async fn errors_map_to_their_codes_and_roles_hold() {
    with_world(async |world| {
        let backend = world.start().await;
        backend
            .sql("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL CHECK (n > 0)); INSERT INTO t VALUES (1, 1)")
            .await;
        for (query, expected) in [
            ("SELECT * FROM missing", (400, "DATABASE_VALIDATION_ERROR")),
            ("SELECT missing FROM t", (400, "DATABASE_VALIDATION_ERROR")),
            ("SELEC 1", (403, "FORBIDDEN")),
            ("SELECT 'open", (403, "FORBIDDEN")),
            ("COMMIT", (403, "FORBIDDEN")),
            ("RESET ROLE", (403, "FORBIDDEN")),
            ("SELECT 1; SET ROLE postgres", (403, "FORBIDDEN")),
            ("DELETE FROM system.secrets", (403, "FORBIDDEN")),
            ("INSERT INTO t VALUES (1, 1)", (409, "DATABASE_DUPLICATE")),
            ("INSERT INTO t VALUES (2, 0)", (400, "DATABASE_CONSTRAINT_VIOLATION")),
            ("SELECT 1 / 0", (500, "INTERNAL_ERROR")),
            ("", (400, "INVALID_INPUT")),
        ] {
            let answer = backend.sql(query).await;
            assert_eq!(answer.error(), expected, "{query}: {}", answer.body);
        }
        let role = |answer: &Value| answer["rows"][0]["current_user"].clone();
        let who = "SELECT current_user::text";
        assert_eq!(role(&backend.sql(who).await.body), "project_admin");
        assert_eq!(role(&backend.superuser_sql(who).await.body), "postgres");
        let owner = backend
            .sql("SELECT tableowner::text FROM pg_tables WHERE tablename = 't'")
            .await;
        assert_eq!(owner.body["rows"][0]["tableowner"], "project_admin");
        let deleted = backend
            .superuser_sql("DELETE FROM system.mcp_usage")
            .await;
        assert_eq!(deleted.body["rowCount"], 0);
        // A failing statement takes the ones before it with it.
        backend.sql("INSERT INTO t VALUES (5, 5); SELECT 1 / 0").await;
        let kept = backend.sql("SELECT id FROM t WHERE id = 5").await;
        assert_eq!(kept.body["rows"], json!([]));
    })
    .await;
}
