//! What the control plane's collector reads.

use serde_json::{Value, json};

use super::harness::{API_KEY, CloudKey, ControlPlane, claims_with, with_world};

#[tokio::test]
async fn usage_counts_what_the_contract_counts() {
    with_world(async |mut world| {
        let cloud = ControlPlane::start().await;
        let key = CloudKey::rs256("k1");
        cloud.publish(&key);
        let backend = world.set("CLOUD_API_HOST", &cloud.url).start().await;
        for body in [
            json!({"tool_name": "run-sql"}),
            json!({"tool_name": "bad", "success": false}),
        ] {
            assert_eq!(backend.post("/api/usage/mcp", body).await.status, 200);
        }
        let answer = backend.post("/api/usage/mcp", json!({})).await;
        assert_eq!(answer.error(), (400, "INVALID_INPUT"));
        backend
            .superuser_sql(
                "INSERT INTO storage.buckets (name) VALUES ('b');
                 INSERT INTO storage.objects (bucket, key, size) VALUES ('b', 'x', 6);
                 INSERT INTO auth.users (email, is_anonymous, is_project_admin)
                    VALUES ('a@x', false, false), ('b@x', true, false), ('c@x', false, true)",
            )
            .await;

        // Neither type nor user is asked for here.
        let token = key.sign(&claims_with("type", Value::Null));
        let stats = async |query: &str| {
            let path = format!("/api/usage/stats?{query}");
            backend.get_with_token(&path, &token).await
        };
        let answer = stats("start_date=2020-01-01&end_date=2100-01-01").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.body["mcp_usage_count"], 1);
        assert_eq!(answer.body["storage_size_bytes"], 6);
        assert_eq!(answer.body["user_count"], 1);
        assert!(answer.body["database_size_bytes"].as_u64().unwrap() > 1_000_000);
        let answer = stats("start_date=2020-01-01&end_date=2020-02-01").await;
        assert_eq!(answer.body["mcp_usage_count"], 0);

        let answer = stats("start_date=2020-01-01").await;
        assert_eq!(answer.error(), (400, "INVALID_INPUT"));
        let answer = stats("start_date=x&end_date=2020-02-01").await;
        assert_eq!(answer.error(), (500, "INTERNAL_ERROR"));
        let path = "/api/usage/stats?start_date=2020-01-01&end_date=2020-02-01";
        assert_eq!(backend.get(path).await.status, 401);
        assert_eq!(backend.get_with_token(path, API_KEY).await.status, 401);
        let other = key.sign(&claims_with("projectId", json!("other")));
        assert_eq!(backend.get_with_token(path, &other).await.status, 403);

        let answer = backend.get("/api/usage/mcp?limit=many").await;
        assert_eq!(answer.error(), (400, "INVALID_INPUT"));
        let records = backend.get("/api/usage/mcp?limit=5&success=true").await;
        assert_eq!(records.body["records"][0]["tool_name"], "run-sql");
        assert_eq!(records.body["records"].as_array().unwrap().len(), 1);
    })
    .await;
}
