//! The main job: a partner makes, uses, pauses, restores, restarts and deletes a project.

use cp_tests::App;

#[tokio::test]
async fn an_embedded_project_lives_its_whole_life() {
    let app = App::start().await;
    let partner = app.partner().await;
    let project = partner.create_active_project("shop").await;

    let seen = partner.metadata(&project).await.expect(200)["project"].clone();
    assert_eq!(seen["status"], "active");
    assert_eq!(seen["region"], "us-east");
    assert_eq!(seen["instance_type"], "nano");
    assert!(seen["api_key"].as_str().unwrap().starts_with("ik_"));
    assert!(seen["access_host"].as_str().unwrap().starts_with("http://"));

    assert_eq!(
        partner.pause(&project).await.expect(200)["project"]["status"],
        "paused"
    );
    assert_eq!(
        partner.restore(&project).await.expect(200)["project"]["status"],
        "active"
    );
    partner.restart(&project).await.expect(200);
    assert_eq!(
        partner.metadata(&project).await.expect(200)["project"]["status"],
        "active"
    );

    let deleted = partner.delete_project(&project).await.expect(200);
    assert_eq!(deleted["message"], "Project deleted successfully");
    partner
        .metadata(&project)
        .await
        .expect_code(404, "project_not_found");
    app.settle().await;
    assert!(
        app.sim.alive().is_empty(),
        "machines are left: {:?}",
        app.sim.alive()
    );
}
